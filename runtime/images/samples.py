"""Pixels as numbers of any scale, and how they become the 8-bit RGB that is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..._numbers import row_blocks
from ..types import Array
from .image_bytes import ImageError

_AT_ONCE = 1 << 19  # values that are scaled at once


@dataclass(frozen=True)
class Samples:
    """An image as it is stored, unsigned.

    Attributes
    ----------
    colour : (H,W), (H,W,1) gray or (H,W,3) red, green, blue.
    alpha : (H,W), in which ``opaque`` is opaque; or None.
    white : the value that is white, where the file says it; else None, and the lot's depth decides.
    premultiplied : whether ``colour`` is multiplied by alpha.
    """

    colour: Array
    alpha: Array | None = None
    white: int | None = None
    opaque: int = 65535
    premultiplied: bool = False


def deepest(samples: Samples) -> int:
    """Return the largest value; 0 where the file itself says what white is."""
    return 0 if samples.white is not None else int(samples.colour.max())


def to_rgb(samples: Samples, bit_depth: int) -> Image.Image:
    """Scale to 8-bit RGB, with transparent pixels over white.

    Alpha that is 0 everywhere is no alpha: programs leave it so, and a picture that shows nothing is none.

    Raises
    ------
    ImageError
        If a value is above ``bit_depth`` bits, where the file does not say what white is.
    """
    white = samples.white or 2**bit_depth - 1
    if samples.white is None and samples.colour.max() > white:
        raise ImageError(
            "unsupported",
            f"holds the value {samples.colour.max()}, above {bit_depth} bits; use --bit-depth auto or 16",
        )
    height, width = samples.colour.shape[:2]
    levels = np.empty((height, width, 3), np.uint8)
    alpha = samples.alpha if samples.alpha is not None and samples.alpha.any() else None
    for rows in blocks_of(samples.colour):
        levels[rows] = _scaled(samples, rows, white, None if alpha is None else alpha[rows])
    return Image.fromarray(levels)


def blocks_of(pixels: Array) -> Iterator[slice]:
    """Cut an image into blocks of rows, so that what is made of them takes little memory."""
    return row_blocks(len(pixels), pixels[0].size, _AT_ONCE)


def _scaled(samples: Samples, rows: slice, white: int, alpha: Array | None) -> Array:
    colour = samples.colour[rows]
    if colour.ndim == 2:
        colour = colour[..., None]
    if white == 255 and alpha is None:
        return colour
    values = colour.astype(np.float32) * np.float32(255 / white)
    if alpha is not None:
        part = alpha[..., None].astype(np.float32) / np.float32(samples.opaque)
        values = (values if samples.premultiplied else values * part) + 255 * (1 - part)
    return np.asarray(np.round(np.minimum(values, 255)).astype(np.uint8))
