"""Half precision as a property of the graph: which node computes in which type, and what that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from musc_edge.export import make as make_module
from musc_edge.export.half import to_half
from musc_edge.export.make import make_bundle
from musc_edge.export.verify import verify
from musc_edge.runtime.errors import BundleError, ParityError
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from support.sources import built, pixels, quiet, run, tiny_source
from support.tiny_vit import WIDTH, tiny_vit

SIZE, PATCHES = (16, 24), 24
TOKENS = ("tokens_0", "tokens_2")
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def halved(model: onnx.ModelProto, outputs: tuple[str, ...] = TOKENS, stream: int = FLOAT) -> onnx.ModelProto:
    graph = ir.serde.deserialize_model(model)
    to_half(graph, outputs, ir.DataType(stream))
    return ir.serde.serialize_model(graph)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, found by inference, which fails where a node's types do not agree."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(plain, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**types, **{weight.name: weight.data_type for weight in inferred.initializer}}


@pytest.fixture(
    scope="module", params=[{"fused_norm": True, "opset": 17}, {"opset": 14}], ids=["whole", "parts"]
)
def models(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A bundle's graph with whole and with decomposed LayerNorm, and the same in half precision."""
    model = built(tiny_vit(**request.param), SIZE).model
    return model, halved(model)


@pytest.mark.parametrize("stream", [FLOAT, HALF], ids=["float stream", "half stream"])
def test_types_of_nodes(models: tuple[onnx.ModelProto, onnx.ModelProto], stream: int) -> None:
    model = models[1] if stream == FLOAT else halved(models[0], stream=HALF)
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    computed = {name for node in model.graph.node for name in node.output}
    seen: set[str] = set()
    for node in model.graph.node:
        kinds = {types[name] for name in node.input if types.get(name) in (HALF, FLOAT)}
        residual = node.op_type == "Add" and len(computed.intersection(node.input)) == 2
        if node.op_type in ("MatMul", "Conv", "Gemm"):
            assert kinds == {HALF}, node.name
        elif residual or node.op_type == "LayerNormalization":
            assert kinds == {stream}, node.name
            seen.add("residual" if residual else node.op_type)
        elif node.op_type in ("Softmax", "ReduceMean", "Pow", "Sqrt"):
            assert kinds == {FLOAT}, node.name
            seen.add(node.op_type)
    assert {"Softmax", "ReduceMean", "residual"} <= seen


def test_inputs_and_outputs(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    types = types_of(models[1])
    assert {name: types[name] for name in ("pixels", *TOKENS, "cls")} == {
        "pixels": FLOAT,
        "tokens_0": HALF,
        "tokens_2": HALF,
        "cls": FLOAT,
    }


def test_numbers(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """Close, but not equal: half precision really took part."""
    images = pixels(3, SIZE)
    full, half = (run(model, images) for model in models)
    for name in TOKENS:
        assert half[name].dtype == np.float16
        difference = np.abs(full[name] - half[name].astype(np.float32))
        assert 1e-5 < difference.max() < 0.02
    np.testing.assert_allclose(half["cls"], full["cls"], rtol=0, atol=2e-3)


def test_nothing_is_converted_twice(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    graph = models[1].graph
    casts = [(n.input[0], n.attribute[0].i) for n in graph.node if n.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    used = {name for node in graph.node for name in node.input}
    assert {weight.name for weight in graph.initializer} <= used
    weights = [w for w in graph.initializer if w.data_type == FLOAT and len(w.dims) > 1]
    assert not [w.name for w in weights if numpy_helper.to_array(w).size > 3 * WIDTH]  # products' are half


@pytest.mark.slow
def test_adopted_bundle(tmp_path: Path) -> None:
    """The manifest states the types, and the runtime's backend writes tokens into a float16 store."""
    make_bundle(tiny_source(tmp_path, SIZE), tmp_path / "bundle", "fp16", say=quiet)
    bundle = open_bundle(tmp_path / "bundle", whole=True)
    assert bundle.manifest.precision == "fp16"
    assert [spec.dtype for spec in bundle.manifest.tokens] == ["float16", "float16"]
    store = HostStore(np.empty((2, 5, PATCHES, WIDTH), np.float16), np.empty((5, WIDTH), np.float32))
    with OnnxBackend(bundle) as backend:
        backend.extract_into(pixels(5, SIZE), store.slot(0, 5))
    assert np.isfinite(store.tokens).all()
    assert verify(str(tmp_path / "bundle")).layers[0].min_cosine < 1


def test_a_weight_beyond_half(tmp_path: Path) -> None:
    model = tiny_vit()
    weight = next(w for w in model.graph.initializer if w.name.endswith("projection.weight"))
    values = np.array(numpy_helper.to_array(weight))
    values[0, 0, 0, 0] = 1e5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(BundleError, match=r"projection.weight.* holds 1e\+05, beyond float16's 65504"):
        make_bundle(tiny_source(tmp_path, SIZE, model=model), tmp_path / "out" / "bundle", "fp16", say=quiet)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_half_graph_that_is_wrong_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of the half graph is not the source's."""

    def scaled(model: ir.Model, outputs: tuple[str, ...]) -> None:
        to_half(model, outputs)
        name = next(n for n in model.graph.initializers if n.endswith("projection.weight.as_float16"))
        value = model.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor((value.const_value.numpy() * 2).astype(np.float16), name=name)

    monkeypatch.setattr(make_module, "to_half", scaled)
    with pytest.raises(ParityError, match="layer 0: lowest token cosine"):
        make_bundle(tiny_source(tmp_path, SIZE), tmp_path / "out" / "bundle", "fp16", say=quiet)
    assert list((tmp_path / "out").iterdir()) == []


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"precision 'int8': expected one of fp32, fp16"):
        make_bundle(tiny_source(tmp_path, SIZE), tmp_path / "bundle", "int8", say=quiet)


def test_constants_in_nodes_are_weights(tmp_path: Path) -> None:
    """Some exporters keep constants as nodes: they too take the type that their user has."""
    constant = helper.make_node(
        "Constant", [], ["two"], value=numpy_helper.from_array(np.array(2, np.float32))
    )
    nodes = [constant, helper.make_node("MatMul", ["pixels", "pixels"], ["product"]),
             helper.make_node("Mul", ["product", "two"], ["out"])]  # fmt: skip
    sides = [helper.make_tensor_value_info(name, FLOAT, ["batch", 4, 4]) for name in ("pixels", "out")]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    result: Any = halved(model, ())
    assert types_of(result)["product"] == HALF
    assert run(result, np.ones((1, 4, 4), np.float32))["out"].dtype == np.float32
