"""Find the tensors of an ONNX ViT that MuSc needs: tokens after chosen blocks, and the CLS embedding.

Names follow Hugging Face's modules when a model is exported with torch.onnx: the residual stream
after block l is ``[prefix/]encoder/layer.{l}/Add_1_output_0`` (or ``layers.{l}``), the final norm
``[prefix/]layernorm/...``.  Other names are given as a pattern with ``{layer}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from ..runtime.errors import BundleError

HUGGING_FACE_BLOCK = re.compile(r"^(?P<prefix>.*?)encoder/layers?\.(?P<layer>\d+)/Add_1_output_0$")
HUGGING_FACE_CLS = re.compile(
    r"^(?P<prefix>.*?)(layernorm|post_layernorm)/(Add_1|LayerNormalization)_output_0$"
)


@dataclass(frozen=True)
class Taps:
    """Tensor names: ``tokens`` (B,T,C) after each of ``layers``, ``cls`` (B,T,D) or (B,D)."""

    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    cls: str

    def blocks(self) -> list[tuple[int, str]]:
        """Return (layer, tensor name) of each tapped block."""
        return list(zip(self.layers, self.tokens, strict=True))


def find_taps(
    model: onnx.ModelProto, layers: Sequence[int], pattern: str | None = None, cls: str | None = None
) -> Taps:
    """Find the names of the tapped tensors in ``model``.

    Parameters
    ----------
    layers : 0-based block indices.
    pattern : tensor name with ``{layer}`` for the index; None for Hugging Face's names.
    cls : tensor name of the CLS embedding; None for Hugging Face's final norm.

    Raises
    ------
    BundleError
        If a tensor is not in the graph; the message names those that are.
    """
    names = [name for node in model.graph.node for name in node.output]
    if not layers or len(set(layers)) != len(layers) or min(layers) < 0:
        raise BundleError(f"layers {tuple(layers)}: expected different block indices of 0 or more.")
    ordered = tuple(sorted(layers))
    return Taps(ordered, _block_names(names, ordered, pattern), _cls_name(names, cls))


def _block_names(names: list[str], layers: tuple[int, ...], pattern: str | None) -> tuple[str, ...]:
    if pattern is None:
        matches = [m for name in names if (m := HUGGING_FACE_BLOCK.match(name))]
        blocks = {int(m["layer"]): m[0] for m in matches}
        if len(blocks) < len(matches):
            first = [m[0] for m in matches if m["layer"] == matches[0]["layer"]]
            raise BundleError(f"the graph has several encoders: {first}. Name the blocks of one with --taps.")
        if not blocks:
            raise BundleError(
                "no tensor is named like a Hugging Face block (.../encoder/layer.0/Add_1_output_0). "
                "Give the names with --taps 'PATTERN', {layer} standing for the block's index."
            )
    else:
        if "{layer}" not in pattern:
            raise BundleError(f"the pattern {pattern!r} has no {{layer}} in it.")
        known = set(names)
        blocks = {layer: pattern.replace("{layer}", str(layer)) for layer in range(1000)}
        blocks = {layer: name for layer, name in blocks.items() if name in known}
        if not blocks:
            example = next((name for name in names if pattern.split("{layer}")[-1] in name), names[-1])
            raise BundleError(f"no tensor matches {pattern!r}; the graph has for example {example!r}.")
    missing = [layer for layer in layers if layer not in blocks]
    if missing:
        raise BundleError(f"the graph has no block {missing}; it has blocks {min(blocks)} to {max(blocks)}.")
    return tuple(blocks[layer] for layer in layers)


def _cls_name(names: list[str], cls: str | None) -> str:
    if cls is not None:
        if cls not in names:
            raise BundleError(f"the graph has no tensor {cls!r} for the CLS embedding.")
        return cls
    found = [name for name in names if HUGGING_FACE_CLS.match(name)]
    if len(found) != 1:
        raise BundleError(
            f"expected one final norm (.../layernorm/Add_1_output_0), found {found or 'none'}. "
            "Name the tensor of the CLS embedding with --cls."
        )
    return found[0]
