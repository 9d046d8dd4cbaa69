"""Colours for anomaly maps: one scale for the whole lot, so that good images look good.

The colour map is OpenCV's inferno, which is even in lightness and safe for the colour-blind.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..types import Array, FloatArray

_RAMP, _TEXT, _TEXT_ROOM = 10, 20, 90  # pixels: height of the colours, of the text, least width for text
LEGEND_HEIGHT = _RAMP + _TEXT

LEAST_SPAN = 0.05
"""Least span of the scale, in distance: smaller differences are rounding and should look even."""


@dataclass(frozen=True)
class Scale:
    """Mutual scores (distance units) that get the darkest and the brightest colour."""

    low: float
    high: float

    def unit(self, values: FloatArray) -> FloatArray:
        """Map values to this scale, clipped to 0-1."""
        unit: FloatArray = np.clip((values - self.low) / (self.high - self.low), 0, 1).astype(np.float32)
        return unit


def lot_scale(maps: FloatArray, raw_scores: Array) -> Scale:
    """Return one scale for a lot: from the median of all maps (N,Gh,Gw) to the largest raw score."""
    low, high = float(np.median(maps)), float(raw_scores.max())
    return Scale(low, max(high, low + LEAST_SPAN))


def colours(unit: FloatArray) -> Array:
    """Colour values (H,W) between 0 and 1: RGB (H,W,3) uint8."""
    levels = np.round(unit * 255).astype(np.uint8)
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(bgr[..., ::-1])


def overlay(image: Array, unit: FloatArray) -> Array:
    """Lay a heatmap over the gray image: RGB (H,W,3) uint8 from image (H,W,3) and values (H,W).

    What is ordinary for the lot stays plain gray; colour comes in as the score rises.
    """
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    weight = np.sqrt(unit)[..., None] * np.float32(0.6)
    return np.round(gray * (1 - weight) + colours(unit) * weight).astype(np.uint8)


def legend(width: int, scale: Scale) -> Array:
    """Draw the colour scale with its two values, RGB (h,width,3) uint8; without text if it is narrow."""
    ramp = colours(np.tile(np.linspace(0, 1, width, dtype=np.float32), (_RAMP, 1)))
    if width < _TEXT_ROOM:
        return ramp
    strip = Image.new("RGB", (width, LEGEND_HEIGHT), "white")
    strip.paste(Image.fromarray(ramp), (0, 0))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(_TEXT - 8)
    draw.text((4, _RAMP + 2), f"{scale.low:.2f}", "black", font)
    draw.text((width - 4, _RAMP + 2), f"{scale.high:.2f}", "black", font, anchor="ra")
    if width > 2 * _TEXT_ROOM:
        draw.text((width / 2, _RAMP + 2), "mutual score", "black", font, anchor="ma")
    return np.asarray(strip)
