"""Protocols of a source ViT, so that one function can make a bundle of any of them (make.py).

A ``Source`` is small and names the model; ``load`` returns the model itself, which is dropped as soon as its
graph is written and its numbers are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from .._numbers import ceil_div
from ..runtime.errors import BundleError
from ..runtime.types import FloatArray, PreprocessSpec
from .messages import Say

INPUT = "pixels"
CLS = "cls"
BATCH = "batch"
_SIDE = 518  # the authors' for their headline numbers, and DINOv2's own


@dataclass(frozen=True)
class Description:
    """The facts on a source for the manifest; ``made_with`` holds versions, hashes and choices."""

    backbone: str
    pretrained: str
    activation: str
    tap: str
    preprocess: PreprocessSpec
    layers: tuple[int, ...]
    made_with: dict[str, str]


@dataclass(frozen=True)
class SourceGraph:
    """A bundle's graph in float32, with its sizes for the manifest.

    Input ``pixels`` (B,3,H,W); outputs ``tokens_{layer}`` (B,P,C), minus each image's mean, and ``cls``
    (B,D), L2-normalised.
    """

    model: ir.Model
    patch_size: int
    grid: tuple[int, int]
    token_width: int
    cls_width: int


@dataclass(frozen=True)
class Features:
    """A source's own numbers for n image files, computed without the graph and without the runtime.

    ``tokens`` (S,n,P,C) and ``cls`` (n,D) are as the model gives them.  ``pixels`` (n,3,H,W) is the model's
    input as the source's own transform makes it; None if it has no transform.
    """

    tokens: FloatArray
    cls: FloatArray
    pixels: FloatArray | None


class LoadedSource(Protocol):
    """A source model in memory."""

    @property
    def description(self) -> Description:
        """The facts that go into the manifest."""
        ...

    def graph(self) -> SourceGraph:
        """Make the graph of its bundle, in float32."""
        ...

    def features(self, files: Sequence[Path], say: Say) -> Features:
        """Compute its own numbers for image files."""
        ...

    def release(self) -> None:
        """Free the weights even if others still refer to them; the model cannot be used afterwards."""
        ...


class Source(Protocol):
    """A source: names a model without loading it."""

    def load(self, say: Say) -> LoadedSource:
        """Load the model; BundleError if that is not possible."""
        ...


def token_name(layer: int) -> str:
    """Return the name of a layer's output."""
    return f"tokens_{layer}"


def default_layers(blocks: int) -> tuple[int, ...]:
    """Return the last block of each quarter: the authors' (2,5,8,11) of 12 and (5,11,17,23) of 24."""
    return tuple(sorted({ceil_div(blocks * quarter, 4) - 1 for quarter in (1, 2, 3, 4)}))


def check_layers(layers: tuple[int, ...] | None, blocks: int) -> tuple[int, ...]:
    """Sort the layers, None for the default; BundleError unless the model has each of them, once."""
    if layers is None:
        return default_layers(blocks)
    if not layers or len(set(layers)) != len(layers):
        raise BundleError(f"layers {layers}: expected different block indices of 0 or more.")
    missing = [layer for layer in layers if not 0 <= layer < blocks]
    if missing:
        raise BundleError(f"the model has no block {missing}; it has blocks 0 to {blocks - 1}.")
    return tuple(sorted(layers))


def default_size(patch: int) -> tuple[int, int]:
    """Return the multiple of the patch size nearest to the authors' 518 pixels, for both sides."""
    side = max(1, round(_SIDE / patch)) * patch
    return side, side


def check_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return the grid of an image size; BundleError, naming the nearest one, if it is no multiple."""
    if size[0] % patch or size[1] % patch or min(size) < patch:
        sides = [str(max(patch, round(pixels / patch) * patch)) for pixels in size]
        near = sides[0] if size[0] == size[1] else "x".join(sides)
        raise BundleError(
            f"image size {size[0]}x{size[1]} is not a multiple of the patch size {patch}; try {near}."
        )
    return size[0] // patch, size[1] // patch
