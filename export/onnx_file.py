"""Read, write, prune and run ONNX models."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx.inliner
import onnx_ir as ir

from .._json import shortly
from ..runtime.errors import BundleError, OutputError
from ..runtime.types import Array
from ..runtime.vit.bundle import is_inside
from ..runtime.vit.external_data import external_files
from ..runtime.vit.onnx_backend import import_onnxruntime
from .dependence import inputs_of

EXTERNAL_DATA_BYTES = 1 << 30
"""From this size on the weights go to a file beside the graph; a protobuf file ends at 2 GB."""

_MARGIN_BYTES = 50_000_000  # nodes, probe and manifest


def load_source(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data; BundleError if it is not one.

    The file may be a stranger's: external data must be in its own folder.
    """
    if not path.is_file():
        raise BundleError(f"there is no ONNX file {path}.")
    _check_external_files(path)
    try:
        model = onnx.load(path, format="protobuf")  # whatever onnx would take the suffix for
    except Exception as error:  # protobuf's errors have no common base with onnx's
        raise BundleError(f"{path} is not an ONNX model that can be read: {error}") from error
    if not model.graph.node:
        raise BundleError(f"{path} is not an ONNX model: it has no nodes.")
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _check_external_files(path: Path) -> None:
    """Raise BundleError if an ONNX file takes weights from outside its folder."""
    try:
        for name in external_files(path):
            if not is_inside(path.parent, name):
                raise BundleError(
                    f"{path} takes weights from {shortly(name, 1000)}, expected a file in {path.parent}. "
                    "If they are to come from there, copy them beside the graph and let it name the copy."
                )
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX model that can be read: {error}") from error


def save_model(model: onnx.ModelProto, path: Path) -> list[str]:
    """Write the graph, with its weights in a second file if they are large; returns the files' names."""
    if model.ByteSize() < EXTERNAL_DATA_BYTES:
        onnx.save(model, path)
        return [path.name]
    data = path.name + ".data"
    moved = onnx.ModelProto()
    moved.CopyFrom(model)  # saving empties the weights of what is saved
    onnx.save(moved, path, save_as_external_data=True, location=data, all_tensors_to_one_file=True)
    return [path.name, data]


def save_graph(model: ir.Model, path: Path, apart: bool = False) -> list[str]:
    """Write a graph, weight by weight, with large ones in a second file; returns the files' names.

    ``apart`` puts weights into the second file however few they are, for another graph to share them.

    Raises
    ------
    OutputError
        If the disk has too little room; nothing is written then.
    """
    values = [value.const_value for value in model.graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in values if tensor is not None)
    free = shutil.disk_usage(path.parent).free
    if free < size + _MARGIN_BYTES:
        raise OutputError(
            f"{path.parent.parent} has {free / 1e9:.2f} GB free; the bundle needs "
            f"{(size + _MARGIN_BYTES) / 1e9:.2f} GB. Make room, or choose another folder with -o."
        )
    if size < EXTERNAL_DATA_BYTES and not apart:
        ir.save(model, path)
        return [path.name]
    data = path.name + ".data"
    ir.save(model, path, external_data=data)
    return [path.name, data]


def save_sharing(model: ir.Model, path: Path, first: Path) -> list[str]:
    """Write a graph that takes the weights it has in common with ``first`` from where that keeps them."""
    stored = ir.load(first).graph.initializers
    for name, weight in model.graph.initializers.items():
        same, own = stored[name].const_value if name in stored else None, weight.const_value
        if isinstance(same, ir.ExternalTensor) and own is not None:
            if (same.dtype, same.shape) != (own.dtype, own.shape):
                raise BundleError(f"two graphs have different weights of the name {name!r}.")
            weight.const_value = same
    ir.save(model, path)
    return [path.name]


def run_model(model: onnx.ModelProto, batches: Iterable[Array]) -> list[list[Array]]:
    """Run a graph in ONNX Runtime without optimisations; returns its outputs for each batch (B,3,H,W).

    Raises
    ------
    BundleError
        If the graph does not accept a batch.
    """
    # Through a file, since a session takes from memory only what fits into a protobuf message, 2 GB.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        save_model(model, path)
        return run_file(path, batches)


def run_file(path: Path, batches: Iterable[Array]) -> list[list[Array]]:
    """Run the graph in a file as ``run_model`` does."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Threads that wait would spin, which takes longer than most of the graphs that are run here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    shape: tuple[int, ...] = ()
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        results = []
        for pixels in batches:
            shape = pixels.shape
            results.append(session.run(None, {session.get_inputs()[0].name: pixels}))
    except Exception as error:  # ONNX Runtime has no common base for its errors
        raise BundleError(
            f"the graph does not run on images of shape {shape}: {error}. "
            "The source must accept this image size and any batch."
        ) from error
    return results


def remove_unused(graph: onnx.GraphProto) -> None:
    """Drop the nodes and initializers that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(inputs_of(node))
            kept.append(node)
    kept.reverse()
    weights = [weight for weight in graph.initializer if weight.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
