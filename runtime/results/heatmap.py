"""Colours for anomaly maps: one scale for the whole lot, so that good images look good.

The colour map is OpenCV's inferno, which is even in lightness and safe for the colour-blind.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..types import Array, FloatArray
from .lettering import draw_text, shorten, text_width

_SMALL, _SHARE = 12, 60  # height of letters in pixels: the least, and the part of the width that they get
_TEXT_ROOM = 90  # pixels: least width for text

_WHAT = "mutual score"
LEAST_SPAN = 0.05
"""Least span of the scale, in distance: smaller differences are rounding and should look even."""


DIMMED = 0.35
"""Brightness of what is outside of a region of interest."""


@dataclass(frozen=True)
class Scale:
    """Mutual scores (distance units) that get the darkest and the brightest colour."""

    low: float
    high: float

    def unit(self, values: FloatArray) -> FloatArray:
        """Map values to this scale, clipped to 0-1; what is outside of a region, NaN, stays so."""
        unit: FloatArray = np.clip((values - self.low) / (self.high - self.low), 0, 1).astype(np.float32)
        return unit


def lot_scale(maps: FloatArray, raw_scores: Array) -> Scale:
    """Return one scale for a lot: from the median of all maps (N,Gh,Gw) to the largest raw score."""
    scored = maps[~np.isnan(maps)]
    low, high = float(np.median(scored)), float(np.nanmax(raw_scores))
    return Scale(low, max(high, low + LEAST_SPAN))


def colours(unit: FloatArray) -> Array:
    """Colour values (H,W) between 0 and 1: RGB (H,W,3) uint8."""
    levels = np.round(unit * 255).astype(np.uint8)
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(bgr[..., ::-1])


def overlay(image: Array, unit: FloatArray) -> Array:
    """Lay a heatmap over the gray image: RGB (H,W,3) uint8 from image (H,W,3) and values (H,W).

    What is ordinary for the lot stays plain gray; colour comes in as the score rises.  What is outside of a
    region, NaN, is dimmed.
    """
    outside = np.isnan(unit)
    if outside.any():
        drawn = overlay(image, np.where(outside, np.float32(0), unit))
        drawn[outside] = np.round(drawn[outside] * DIMMED)
        return drawn
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    weight = np.sqrt(unit)[..., None] * np.float32(0.6)
    return np.round(gray * (1 - weight) + colours(unit) * weight).astype(np.uint8)


def letter_size(width: int) -> int:
    """Height of letters, in pixels, that can be read when a picture of this width is shown as a whole."""
    return max(_SMALL, width // _SHARE)


def legend_height(width: int) -> int:
    """Height of the legend of an overlay of this width, in pixels."""
    size = letter_size(width)
    return _ramp_height(size) + (2 * _line_height(size) if width >= _TEXT_ROOM else 0)


def _ramp_height(size: int) -> int:
    return size * 5 // 6


def _line_height(size: int) -> int:
    return size * 4 // 3


def legend(width: int, scale: Scale, caption: str = "") -> Array:
    """Draw the colour scale with its two values and, below, the caption: RGB (h,width,3) uint8.

    Letters grow with the width; a narrow picture has none.
    """
    size, height = letter_size(width), legend_height(width)
    strip = Image.new("RGB", (width, height), "white")
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (_ramp_height(size), 1))
    strip.paste(Image.fromarray(colours(ramp)), (0, 0))
    if width >= _TEXT_ROOM:
        draw, gap, top = ImageDraw.Draw(strip), size // 3, _ramp_height(size)
        high = f"{scale.high:.2f}"
        draw_text(draw, (gap, top), f"{scale.low:.2f}", "black", size)
        draw_text(draw, (width - gap - text_width(high, size), top), high, "black", size)
        if width > 15 * size:
            draw_text(draw, ((width - text_width(_WHAT, size)) / 2, top), _WHAT, "black", size)
        draw_text(
            draw, (gap, top + _line_height(size)), shorten(caption, width - 2 * gap, size), "black", size
        )
    return np.asarray(strip)
