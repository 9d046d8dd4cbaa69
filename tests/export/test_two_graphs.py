"""A bundle with two graphs over the same weights: who runs which, what proves both, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from musc_edge.export import make
from musc_edge.export.attention import AttentionGraph, with_attention_nodes
from musc_edge.export.verify import verify
from musc_edge.runtime.errors import BundleError, ParityError
from musc_edge.runtime.types import Bundle
from musc_edge.runtime.vit import graphs, onnx_backend
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.choose import enter_backend
from musc_edge.runtime.vit.extract import empty_slot
from musc_edge.runtime.vit.graphs import NODES, PIECES, choose_graph, graph_notes, graphs_of
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from musc_edge.tools import edge
from musc_edge.tools import export as command
from support.fake_onnxruntime import FakeOnnxRuntime, install_onnxruntime
from support.gpu_machine import SIZE, install
from support.places import ROOT
from support.sources import edit_manifest, pixels, quiet, rehash, tiny_source

GRAPHS = ("model.onnx", "model.attention.onnx")
SCHEMA1 = ROOT / "tests/data/schema1/bundle"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    make.make_bundle(tiny_source(folder, SIZE), folder / "bundle", say=quiet)
    return folder / "bundle"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def features(bundle: Bundle, graph: str) -> tuple[np.ndarray, np.ndarray]:
    slot = empty_slot(bundle, 3)
    with OnnxBackend(bundle, graph=graph) as backend:
        assert backend.graph == graph
        backend.extract_into(pixels(3, SIZE), slot)
    return slot.tokens, slot.cls


def with_precision(bundle: Bundle, precision: str) -> Bundle:
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, precision=precision))


# ---- what is written -------------------------------------------------------------------------


def test_weights_are_on_disk_once(made: Path) -> None:
    first, second = (onnx.load(made / name, load_external_data=False) for name in GRAPHS)
    apart = [
        {
            w.name: sorted((e.key, e.value) for e in w.external_data)
            for w in m.graph.initializer
            if w.external_data
        }
        for m in (first, second)
    ]
    assert len(apart[0]) > 10
    assert apart[1].items() <= apart[0].items()
    inline = sum(len(w.raw_data) for w in second.graph.initializer if not w.external_data)
    assert inline < 3000  # numbers, shapes and axes
    assert {entry[1] for entries in apart[0].values() for entry in entries if entry[0] == "location"} == {
        "model.onnx.data"
    }


def test_both_graphs_are_proven(made: Path) -> None:
    bundle = open_bundle(made, whole=True)
    assert set(bundle.manifest.files) == {*GRAPHS, "model.onnx.data", "probe.npz"}
    assert bundle.manifest.parity["attention_as_nodes"]["raw_score_max_change"] < 1e-5
    parity = verify(str(made))
    assert parity.attention_as_nodes is not None
    assert parity.attention_as_nodes.images == 12
    assert any(line.startswith(f"  with {NODES}: lowest cosine of a token 1.0000") for line in parity.lines())


def test_both_give_the_same_features(made: Path) -> None:
    bundle = open_bundle(made)
    for a, b in zip(features(bundle, PIECES), features(bundle, NODES), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-6)


def test_graph_that_was_changed_is_found(root: Path) -> None:
    """By the numbers: its hash is made to fit."""
    model = onnx.load(root / GRAPHS[1], load_external_data=False)
    (first, *_) = (node for node in model.graph.node if node.op_type == "Attention")
    (scale,) = (a for a in first.attribute if a.name == "scale")
    scale.f *= 3
    onnx.save(model, root / GRAPHS[1])
    rehash(root)
    with pytest.raises(ParityError, match=r"cpu on .*, attention as one node, does not(.|\n)*layer 0"):
        verify(str(root))


def test_in_half_precision_the_graph_that_is_not_taken_is_shown_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_manifest(root, precision="fp16")
    assert verify(str(root)).attention_as_nodes is not None
    monkeypatch.setattr("musc_edge.export.verify.choose_graph", lambda *arguments: NODES)
    monkeypatch.setattr(
        "musc_edge.export.verify.require_parity", lambda *arguments: asked.append(arguments[-1])
    )
    monkeypatch.setattr("musc_edge.export.verify.with_nodes", lambda found: found)
    asked: list[str] = []
    verify(str(root))
    assert asked == [NODES]


Wrong = Callable[[Path], None]


def _remove(root: Path) -> None:
    (root / GRAPHS[1]).unlink()


def _cut(root: Path) -> None:
    content = (root / GRAPHS[1]).read_bytes()
    (root / GRAPHS[1]).write_bytes(content[:-10])


def _no_graph(root: Path) -> None:
    (root / GRAPHS[1]).write_bytes(b"not a graph")
    rehash(root)


def _foreign_weights(root: Path) -> None:
    model = onnx.load(root / GRAPHS[1], load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "others.data"
    onnx.save(model, root / GRAPHS[1])
    rehash(root)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_remove, "lacks model.attention.onnx, which its manifest lists"),
        (_cut, "model.attention.onnx was changed since it was written"),
        (_no_graph, r"cannot load .*model.attention.onnx: it is not an ONNX graph"),
        (_foreign_weights, r"model.attention.onnx takes weights from 'others.data', which the manifest"),
    ],
)
def test_damaged_second_graph_is_an_error(root: Path, wrong: Wrong, message: str) -> None:
    """As of every file of a bundle, whether or not the backend would take it."""
    wrong(root)
    with pytest.raises(BundleError, match=message):
        open_bundle(root)


# ---- without one -----------------------------------------------------------------------------


def test_old_onnxruntime_leaves_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(make, "can_run_nodes", lambda version: False)
    parity = make.make_bundle(tiny_source(tmp_path, SIZE), tmp_path / "bundle", say=said.append)
    assert parity.attention_as_nodes is None
    assert any("attention stays in pieces: ONNX Runtime" in text for text in said)
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [
        *("manifest.json", "model.onnx", "probe.npz")
    ]


def test_nodes_beyond_the_tolerance_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model) -> AttentionGraph:
        found = with_attention_nodes(model)
        assert found is not None
        for node in found.model.graph:
            if node.op_type == "Attention":
                node.replace_input_with(1, node.inputs[0])
        return found

    said: list[str] = []
    monkeypatch.setattr(make, "with_attention_nodes", wrong)
    parity = make.make_bundle(tiny_source(tmp_path, SIZE), tmp_path / "bundle", say=said.append)
    assert parity.attention_as_nodes is None
    assert any("model.attention.onnx is left out: the graph with attention as one node" in x for x in said)
    bundle = open_bundle(tmp_path / "bundle", whole=True)
    assert graphs_of(bundle) == (PIECES,)
    assert not (bundle.root / GRAPHS[1]).exists()


def test_bundle_of_schema_1() -> None:
    bundle = open_bundle(SCHEMA1)
    assert graphs_of(bundle) == (PIECES,)
    with OnnxBackend(bundle) as backend:
        assert (backend.graph, backend.version) == (PIECES, f"ONNX Runtime {_installed()}")
    with pytest.raises(
        BundleError, match="has no graph with attention as one node, only attention in pieces"
    ):
        OnnxBackend(bundle, graph=NODES).__enter__()


def _installed() -> str:
    return str(onnx_backend.import_onnxruntime().__version__)


# ---- who runs which --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "precision", "version", "graph"),
    [
        ("cpu", "fp32", "1.32.0", PIECES),
        ("cpu", "fp16", "1.32.0", PIECES),
        ("cuda", "fp32", "1.32.0", PIECES),
        ("cuda", "fp16", "1.31.1", NODES),
        ("cuda", "fp16", "2.0", NODES),
        ("cuda", "fp16", "1.30.2", PIECES),
        ("cuda", "fp16", "1.18.1", PIECES),
    ],
)
def test_faster_graph(made: Path, device: str, precision: str, version: str, graph: str) -> None:
    bundle = with_precision(open_bundle(made), precision)
    assert choose_graph(bundle, device, version) == graph
    noted = graph_notes(bundle, device, version)
    assert bool(noted) == (device == "cuda" and precision == "fp16" and graph == PIECES)
    old = with_precision(open_bundle(SCHEMA1), precision)
    assert (choose_graph(old, device, version), graph_notes(old, device, version)) == (PIECES, ())


@pytest.mark.parametrize(("version", "able"), [("1.18.1", False), ("1.22.1", False), ("1.23.2", True)])
def test_versions_that_run_nodes(version: str, able: bool) -> None:
    assert graphs.can_run_nodes(version) is able


@pytest.mark.parametrize("version", [None, "1.30.0"])
def test_cuda_takes_nodes_and_says_so(
    made: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    install(monkeypatch)
    runtime = FakeOnnxRuntime()
    if version:
        runtime.__version__ = version  # type: ignore[attr-defined]
    install_onnxruntime(monkeypatch, runtime)
    monkeypatch.setattr("musc_edge.runtime.vit.choose.import_onnxruntime", lambda: runtime)
    bundle = with_precision(open_bundle(made), "fp16")
    with ExitStack() as stack:
        backend, notes = enter_backend(stack, "cuda", bundle, 1, 2)
        assert backend.version.endswith(f", cuda, {PIECES if version else NODES}")
    wanted = (
        "the ViT runs with attention in pieces: ONNX Runtime 1.30.0 is older than 1.31, which fuses it",
    )
    assert notes == (wanted if version else ())


def test_verify_says_what_an_old_onnxruntime_left_out(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("musc_edge.export.verify.can_run_nodes", lambda version: False)
    assert command.main(["verify", str(made)]) == 0
    text = capsys.readouterr().out
    assert "model.attention.onnx was not run: this ONNX Runtime is older than 1.23" in text
    assert NODES not in text


def test_inspect_and_json(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edge.main(["inspect", str(made)]) == 0
    text = capsys.readouterr().out
    assert "graphs      attention in pieces; attention as one node, raw scores within" in text
    assert command.main(["verify", str(made), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["parity"]
    assert found["attention_as_nodes"]["images"] == 12
