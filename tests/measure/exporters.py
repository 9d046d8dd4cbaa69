"""Print a table of docs/export.md: which exports musc-export onnx understands, and how to call it.

    python tests/measure/exporters.py FOLDER

Exports every model of support/exported_vits.py by both of torch's exporters into FOLDER, where a file that is
there already is taken as it is, and compares the bundle's graph with torch's own numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
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

EXPORTERS = {"torchscript": "`dynamo=False`", "dynamo": "default"}


def main(folder: Path) -> None:
    """Print a row for each model and exporter, and what each option of ``--cls`` gives."""
    print("| model | torch.onnx.export | tensor of the last block | `--cls` | embedding | tokens differ by |")
    print("|---|---|---|---|---|---|")
    for name, vit in VITS.items():
        for exporter, words in EXPORTERS.items():
            place = folder / f"{name} {exporter}".replace(" ", "_")
            try:
                _make(name, exporter, place)
            except Exception as error:  # the exporters raise anything
                print(
                    f"| {name} | {words} | not exported by torch: {type(error).__name__} | | | |", flush=True
                )
                continue
            for cls in (None, *vit.outputs, "mean"):
                row = _row(place, cls)
                if row:
                    print(f"| {name} | {words} | {row} |", flush=True)


def _make(name: str, exporter: str, place: Path) -> None:
    if not (place / "model.onnx").exists():
        place.mkdir(parents=True, exist_ok=True)
        export(name, exporter, place)


def _row(place: Path, cls: str | None) -> str | None:
    """Return the cells of a row; None where ``cls`` is no embedding, which is said on standard error."""
    spec = PreprocessSpec((SIDE, SIDE), "squash", "bicubic", MEAN, STD)
    option = "default" if cls is None else f"`{cls}`"
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
    return f"`{loaded.taps.tokens[-1]}` | {option} | {kind} `{loaded.taps.cls}` | {difference:.1e}"


def _difference(numbers: Mapping[str, Array], found: Mapping[str, Array], layer: int) -> float:
    """Return the largest difference of a layer's tokens, without their mean, from torch's."""
    tokens = numbers[f"block_{layer}"][:, -PATCHES:]
    return float(np.abs(tokens - tokens.mean(axis=(1, 2), keepdims=True) - found[f"tokens_{layer}"]).max())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
