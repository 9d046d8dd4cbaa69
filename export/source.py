"""What every kind of source ViT offers, so that one function can make a bundle of it (make.py).

A ``Source`` is small and says which model is wanted; ``load`` gives the model itself, which is dropped as
soon as its graph is written and its numbers are known.
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
    """What the manifest says of the source; ``made_with`` holds versions, hashes and choices."""

    backbone: str
    pretrained: str
    activation: str
    tap: str
    preprocess: PreprocessSpec
    layers: tuple[int, ...]
    made_with: dict[str, str]


@dataclass(frozen=True)
class SourceGraph:
    """A bundle's graph in float32 with what the manifest has to say of it.

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

    tokens (S,n,P,C) as the model gives them, cls (n,D) likewise, and pixels (n,3,H,W), the model's input
    as the source's own transform makes it; None where the source has no transform.
    """

    tokens: FloatArray
    cls: FloatArray
    pixels: FloatArray | None


class LoadedSource(Protocol):
    """A source model in memory."""

    @property
    def description(self) -> Description:
        """What it is."""
        ...

    def graph(self) -> SourceGraph:
        """The graph of a bundle for it, in float32."""
        ...

    def features(self, files: Sequence[Path], say: Say) -> Features:
        """The numbers that it gives for image files by itself."""
        ...

    def release(self) -> None:
        """Free the weights, whoever else still refers to them: the model is of no use afterwards."""
        ...


class Source(Protocol):
    """Names a model."""

    def load(self, say: Say) -> LoadedSource:
        """Read the model; BundleError says why that cannot be done."""
        ...


def token_name(layer: int) -> str:
    """Name of a layer's output."""
    return f"tokens_{layer}"


def default_layers(blocks: int) -> tuple[int, ...]:
    """The last block of each quarter: the authors' (2,5,8,11) of 12 and (5,11,17,23) of 24."""
    return tuple(sorted({ceil_div(blocks * quarter, 4) - 1 for quarter in (1, 2, 3, 4)}))


def check_layers(layers: tuple[int, ...] | None, blocks: int) -> tuple[int, ...]:
    """The layers in order, None for the default; BundleError unless the model has each, once."""
    if layers is None:
        return default_layers(blocks)
    if not layers or len(set(layers)) != len(layers):
        raise BundleError(f"layers {layers}: expected different block indices of 0 or more.")
    missing = [layer for layer in layers if not 0 <= layer < blocks]
    if missing:
        raise BundleError(f"the model has no block {missing}; it has blocks 0 to {blocks - 1}.")
    return tuple(sorted(layers))


def default_size(patch: int) -> tuple[int, int]:
    """The multiple of the patch size that is nearest to the authors' 518 pixels, for both sides."""
    side = max(1, round(_SIDE / patch)) * patch
    return side, side


def check_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The grid of an image size; BundleError with the nearest one that works if it is no multiple."""
    if size[0] % patch or size[1] % patch or min(size) < patch:
        sides = [str(max(patch, round(pixels / patch) * patch)) for pixels in size]
        near = sides[0] if size[0] == size[1] else "x".join(sides)
        raise BundleError(
            f"image size {size[0]}x{size[1]} is no multiple of the patch size {patch}; try {near}."
        )
    return size[0] // patch, size[1] // patch
