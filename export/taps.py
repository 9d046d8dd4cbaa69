"""Find the tensors of an ONNX ViT that MuSc needs: tokens after chosen blocks, and the image's embedding.

They are found by the structure of the graph (stream.py): block l is the l-th of the residual stream, and
CLS the first token of the norm behind the last.  Or they are named: blocks by a pattern with ``{layer}`` or
one by one, the embedding by its tensor.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from ..runtime.errors import BundleError
from .dependence import subgraphs
from .source import default_layers
from .stream import Stream, find_streams

MEAN = "mean"
"""Instead of a tensor for CLS: the mean of the patches."""

BlockNames = str | Mapping[int, str]
"""A tensor name with ``{layer}`` for a block's index, or the name of each block to tap."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_SHOWN = 8


@dataclass(frozen=True)
class Taps:
    """Tensor names: ``tokens`` (B,T,C) after each of ``layers``, ``cls`` (B,T,D) or (B,D).

    The image's embedding is the first token of ``cls``, or with ``mean`` the mean of its patches.
    ``outputs`` are those of the source, for messages.
    """

    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    cls: str
    mean: bool = False
    outputs: tuple[str, ...] = field(default=(), compare=False)

    def blocks(self) -> list[tuple[int, str]]:
        """Return (layer, tensor name) of each tapped block."""
        return list(zip(self.layers, self.tokens, strict=True))


def find_taps(
    model: onnx.ModelProto,
    layers: Sequence[int] | None = None,
    names: BlockNames | None = None,
    cls: str | None = None,
) -> Taps:
    """Find the names of the tapped tensors in ``model``.

    Parameters
    ----------
    layers : 0-based block indices; None for all of ``names``, or the last of each quarter of the blocks.
    names : the blocks' tensors; None to find them by the graph's structure.
    cls : tensor of the CLS embedding, or ``mean``; None for the norm behind the last block.

    Raises
    ------
    BundleError
        If a tensor is not in the graph or cannot be told; the message names those that are.
    """
    tensors = [name for node in model.graph.node for name in node.output if name]
    outputs = tuple(output.name for output in model.graph.output)
    streams = find_streams(model.graph)
    try:
        blocks = _found(streams, tensors) if names is None else _named(names, tensors)
        tapped = _layers(blocks, layers, every=isinstance(names, Mapping))
    except BundleError as error:
        if left := [f"{node.name!r} ({node.op_type})" for node in model.graph.node if any(subgraphs(node))]:
            raise BundleError(
                f"{error} There is control flow that depends on the image or the batch, which cannot be "
                f"adopted and may hide blocks: {', '.join(left[:_SHOWN])}."
            ) from error
        raise
    if cls in (None, MEAN):
        embedding = _norm(streams, outputs)
    elif cls in tensors:
        embedding = str(cls)
    else:
        raise BundleError(
            f"the graph has no tensor {cls!r} for the CLS embedding; it has for example "
            f"{_some([*outputs, *difflib.get_close_matches(str(cls), tensors)])}."
        )
    return Taps(tapped, tuple(blocks[layer] for layer in tapped), embedding, cls == MEAN, outputs)


def describe(taps: Taps, model: onnx.ModelProto) -> list[str]:
    """Return lines that say which tensors were taken, with torch's module where the file names it."""
    modules = {name: module for node in model.graph.node for name in node.output if (module := _module(node))}

    def named(tensor: str) -> str:
        return f"{tensor} (in {modules[tensor]})" if tensor in modules else tensor

    lines = [f"  layer {layer}: {named(name)}" for layer, name in taps.blocks()]
    how = "mean of the patches of" if taps.mean else "CLS from"
    return [*lines, f"  embedding: {how} {named(taps.cls)}; the source's outputs are {_some(taps.outputs)}"]


def _layers(blocks: Mapping[int, str], layers: Sequence[int] | None, every: bool) -> tuple[int, ...]:
    """Return the layers to tap, in order: by default all of those named, or the last of each quarter."""
    if layers is None:
        return (
            tuple(sorted(blocks)) if every else tuple(sorted(blocks)[k] for k in default_layers(len(blocks)))
        )
    if not layers or len(set(layers)) != len(layers) or min(layers) < 0:
        raise BundleError(f"layers {tuple(layers)}: expected different block indices of 0 or more.")
    missing = [layer for layer in layers if layer not in blocks]
    if missing:
        has = f"blocks {min(blocks)} to {max(blocks)}"
        raise BundleError(
            f"--taps names no block {missing} of --layers; it names {sorted(blocks)}."
            if every
            else f"the graph has no block {missing}; it has {has}."
        )
    return tuple(sorted(layers))


def _found(streams: Sequence[Stream], tensors: Sequence[str]) -> dict[int, str]:
    """Return the blocks of the one residual stream."""
    if len(streams) == 1:
        return dict(enumerate(streams[0].blocks))
    if streams:
        raise BundleError(
            f"the graph has several ViTs of {len(streams[0].blocks)} blocks, whose last are "
            f"{_some([stream.blocks[-1] for stream in streams])}. Name the blocks of one with --taps."
        )
    sums = [name for name in tensors if re.search(r"(?i)add", name)] or tensors
    raise BundleError(
        "no block was found: no attention adds to a residual stream. Name the blocks' tensors with --taps "
        "'PATTERN', {layer} standing for the index, or --taps 5=NAME,11=NAME. The graph has for example "
        f"{_some(sums[-_SHOWN:])}."
    )


def _named(names: BlockNames, tensors: Sequence[str]) -> dict[int, str]:
    """Return the blocks that a pattern or a mapping names."""
    if not isinstance(names, str):
        for name in names.values():
            if name not in tensors:
                near = difflib.get_close_matches(name, tensors) or tensors[-1:]
                raise BundleError(f"the graph has no tensor {name!r}; it has for example {_some(near)}.")
        return dict(names)
    before, *after = names.split("{layer}")
    if not after:
        raise BundleError(f"the pattern {names!r} has no {{layer}} in it.")
    # Wherever {layer} stands it is the same number, without zeros before it: 01 would be block 1 as well.
    pattern = re.compile(re.escape(before) + "(0|[1-9][0-9]*)" + r"\1".join(map(re.escape, after)))
    matches = [match for name in tensors if (match := pattern.fullmatch(name))]
    if not matches:
        example = next((name for name in tensors if after[-1] and after[-1] in name), tensors[-1])
        raise BundleError(f"no tensor matches {names!r}; the graph has for example {example!r}.")
    return {int(match[1]): match[0] for match in matches}


def _norm(streams: Sequence[Stream], outputs: Sequence[str]) -> str:
    """Return the norm behind the last block."""
    found = list(dict.fromkeys(norm for stream in streams for norm in stream.norms))
    if len(found) != 1:
        raise BundleError(
            f"expected one norm behind the last block, found {_some(found) if found else 'none'}. Name the "
            f"tensor of the CLS embedding with --cls; the graph's outputs are {_some(outputs)}."
        )
    return found[0]


def _module(node: onnx.NodeProto) -> str | None:
    """Return the torch module that a node was exported from, where torch's exporter says so."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return str(scopes[-2]) or None if isinstance(scopes, list) and len(scopes) > 1 else None


def _some(names: Iterable[str]) -> str:
    """List some names, for a message."""
    shown = list(dict.fromkeys(names))
    return ", ".join(map(repr, shown[:_SHOWN])) + (", ..." if len(shown) > _SHOWN else "")
