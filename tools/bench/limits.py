"""Count the least work of each stage of a lot: FLOP of its products, bytes it must read and write.

    extract    the products of the ViT's graph, counted from the graph
    resize     pixels of the model's size as float32, written
    aggregate  the tokens, read once
    covariance half of a product of 2*P*C*C FLOP for each image, layer and degree
    residual   the tokens, read once
    load       the tokens, read once and written once as float32
    compare    a product of 2*P*P*C FLOP for each pair of images and layer
    select     the cosines, read once
    map        the maps, read once

On a GPU the scorer makes a product for each degree, reads the tokens and writes rows of halves for each, and
reads the distances; what is not there yet is copied to it:

    upload     the tokens

Stages that no such count bounds (decoding, opening files, writing) have no limit here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...runtime.types import Bundle


class Limits(Protocol):
    """What a machine can do at most.  Twins: Peaks (peak.py), GpuPeaks (gpu_peak.py)."""

    @property
    def flops(self) -> float:
        """FLOP/s of products."""
        ...

    @property
    def bandwidth(self) -> float:
        """Bytes/s, read plus written."""
        ...


class Rates(NamedTuple):
    """Limits that are just given."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Least:
    """The least work of a stage in a whole lot: FLOP, and bytes that are moved."""

    flop: float = 0.0
    moved: float = 0.0

    def seconds(self, peaks: Limits) -> float:
        """Return the time at the peaks, with all threads."""
        return max(self.flop / peaks.flops, self.moved / peaks.bandwidth)


def least_work(
    bundle: Bundle, images: int, pairs: int, judge_count: int, degree_count: int, itemsize: int
) -> dict[str, Least]:
    """Return the least work of each stage of a lot, by stage."""
    m = bundle.manifest
    layers, patches = len(m.layers), m.patches
    tokens = layers * images * patches * m.token_width
    least = {
        "resize": Least(moved=images * 3.0 * math.prod(m.preprocess.size) * 4),
        "aggregate": Least(moved=float(tokens) * itemsize),
        "covariance": Least(float(tokens) * m.token_width * degree_count, float(tokens) * itemsize),
        "residual": Least(moved=float(tokens) * itemsize),
        "load": Least(moved=float(tokens) * (itemsize + 4)),
        "compare": Least(flop=layers * pairs * 2.0 * patches**2 * m.token_width),
        "select": Least(moved=float(layers) * images * judge_count * degree_count * patches * 4),
        "map": Least(moved=images * patches * 4.0),
    }
    flop = graph_flop(bundle.model_path)
    return {**least, "extract": Least(flop=images * flop)} if flop else least


def least_gpu_work(
    bundle: Bundle, images: int, pairs: int, judge_count: int, degree_count: int, itemsize: int
) -> dict[str, Least]:
    """Return the least work of each stage of a lot that is scored on a GPU, by stage."""
    m = bundle.manifest
    tokens = float(len(m.layers) * images * m.patches * m.token_width)
    each = float(len(m.layers) * degree_count)
    return {
        "upload": Least(moved=tokens * itemsize),
        "aggregate": Least(moved=tokens * degree_count * (itemsize + 2)),
        "compare": Least(flop=each * pairs * 2.0 * m.patches**2 * m.token_width),
        "select": Least(moved=each * images * judge_count * m.patches * 4),
    }


def graph_flop(model: Path) -> float | None:
    """Count the FLOP of a graph's products and convolutions for one image; None if a shape is unknown."""
    import onnx

    graph = onnx.load(model, load_external_data=False)
    for node in graph.graph.input:
        node.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    shapes: dict[str, tuple[int, ...]] = {w.name: tuple(w.dims) for w in graph.graph.initializer}
    for value in [*graph.graph.input, *graph.graph.value_info, *graph.graph.output]:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    found = [_node_flop(node, shapes) for node in graph.graph.node]
    return None if any(flop is None for flop in found) else sum(flop for flop in found if flop)


def _node_flop(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> float | None:
    """Count the FLOP of one node, 0 if it is not a product; None if a shape is unknown."""
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return 0.0
    first, second, out = (shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
    if not (first and second and out and all((*first, *second, *out))):
        return None
    if node.op_type == "Conv":
        summed = math.prod(second[1:])
    else:
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        summed = first[0] if transposed else first[-1]
    return 2.0 * math.prod(out) * summed
