"""Print a table of docs/export.md: which exports musc-export onnx understands, and how to call it.

    python tests/measure/exporters.py FOLDER

Exports every model of support/exported_vits.py by both of torch's exporters into FOLDER, where a file that is
there already is taken as it is, and compares the bundle's graph with torch's own numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from musc_edge.export.adopt import OnnxSource
from musc_edge.runtime.errors import BundleError
from musc_edge.runtime.types import PreprocessSpec
from support.exported_vits import PATCHES, SIDE, VITS, export
from support.sources import MEAN, STD, Array, quiet, run

EXPORTERS = {"torchscript": "older", "dynamo": "default"}
TITLES = {
    "clip": "transformers `CLIPVisionModel`",
    "clip projected": "`CLIPVisionModelWithProjection`",
    "vit": "`ViTModel`",
    "dinov2": "`Dinov2Model`",
    "dinov2 with registers": "`Dinov2WithRegistersModel`",
    "dinov3": "`DINOv3ViTModel`",
    "siglip": "`SiglipVisionModel`",
    "timm": "timm `VisionTransformer`",
    "timm with registers": "the same with registers",
    "timm siglip": "the same without a class token",
    "torchvision": "torchvision `VisionTransformer`",
}
LIBRARIES = ("torch", "transformers", "timm", "torchvision", "onnx")


@dataclass(frozen=True)
class Adopted:
    """What an option of ``--cls`` gives; tokens of all layers are off by up to ``difference``."""

    last: str
    embedding: str
    difference: float


def main(folder: Path) -> None:
    """Print a row for each model and exporter."""
    versions = ", ".join(f"{name} {metadata.version(name).partition('+')[0]}" for name in LIBRARIES)
    print(f"By `python tests/measure/exporters.py FOLDER`, with {versions}:\n")
    print("| ViT | exporter | last block | embedding by default | `--cls` takes | tokens differ by |")
    print("|---|---|---|---|---|---|")
    for name in VITS:
        for exporter, words in EXPORTERS.items():
            place = folder / f"{name} {exporter}".replace(" ", "_")
            print(f"| {TITLES[name]} | {words} | {_cells(name, exporter, place)} |", flush=True)


def _cells(name: str, exporter: str, place: Path) -> str:
    """Return the cells of a row."""
    try:
        _make(name, exporter, place)
    except Exception as error:  # the exporters raise anything
        print(f"{place.name}: {error}", file=sys.stderr)
        return f"torch does not export it: {type(error).__name__} | | |"
    default = _adopted(place, None)
    named = {cls: found for cls in (*VITS[name].outputs, "mean") if (found := _adopted(place, cls))}
    all_of = [*filter(None, [default]), *named.values()]
    if not all_of:
        return "not found | | |"
    embedding = default.embedding if default else "refused: there is no class token"
    largest = max(found.difference for found in all_of)
    names = ", ".join(f"`{cls}`" for cls in named)
    return f"`{all_of[0].last}` | {embedding} | {names} | {largest:.0e}"


def _make(name: str, exporter: str, place: Path) -> None:
    if (place / "model.onnx").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    table = os.dup(1)
    os.dup2(2, 1)  # torch prints graphs that it cannot export, past Python's own output
    try:
        export(name, exporter, place)
    finally:
        os.dup2(table, 1)
        os.close(table)


def _adopted(place: Path, cls: str | None) -> Adopted | None:
    """Adopt the file; None where ``cls`` is no embedding, which is said on standard error."""
    spec = PreprocessSpec((SIDE, SIDE), "squash", "bicubic", MEAN, STD)
    try:
        loaded: Any = OnnxSource(place / "model.onnx", None, spec, place.name, cls=cls).load(quiet)
        graph = ir.to_proto(loaded.graph().model)
    except BundleError as error:
        print(f"{place.name} --cls {cls}: {error}", file=sys.stderr)
        return None
    numbers = np.load(place / "numbers.npz")
    found = run(graph, numbers["pixels"])
    difference = max(_difference(numbers, found, layer) for layer in loaded.taps.layers)
    kind = "mean of the patches of" if loaded.taps.mean else "CLS from"
    return Adopted(loaded.taps.tokens[-1], f"{kind} `{loaded.taps.cls}`", difference)


def _difference(numbers: Mapping[str, Array], found: Mapping[str, Array], layer: int) -> float:
    """Return the largest difference of a layer's tokens, without their mean, from torch's."""
    tokens = numbers[f"block_{layer}"][:, -PATCHES:]
    return float(np.abs(tokens - tokens.mean(axis=(1, 2), keepdims=True) - found[f"tokens_{layer}"]).max())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
