"""Whether the residual stream of a bundle's graph with attention as nodes may be in half precision.

Norms whose stream is in float32 are so too, with a cast before every product: on a GPU, where most of a ViT
waits for memory, that takes longer than the products gain by half precision.  But a stream grows over all
blocks, and float16 ends at 65504.  So it is measured on a few images how far it goes and what rounding at
every node changes.  Both forms of the graph are written; the bundle gets the first that does well there and
in the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..runtime.types import FloatArray
from ..runtime.vit.bundle import ATTENTION_MODEL, MODEL
from .gelu import with_whole_gelu
from .half import FLOAT, HALF, is_residual, to_half
from .heads import with_heads_last
from .messages import Say
from .norms import norms_in_pieces, with_whole_norms
from .onnx_file import run_file, save_sharing
from .parity import min_cosine
from .rounding import with_roundings

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


def measured_forms(
    files: list[NodesFile], pixels: FloatArray, source: FloatArray, least: float, say: Say
) -> list[NodesFile]:
    """Return those of ``files`` whose stream has room and keeps the source's tokens.

    Parameters
    ----------
    files : what ``write_nodes`` gave.
    pixels : a few images (n,3,H,W).
    source : their tokens (S,n,P,C) by the source model.
    least : the lowest cosine that a token may have.

    Raises
    ------
    BundleError
        If the graph does not run.
    """
    if len(files) < 2:
        return files
    largest, tokens = run_rounded(files[0].path, pixels)
    if largest is None:
        say("  its residual stream is in float32: no sum of it was found that could be measured")
        return files[1:]
    cosine = min_cosine(source, tokens)
    good = largest * MARGIN <= _LARGEST and cosine >= least
    say(
        f"  the residual stream in float16: {largest:.3g} at most, lowest cosine of a token {cosine:.6f} on "
        f"{len(pixels)} probe images, rounded at every node" + ("" if good else ": it stays in float32")
    )
    return files if good else files[1:]


def run_rounded(path: Path, pixels: FloatArray) -> tuple[float | None, FloatArray]:
    """Run a graph in half precision as a GPU would, which rounds what every node gives.

    Returns the largest magnitude in its residual stream, None if no sums of it are found, and the tokens
    (S,n,P,C).
    """
    half = ir.load(path)
    sums = {node.outputs[0].name for node in half.graph if is_residual(node)}
    model = with_roundings(half)
    tokens = [value for value in model.graph.outputs if len(value.shape or ()) == 3]
    model.graph.outputs.clear()
    model.graph.outputs.extend(tokens)
    for number, node in enumerate([node for node in model.graph if node.outputs[0].name in sums]):
        magnitude = ir.Node("", "Abs", [node.outputs[0]], name=f"magnitude_{number}")
        keep = ir.AttrInt64("keepdims", 0)
        largest = ir.Node("", "ReduceMax", magnitude.outputs, [keep], name=f"largest_{number}")
        output = largest.outputs[0]
        output.name, output.type, output.shape = f"largest_{number}", ir.TensorType(FLOAT), ir.Shape(())
        model.graph.extend([magnitude, largest])
        model.graph.outputs.append(output)
    beside = path.with_name("rounded.onnx")  # where the weights are
    ir.save(model, beside)
    try:
        (found,) = run_file(beside, [pixels])
    finally:
        beside.unlink()
    values, peaks = found[: len(tokens)], found[len(tokens) :]
    return float(np.max(peaks)) if peaks else None, np.stack(values).astype(np.float32)
