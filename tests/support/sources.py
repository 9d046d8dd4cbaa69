"""What the tests of the export share: sources to adopt, and the numbers that their bundles must have.

The expected numbers come from the source graph run as it is by ONNX Runtime; only its declared image size
is made free and the tapped tensors are made outputs.  None of the package's own code takes part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from musc_edge.export.adopt import OnnxSource
from musc_edge.export.graph import BundleGraph, cut, make_graph
from musc_edge.export.taps import find_taps
from musc_edge.runtime.types import PreprocessSpec
from support.tiny_vit import tiny_vit

Array = npt.NDArray[Any]

LAYERS = (0, 2)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLS = "/layernorm/Add_1_output_0"


def block(layer: int) -> str:
    """Name of a block's output in ``tiny_vit()``."""
    return f"/encoder/layer.{layer}/Add_1_output_0"


def pixels(batch: int, size: tuple[int, int], seed: int = 1) -> Array:
    """Images (B,3,H,W) as a graph takes them."""
    return np.random.default_rng(seed).standard_normal((batch, 3, *size)).astype(np.float32)


def run(model: onnx.ModelProto, images: Array, outputs: Sequence[str] = ()) -> dict[str, Array]:
    """Tensors of a graph by name, computed by ONNX Runtime without optimisations; all outputs by default."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    for axis, dim in enumerate(graph.graph.input[0].type.tensor_type.shape.dim):
        if axis != 1:
            dim.dim_param = f"axis{axis}"
    if outputs:
        del graph.graph.value_info[:], graph.graph.output[:]
        graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # a pool of threads that wait and spin takes more than a tiny graph
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = list(outputs) or [output.name for output in model.graph.output]
    return dict(zip(names, session.run(names, {graph.graph.input[0].name: images}), strict=True))


@dataclass(frozen=True)
class Expected:
    """What a bundle's graph must give: ``tokens`` (B,P,C) for each layer, and ``cls`` (B,D)."""

    tokens: tuple[Array, ...]
    cls: Array


def expected(
    source: onnx.ModelProto, tokens: Sequence[str], cls: str, images: Array, patches: int
) -> Expected:
    """The source's tensors ``tokens`` without CLS and registers, minus each image's mean; unit ``cls``."""
    values = run(source, images, list(dict.fromkeys([*tokens, cls])))
    kept = [values[name][:, -patches:].astype(np.float64) for name in tokens]
    first = values[cls].astype(np.float64)
    first = first[:, 0] if first.ndim == 3 else first
    return Expected(
        tuple(value - value.mean(axis=(1, 2), keepdims=True) for value in kept),
        first / np.linalg.norm(first, axis=1, keepdims=True),
    )


def built(source: onnx.ModelProto, size: tuple[int, int], layers: Sequence[int] = LAYERS) -> BundleGraph:
    """The graph of a bundle for ``source``."""
    taps = find_taps(source, layers)
    return make_graph(cut(source, taps, size), taps)


def tiny_source(
    folder: Path,
    size: tuple[int, int] = (16, 24),
    layers: tuple[int, ...] = LAYERS,
    model: onnx.ModelProto | None = None,
    taps: str | None = None,
    cls: str | None = None,
) -> OnnxSource:
    """``model`` or a tiny ViT written to ``folder``, as a source to adopt."""
    path = folder / "source.onnx"
    onnx.save(model or tiny_vit(), path)
    spec = PreprocessSpec(size, "squash", "bicubic", MEAN, STD)
    return OnnxSource(path, layers, spec, "tiny ViT", taps=taps, cls=cls)


def quiet(text: str) -> None:
    """In place of what an export says."""


def edit_manifest(bundle: Path, **changes: Any) -> None:
    """Replace fields of a bundle's manifest."""
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rehash(bundle: Path) -> None:
    """Give the manifest the hashes that the bundle's files now have."""
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    hashes = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in files}
    edit_manifest(bundle, files=hashes)


def change_weight(model: onnx.ModelProto, index: int, values: Array) -> None:
    """Put other values into the initializer at ``index``."""
    weight = model.graph.initializer[index]
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
