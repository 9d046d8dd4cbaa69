"""The residual stream in half precision: where it may be, and what is done where it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from musc_edge.export import make, stream_type
from musc_edge.export.make import make_bundle
from musc_edge.export.stream_type import MARGIN, run_rounded
from musc_edge.runtime.errors import ParityError
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.graphs import NODES, PIECES, graphs_of
from support.sources import built, pixels, run, tiny_source
from support.tiny_vit import BLOCKS, tiny_vit

pytestmark = pytest.mark.long

SIZE = (16, 24)
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def scaled(factor: float, **options: object) -> onnx.ModelProto:
    """A ViT whose patch embeddings, and with them its residual stream, are larger."""
    model = tiny_vit(**options)  # type: ignore[arg-type]
    weight = next(w for w in model.graph.initializer if w.name.endswith("projection.weight"))
    values = numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model


def bundle(folder: Path, model: onnx.ModelProto, said: list[str]) -> Path:
    make_bundle(tiny_source(folder, SIZE, model=model), folder / "bundle", "fp16", say=said.append)
    return folder / "bundle"


def types_of_stream(path: Path) -> set[int]:
    """Types of the residual stream, and of what is added to it."""
    model = onnx.load(path)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    computed = {name for node in model.graph.node for name in node.output}
    stream = [n for n in model.graph.node if n.op_type == "Add" and computed.issuperset(n.input)]
    assert len(stream) == 2 * BLOCKS
    return {types[name] for node in stream for name in node.input}


@pytest.mark.parametrize("norms", [{"fused_norm": True, "opset": 17}, {}], ids=["whole", "parts"])
def test_half_where_it_has_room(tmp_path: Path, norms: dict[str, object]) -> None:
    """The pieces stay as they are: a CPU runs them, and loads no norm in pieces behind float16."""
    said: list[str] = []
    root = bundle(tmp_path, scaled(1, **norms), said)
    assert types_of_stream(root / "model.attention.onnx") == {HALF}
    assert types_of_stream(root / "model.onnx") == {FLOAT}
    assert "  model.attention.onnx with its residual stream in float16" in said
    nodes = onnx.load(root / "model.attention.onnx").graph.node
    assert sum(node.op_type == "LayerNormalization" for node in nodes) == 2 * BLOCKS + 1
    assert sum(node.op_type == "Cast" for node in nodes) < 10
    assert graphs_of(open_bundle(root, whole=True)) == (PIECES, NODES)
    files = ["manifest.json", "model.attention.onnx", "model.onnx", "model.onnx.data", "probe.npz"]
    assert sorted(path.name for path in root.iterdir()) == files


def test_how_far_the_stream_goes(tmp_path: Path) -> None:
    """As far as in any block, by the sums themselves."""
    model, images = built(scaled(1), SIZE).model, pixels(2, SIZE)
    computed = {name for node in model.graph.node for name in node.output}
    sums = [n.output[0] for n in model.graph.node if n.op_type == "Add" and computed.issuperset(n.input)]
    assert len(sums) == 2 * BLOCKS
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in sums)
    largest = max(float(np.abs(values).max()) for name, values in run(probe, images).items() if name in sums)
    onnx.save(model, tmp_path / "model.onnx")
    found, tokens = run_rounded(tmp_path / "model.onnx", images)
    assert found == pytest.approx(largest, rel=1e-5)
    expected = run(model, images)
    np.testing.assert_allclose(tokens, np.stack([expected["tokens_0"], expected["tokens_2"]]), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_float_where_it_has_none(tmp_path: Path) -> None:
    said: list[str] = []
    root = bundle(tmp_path, scaled(65504 / MARGIN), said)
    assert types_of_stream(root / "model.attention.onnx") == {FLOAT}
    assert any("on 2 probe images, rounded at every node: it stays in float32" in line for line in said)
    assert "  model.attention.onnx with its residual stream in float32" in said
    assert open_bundle(root, whole=True).manifest.parity["attention_as_nodes"]["images"] == 12


def test_float_where_roundings_change_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_type, "min_cosine", lambda source, tokens: 0.9994)
    said: list[str] = []
    root = bundle(tmp_path, scaled(1), said)
    assert types_of_stream(root / "model.attention.onnx") == {FLOAT}
    assert any("lowest cosine of a token 0.999400 on 2" in x and "stays in float32" in x for x in said)


def test_float_where_norms_were_not_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_type, "with_whole_norms", lambda model: 0)
    said: list[str] = []
    root = bundle(tmp_path, scaled(1), said)
    assert types_of_stream(root / "model.attention.onnx") == {FLOAT}
    assert "  its residual stream is in float32: norms are in pieces that were not understood" in said


def test_float_where_no_stream_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nothing that was measured it cannot be said how far it goes."""
    monkeypatch.setattr(stream_type, "is_residual", lambda node: False)
    said: list[str] = []
    root = bundle(tmp_path, scaled(1), said)
    assert types_of_stream(root / "model.attention.onnx") == {FLOAT}
    assert "  its residual stream is in float32: no sum of it was found that could be measured" in said


def test_float_where_half_does_not_give_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def only_third(parity: object, tolerance: object, what: str) -> None:
        asked.append(what)
        if len(asked) == 2:
            raise ParityError("not these")

    monkeypatch.setattr(make, "require", only_third)
    said: list[str] = []
    root = bundle(tmp_path, scaled(1), said)
    assert asked == ["the exported graph", f"the graph with {NODES}", f"the graph with {NODES}"]
    assert "  model.attention.onnx with its residual stream in float16 is left out: not these" in said
    assert types_of_stream(root / "model.attention.onnx") == {FLOAT}
    assert graphs_of(open_bundle(root, whole=True)) == (PIECES, NODES)
    assert len(list(root.iterdir())) == 5
