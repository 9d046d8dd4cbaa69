"""Whether the residual stream of a bundle's graph with attention as nodes may be in half precision.

Norms whose stream is in float32 are so too, with a cast before every product: on a GPU, where most of a ViT
waits for memory, that takes longer than the products gain by half precision.  But a stream grows over all
blocks, and float16 ends at 65504.  So it is measured how far it goes on a few images, and both forms of the
graph are written, of which the bundle gets the first that gives its source's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..runtime.types import FloatArray
from ..runtime.vit.bundle import ATTENTION_MODEL, MODEL
from .gelu import with_whole_gelu
from .half import FLOAT, HALF, is_residual, to_half
from .heads import with_heads_last
from .messages import Say
from .norms import norms_in_pieces, with_whole_norms
from .onnx_file import run_file, save_sharing

MARGIN = 16
"""How often the largest value that a few images have in the stream must fit into float16."""
_LARGEST = float(np.finfo(np.float16).max)
_NAMES = {HALF: "float16", FLOAT: "float32"}


@dataclass(frozen=True)
class NodesFile:
    """A graph with attention as nodes that was written beside a bundle's first one.

    ``stream`` says what its residual stream is in, empty where all is in float32.
    """

    path: Path
    stream: str = ""


def write_nodes(model: ir.Model, half_outputs: tuple[str, ...], folder: Path, say: Say) -> list[NodesFile]:
    """Write the forms of a graph in half precision, the fastest first.

    They take the weights that they have in common with the bundle's first graph from where that keeps them.
    """
    with_whole_norms(model)
    with_whole_gelu(model)
    if count := with_heads_last(model):
        say(f"  {count} attentions read Q, K and V as their products leave them")
    streams = [HALF, FLOAT]
    if norms_in_pieces(model):
        say("  its residual stream is in float32: norms are in pieces that were not understood")
        streams = [FLOAT]
    found = []
    for stream in streams:
        form = model.clone()
        to_half(form, half_outputs, stream)
        path = folder / f"{ATTENTION_MODEL}.{_NAMES[stream]}"
        save_sharing(form, path, folder / MODEL)
        found.append(NodesFile(path, _NAMES[stream]))
    return found


def with_room(files: list[NodesFile], pixels: FloatArray, say: Say) -> list[NodesFile]:
    """Return those of a bundle's graphs whose stream can hold what ``pixels`` (n,3,H,W) make of it.

    Raises
    ------
    BundleError
        If the bundle's first graph does not run.
    """
    if len(files) < 2:
        return files
    largest = largest_in_stream(files[0].path.parent, pixels)
    room = largest * MARGIN <= _LARGEST
    say(
        f"  the residual stream reaches {largest:.3g} on {len(pixels)} probe images: "
        + ("float16 holds it" if room else f"too much for float16, which ends at {_LARGEST:.0f}")
    )
    return files if room else files[1:]


def largest_in_stream(folder: Path, pixels: FloatArray) -> float:
    """Return the largest magnitude that the first graph of a bundle in fp16 has in its residual stream."""
    model = ir.load(folder / MODEL)
    sums = [node.outputs[0] for node in model.graph if is_residual(node)]
    model.graph.outputs.clear()
    for number, value in enumerate(sums):
        magnitude = ir.Node("", "Abs", [value], name=f"magnitude_{number}")
        largest = ir.Node(
            "", "ReduceMax", magnitude.outputs, [ir.AttrInt64("keepdims", 0)], name=f"largest_{number}"
        )
        output = largest.outputs[0]
        output.name, output.type, output.shape = f"largest_{number}", ir.TensorType(FLOAT), ir.Shape(())
        model.graph.extend([magnitude, largest])
        model.graph.outputs.append(output)
    RemoveUnusedNodesPass()(model)
    path = folder / "stream.onnx"
    ir.save(model, path)
    try:
        return max((float(value) for value in run_file(path, [pixels])[0]), default=0.0)
    finally:
        path.unlink()
