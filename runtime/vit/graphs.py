"""The graphs of a bundle, one with attention in pieces and one with it as nodes, and who runs which.

Both give the same numbers and share their weights.  The pieces run everywhere.  The nodes, ONNX's Attention
of opset 23, need a runtime that knows them, and are taken where they were measured to be faster.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import BundleError
from ..types import Bundle

PIECES, NODES = "attention in pieces", "attention as one node"

LEAST_ONNXRUNTIME = (1, 23)
"""ONNX Runtime's first version that loads opset 23; 1.22.1 refuses it, 1.23.2 runs it."""

_LEAST_ON_CUDA = (1, 31)
"""The version whose CUDA kernel was measured; 1.24 has one without fusion, before that it ran on the CPU."""


def graphs_of(bundle: Bundle) -> tuple[str, ...]:
    """Return the graphs that a bundle has; one of schema 1 as version 0.1.0 wrote it has pieces alone."""
    return (PIECES, NODES) if bundle.attention_path else (PIECES,)


def graph_path(bundle: Bundle, graph: str) -> Path:
    """Return the file of one of a bundle's graphs; BundleError if the bundle has no such graph."""
    path = {PIECES: bundle.model_path, NODES: bundle.attention_path}.get(graph)
    if path is None:
        raise BundleError(f"{bundle.root} has no graph with {graph}, only {', '.join(graphs_of(bundle))}.")
    return path


def can_run_nodes(version: str) -> bool:
    """Return whether this version of ONNX Runtime runs attention as nodes on a CPU."""
    return _parts(version) >= LEAST_ONNXRUNTIME


def choose_graph(bundle: Bundle, device: str, version: str) -> str:
    """Return the faster graph of a bundle for ONNX Runtime on "cpu" or "cuda", of those that it can run.

    On a CPU these are the pieces: nodes took 1.04 times the processor's time for DINOv2-S at 224 pixels and
    0.98 for a random ViT-B/16 (``tests/measure/attention.py``, docs/export.md), which is no gain, and older
    versions do not run them.  On CUDA the nodes were three times as fast in half precision (docs/gpu.md); in
    single precision nobody has measured them.
    """
    faster = device == "cuda" and bundle.manifest.precision == "fp16" and _parts(version) >= _LEAST_ON_CUDA
    return NODES if faster and bundle.attention_path else PIECES


def graph_notes(bundle: Bundle, device: str, version: str) -> tuple[str, ...]:
    """Return what to say to who could have the faster graph, but for the version of ONNX Runtime."""
    if device != "cuda" or not bundle.attention_path or bundle.manifest.precision != "fp16":
        return ()
    if choose_graph(bundle, device, version) == NODES:
        return ()
    least = ".".join(map(str, _LEAST_ON_CUDA))
    return (f"the ViT runs with {PIECES}: ONNX Runtime {version} is older than {least}, which fuses it",)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
