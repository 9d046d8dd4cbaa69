"""Say what of an image's pixels reaches the ViT: how much images are reduced, what a patch shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Any

from ..types import Manifest
from .reading import Header

MUCH, DRASTIC = 4.0, 8.0
"""Pixels of an image, along one side, that become one: from where on there is a note, and a warning."""


@dataclass(frozen=True)
class Resolution:
    """How the images of a lot come to the ViT.

    Attributes
    ----------
    width, height : int
        Pixels of an image, as it is displayed: the median over the lot.
    sizes : int
        How many different sizes the lot has.
    model : (H, W)
        Pixels of the ViT's input.
    patch : int
        Side of a patch, in pixels of the ViT's input.
    """

    width: int
    height: int
    sizes: int
    model: tuple[int, int]
    patch: int

    @classmethod
    def of(cls, headers: Sequence[Header], manifest: Manifest) -> Resolution:
        """Return that of a lot with these ``headers``, at least one, for a bundle."""
        sizes = [(header.width, header.height) for header in headers]
        width, height = (round(median(side)) for side in zip(*sizes, strict=True))
        return cls(width, height, len(set(sizes)), manifest.preprocess.size, manifest.patch_size)

    @property
    def factors(self) -> tuple[float, float]:
        """Pixels of an image that become one, across and down."""
        return self.width / self.model[1], self.height / self.model[0]

    @property
    def patch_size(self) -> tuple[float, float]:
        """Width and height of a patch in pixels of an image."""
        across, down = self.factors
        return self.patch * across, self.patch * down

    @property
    def text(self) -> str:
        """A line on it: "2592 x 1944 reduced 11.6 x 8.7; one patch is 162 x 122 pixels of your image"."""
        median_of = f" (the median of {self.sizes} sizes)" if self.sizes > 1 else ""
        patch = f"one patch is {_pixels(self.patch_size)} of your image"
        return f"{self.width} x {self.height}{median_of} {_change(*self.factors)}; {patch}"

    @property
    def caution(self) -> str:
        """What is lost where images are reduced much, and what to do; else empty."""
        if self.reduction < MUCH:
            return ""
        finer = self.at(self.finer)
        return (
            f"images of {self.width} x {self.height} pixels are reduced to {self.model[1]} x "
            f"{self.model[0]}: a patch covers {_pixels(self.patch_size)}, and what is much smaller may not "
            "show in the scores. Where such defects matter, make a bundle with a larger --image-size "
            f"(musc-export), of which a patch at {_side(self.finer)} is {_pixels(finer.patch_size)}, or cut "
            "the images by --tiles"
        )

    @property
    def reduction(self) -> float:
        """Pixels of an image, along one side, that become one: the mean of both sides."""
        across, down = self.factors
        return sqrt(across * down)

    @property
    def drastic(self) -> bool:
        """Whether the caution is a warning."""
        return self.reduction >= DRASTIC

    @property
    def finer(self) -> tuple[int, int]:
        """The ViT's input (H,W) with about twice as many patches along a side."""
        return 2 * self.model[0], 2 * self.model[1]

    def at(self, model: tuple[int, int]) -> Resolution:
        """Return it for another size (H,W) of the ViT's input."""
        return Resolution(self.width, self.height, self.sizes, model, self.patch)

    def facts(self) -> dict[str, Any]:
        """Return it for JSON."""
        across, down = self.factors
        return {
            "image": [self.width, self.height],
            "sizes": self.sizes,
            "model": [self.model[1], self.model[0]],
            "reduced": [round(across, 3), round(down, 3)],
            "patch": [round(side, 1) for side in self.patch_size],
            "text": self.text,
        }


def _change(across: float, down: float) -> str:
    """How a size changes along both sides."""
    if across >= 1 and down >= 1:
        return f"reduced {_times(across)} x {_times(down)}"
    if across < 1 and down < 1:
        return f"enlarged {_times(1 / across)} x {_times(1 / down)}"
    return f"brought to {_times(1 / across)} x its width and {_times(1 / down)} x its height"


def _times(factor: float) -> str:
    return f"{factor:.1f}".removesuffix(".0") if factor >= 1 else f"{factor:.2g}"


def _pixels(size: tuple[float, float]) -> str:
    width, height = (f"{side:.0f}" if side >= 10 else f"{side:.2g}" for side in size)
    return f"{width} x {height} pixels"


def _side(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
