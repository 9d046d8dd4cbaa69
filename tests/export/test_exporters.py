"""ViTs as transformers, timm and torchvision export them: found without options, with torch's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from musc_edge.export.adopt import OnnxSource
from musc_edge.export.attention import with_attention_nodes
from musc_edge.runtime.errors import BundleError
from musc_edge.runtime.types import PreprocessSpec
from musc_edge.tools import export as command
from support.exported_vits import PATCHES, SIDE, export
from support.sources import MEAN, STD, Array, quiet, run

pytestmark = pytest.mark.long

Exported = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def exported(make_once: Callable[[str, Callable[[Path], object]], Path]) -> Exported:
    """The folder with model.onnx and numbers.npz of a model, exported once."""

    def folder(name: str, exporter: str) -> Path:
        return make_once(f"vit_{name}_{exporter}", lambda path: export(name, exporter, path))

    return folder


def source(folder: Path, **options: Any) -> OnnxSource:
    spec = PreprocessSpec((SIDE, SIDE), "squash", "bicubic", MEAN, STD)
    return OnnxSource(folder / "model.onnx", options.pop("layers", None), spec, "tiny", **options)


def embedding(numbers: Mapping[str, Array], cls: str | None) -> Array:
    """What the option ``--cls`` stands for, by torch's numbers."""
    value = numbers["norm" if cls in (None, "mean") else str(cls)]
    if value.ndim == 3:
        value = value[:, -PATCHES:].mean(axis=1) if cls == "mean" else value[:, 0]
    unit: Array = value / np.linalg.norm(value, axis=1, keepdims=True)
    return unit


def assert_numbers(folder: Path, loaded: Any, cls: str | None) -> onnx.ModelProto:
    """The bundle's graph gives what torch gave; returns it."""
    graph: onnx.ModelProto = ir.to_proto(loaded.graph().model)
    numbers = np.load(folder / "numbers.npz")
    found = run(graph, numbers["pixels"])
    for layer in loaded.taps.layers:
        tokens = numbers[f"block_{layer}"][:, -PATCHES:]
        centred = tokens - tokens.mean(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(found[f"tokens_{layer}"], centred, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found["cls"], embedding(numbers, cls), rtol=0, atol=1e-5)
    three = run(graph, np.concatenate([numbers["pixels"], numbers["pixels"][:1]]))
    np.testing.assert_allclose(three["cls"][2], found["cls"][0], rtol=0, atol=1e-5)
    return graph


@pytest.mark.parametrize(
    ("name", "exporter", "cls"),
    [
        ("clip", "torchscript", None),
        ("clip of two blocks", "twice", "pooler_output"),
        ("clip projected", "torchscript", "image_embeds"),
        ("vit", "torchscript", None),
        ("vit", "torchscript", "pooler_output"),
        ("dinov2", "torchscript", None),
        ("dinov2", "twice", None),
        ("dinov2", "dynamo", None),
        ("dinov2 with registers", "dynamo", None),
        ("dinov3", "torchscript", None),
        ("siglip", "torchscript", "mean"),
        ("siglip", "torchscript", "pooler_output"),
        ("timm", "torchscript", None),
        ("timm with registers", "torchscript", None),
        ("timm with registers", "torchscript", "mean"),
        ("timm siglip", "torchscript", "pooled"),
        ("torchvision", "torchscript", None),
    ],
)
def test_blocks_are_found_without_options(
    exported: Exported, name: str, exporter: str, cls: str | None
) -> None:
    folder = exported(name, exporter)
    loaded = source(folder, cls=cls).load(quiet)
    graph = assert_numbers(folder, loaded, cls)
    blocks = 12 if name == "clip" else 2
    assert loaded.taps.layers == ((2, 5, 8, 11) if blocks == 12 else (0, 1))
    pooling = "siglip" in name and cls != "mean"  # by attention
    assert sum(node.op_type == "Softmax" for node in graph.graph.node) == blocks + pooling
    assert_attention_nodes(loaded, graph, blocks, pooling)


def assert_attention_nodes(loaded: Any, graph: onnx.ModelProto, blocks: int, pooling: bool) -> None:
    """The blocks' attention can be nodes, without a change; of poolings, timm's alone has four axes."""
    found = with_attention_nodes(loaded.graph().model)
    assert found is not None
    assert (found.nodes + found.pieces, found.nodes >= blocks) == (blocks + pooling, True)
    images = np.random.default_rng(2).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    wanted, numbers = run(graph, images), run(ir.to_proto(found.model), images)
    for name, values in wanted.items():
        np.testing.assert_allclose(numbers[name], values, rtol=0, atol=2e-6)


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_last_block_is_found_where_it_is_an_output(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, which says what it took; optimum#1920."""
    model = str(exported("clip", "torchscript") / "model.onnx")
    options = ["--image-size", str(SIDE), "--layers", "2,5,8,11", "--cls", "pooler_output"]
    assert command.main(["onnx", model, "-o", str(tmp_path / "bundle"), *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "  layer 11: last_hidden_state" in said
    assert any(
        line.startswith("  embedding: CLS from pooler_output; the source's outputs are") for line in said
    )


def test_tensors_of_the_default_exporter_can_be_named(exported: Exported) -> None:
    """Its names are numbers, so each layer's is given; pytorch#168211."""
    folder = exported("dinov2", "dynamo")
    found = source(folder).load(quiet).taps
    numbers = [int(name.removeprefix("add_")) for name in found.tokens]
    assert numbers == sorted(numbers)
    named = source(folder, taps={4: found.tokens[0], 7: found.tokens[1]}).load(quiet)
    assert named.taps.blocks() == [(4, found.tokens[0]), (7, found.tokens[1])]
    assert named.description.tap == f"4={found.tokens[0]},7={found.tokens[1]}"
    pattern = source(folder, taps="add_{layer}", layers=tuple(numbers)).load(quiet)
    assert pattern.taps.tokens == found.tokens


@pytest.mark.parametrize("cls", [None, "last_hidden_state"])
def test_first_patch_is_never_taken_for_a_class_token(exported: Exported, cls: str | None) -> None:
    """SigLIP has none; big_vision#145."""
    loaded = source(exported("siglip", "torchscript"), cls=cls).load(quiet)
    with pytest.raises(BundleError, match=r"16 tokens for 16 patches.*--cls mean.*'pooler_output'"):
        loaded.graph()


def test_mean_needs_the_patches(exported: Exported) -> None:
    """CLIP norms its class token alone."""
    loaded = source(exported("clip", "torchscript"), cls="mean").load(quiet)
    with pytest.raises(BundleError, match=r"'pooler_output' has shape \(B, 32\): expected \(B, T, D\)"):
        loaded.graph()


def test_constant_branches_of_dinov3_are_gone(exported: Exported) -> None:
    """romav2-onnx#6."""
    folder = exported("dinov3", "torchscript")
    assert "If" in operators(onnx.load(folder / "model.onnx"))
    assert "If" not in operators(ir.to_proto(source(folder).load(quiet).graph().model))
