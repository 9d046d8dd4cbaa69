"""The region of interest of a lot's images: a rectangle, one mask for all, or a folder with a mask for each.

All are in pixels of the image as it is shown, its orientation applied.  In a mask what is light is inside.
The ViT's input is the whole image at another size, so that a patch is a Gh-th of the height and a Gw-th of
the width; it belongs to the region if at least half of its pixels do.  If images are cut, so are their tiles.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..._files import shown
from ..errors import LotError
from ..tiling import Box
from ..types import Array, LotImage
from .kinds import IMAGE_SUFFIXES
from .reading import MAX_PIXELS, Header, ImageError, read_image

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class PatchRegion:
    """A region that is told by patches (Gh,Gw) bool, of images of ``size`` (width, height) in pixels."""

    size: tuple[int, int]
    patches: Array


RoiOption = Rectangle | str | os.PathLike[str] | PatchRegion
"""x, y, width and height in pixels; or a mask's file, or a folder of masks."""

HALF = 0.5
"""Share of a patch's pixels that must be inside."""
_FEW = 32  # a mask with no value above it numbers its kinds of region
_NAMED = 3


@dataclass(frozen=True)
class Roi:
    """A region for the images of a lot; ``masks`` has the mask's file of each image by name, if not one."""

    rectangle: Rectangle | None = None
    mask: Path | None = None
    masks: dict[str, Path] | None = None
    region: PatchRegion | None = None

    @classmethod
    def of(cls, given: RoiOption, images: Sequence[LotImage]) -> Roi:
        """Return the region that was asked for; in a folder the mask of each image is found by its name.

        Raises
        ------
        LotError
            If it is no rectangle, there is no such file, or an image has no mask.
        """
        if isinstance(given, tuple):
            return cls(rectangle=_checked(given))
        if isinstance(given, PatchRegion):
            return cls(region=given)
        path = Path(given)
        if path.is_dir():
            return cls(masks=_find_masks(path, images))
        if not path.is_file():
            raise LotError(
                f"the region {shown(str(path))} does not exist: expected x,y,w,h in pixels, the file of a "
                "mask, or a folder of masks that are named as the images."
            )
        return cls(mask=path)

    def source(self, image: LotImage) -> Path | None:
        """The file of an image's mask, or None for a rectangle."""
        return self.masks[image.name] if self.masks else self.mask

    def coverage(
        self, image: LotImage, header: Header, grid: tuple[int, int], mask: Array | None, box: Box
    ) -> Array:
        """Return the share (Gh,Gw) of each patch's pixels that is inside, of the part of the image in a box.

        ``mask`` (H,W) is what ``read_mask`` returned for the image's ``source``, None for a rectangle.  A
        ``region`` by patches is that of the whole image, whatever the box.

        Raises
        ------
        LotError
            If the region does not fit the image.
        """
        if self.rectangle:
            return _rectangle_coverage(self.rectangle, image, header, grid, box)
        if self.region:
            require_size(self.region, shown(image.name), (header.width, header.height))
            return self.region.patches.astype(np.float64)
        if mask is None:
            raise TypeError("the mask was not read")
        if mask.shape != (header.height, header.width):
            whose = "one mask serves images of one size alone; for others give a folder with a mask for each"
            raise LotError(
                f"the mask {self.source(image)} has {mask.shape[1]} x {mask.shape[0]} pixels and the image "
                f"{shown(image.name)} {header.width} x {header.height} as it is shown: expected the same size"
                f"{'' if self.masks else '; ' + whose}."
            )
        return coverage(mask, grid, box)


def roi_text(given: RoiOption | None) -> str | None:
    """What was given as the region, in words: x,y,w,h or the path; None for nothing."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, PatchRegion):
        return "that of a reference"
    return ",".join(map(str, given)) if isinstance(given, tuple) else str(Path(given).resolve())


def require_size(region: PatchRegion, name: str, size: tuple[int, int]) -> None:
    """Raise LotError unless an image has the size (width, height) that a region is for."""
    if region.size != size:
        raise LotError(
            f"the image {name} has {size[0]} x {size[1]} pixels as it is shown, and the reference's region "
            f"(--roi) is for images of {region.size[0]} x {region.size[1]}."
        )


def coverage(mask: Array, grid: tuple[int, int], box: Box | None = None) -> Array:
    """Return the share (Gh,Gw) of each patch's pixels that are True in ``mask`` (H,W).

    The grid lies over a ``box`` of the mask; over all of it by default.
    """
    left, top, right, bottom = box or (0, 0, mask.shape[1], mask.shape[0])
    x, y = math.floor(left), math.floor(top)
    mask = mask[y : math.ceil(bottom), x : math.ceil(right)]
    rows = overlaps(mask.shape[0], grid[0], (top - y, bottom - y))
    columns = overlaps(mask.shape[1], grid[1], (left - x, right - x))
    share = np.empty(grid)
    for number, weights in enumerate(rows):  # one row of patches at a time: a mask may be large
        used = np.flatnonzero(weights)
        part = mask[used[0] : used[-1] + 1]
        share[number] = weights[used] @ part.astype(np.float32) @ columns.T
    return share


def half_or_more(shares: Array, least: float = HALF) -> Array:
    """Return where a patch takes part, of ``least`` or more; sums of shares may miss it by their rounding."""
    return shares >= least - 1e-6


def overlaps(pixels: int, cells: int, span: tuple[float, float] | None = None) -> Array:
    """Return which share (cells,pixels) of each cell along a side lies in each pixel; rows add up to 1.

    The cells lie from one end of the ``span`` to the other; along the whole side by default.
    """
    start, stop = span or (0, pixels)
    edges = np.linspace(start, stop, cells + 1)
    first, last = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pixels)
    inside = np.minimum(pixel + 1, last) - np.maximum(pixel, first)
    weights: Array = np.maximum(inside, 0) / (last - first)
    return weights


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Array:
    """Read a mask (H,W) as it is shown: True where it is light.

    Light is above half of white, and above 0 in masks whose values are all small numbers.

    Raises
    ------
    LotError
        If the file cannot be read.
    """
    try:
        values = np.asarray(read_image(path, max_pixels=max_pixels).convert("L"))
    except ImageError as error:
        raise LotError(f"the mask {path} cannot be read: {error}.") from error
    light: Array = values > (0 if values.max() < _FEW else 127)
    return light


def _checked(rectangle: Rectangle) -> Rectangle:
    x, y, width, height = rectangle
    if min(x, y) < 0 or min(width, height) < 1:
        raise LotError(
            f"the region {x},{y},{width},{height}: expected x,y,w,h in pixels, w and h of 1 or more."
        )
    return rectangle


def _rectangle_coverage(
    rectangle: Rectangle, image: LotImage, header: Header, grid: tuple[int, int], box: Box
) -> Array:
    x, y, width, height = rectangle
    if x + width > header.width or y + height > header.height:
        raise LotError(
            f"the region {x},{y},{width},{height} ends at {x + width}, {y + height} and the image "
            f"{shown(image.name)} has {header.width} x {header.height} pixels as it is shown: expected a "
            "rectangle within every image."
        )
    left, top, right, bottom = box
    return np.outer(
        _shares_between(y, y + height, np.linspace(top, bottom, grid[0] + 1)),
        _shares_between(x, x + width, np.linspace(left, right, grid[1] + 1)),
    )


def _shares_between(start: int, stop: int, edges: Array) -> Array:
    """Return the share of each cell, between its ``edges``, that lies from ``start`` to ``stop``."""
    within = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    shares: Array = np.maximum(within, 0) / np.diff(edges)
    return shares


def _find_masks(folder: Path, images: Sequence[LotImage]) -> dict[str, Path]:
    """Find the mask of each image in ``folder``: under its name, with any ending of an image."""
    found: dict[str, Path] = {}
    missing = []
    for image in images:
        path = _mask_of(folder, image.name)
        if path is None:
            missing.append(image.name)
        else:
            found[image.name] = path
    if missing:
        first = ", ".join(map(shown, missing[:_NAMED]))
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        expected = folder / PurePosixPath(missing[0]).with_suffix(".png")
        raise LotError(
            f"{folder} has no mask for {first}{more}: expected one for every image, such as "
            f"{shown(str(expected))}. Leave these images out by --exclude, or add their masks."
        )
    return found


def _mask_of(folder: Path, name: str) -> Path | None:
    path = folder / name
    if path.is_file():
        return path
    candidates = (path.with_suffix(suffix) for suffix in (".png", *sorted(IMAGE_SUFFIXES)))
    return next((each for each in candidates if each.is_file()), None)
