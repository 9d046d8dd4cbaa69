"""Colours for anomaly maps: one scale for the whole lot, so that good images look good.

The colour map is OpenCV's inferno, which is even in lightness and safe for the colour-blind.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .types import Array, FloatArray


@dataclass(frozen=True)
class Scale:
    """Mutual scores (distance units) that get the darkest and the brightest colour."""

    low: float
    high: float

    def unit(self, values: FloatArray) -> FloatArray:
        """Values on this scale, clipped to 0-1."""
        unit: FloatArray = np.clip((values - self.low) / (self.high - self.low), 0, 1).astype(np.float32)
        return unit


def lot_scale(maps: FloatArray, raw_scores: Array) -> Scale:
    """One scale for a lot: from the median of all maps (N,Gh,Gw) to the largest raw score."""
    low, high = float(np.median(maps)), float(raw_scores.max())
    return Scale(low, high if high > low else low + 1e-6)


def colours(unit: FloatArray) -> Array:
    """RGB (H,W,3) uint8 of values (H,W) between 0 and 1."""
    levels = np.round(unit * 255).astype(np.uint8)
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(bgr[..., ::-1])


def overlay(image: Array, unit: FloatArray) -> Array:
    """Heatmap over the image in gray: RGB (H,W,3) uint8 from image (H,W,3) and values (H,W).

    What is ordinary for the lot stays the plain gray image; colour comes in with the score.
    """
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    weight = np.sqrt(unit)[..., None] * np.float32(0.75)
    return np.round(gray * (1 - weight) + colours(unit) * weight).astype(np.uint8)
