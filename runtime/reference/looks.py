"""What an image looks like beside those of a reference: its product, its brightness, its sharpness."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import Array, FloatArray, PreprocessSpec
from .choose import angular, nearest_others

CLS_MARGIN = 1.25
"""How many times as far as the loneliest image of the reference a CLS embedding may lie."""
RANGE_MARGIN = 0.25
"""How far brightness and sharpness may lie outside of the reference's range, as a share of its width."""

THUMBNAIL = 64
"""Pixels of a thumbnail's side."""

_LUMA = np.array([0.299, 0.587, 0.114])
_WORDS = (("darker", "brighter"), ("blurrier", "sharper"))
_LEAST_WIDTH = 0.02
"""Least width of a range: one hundredth of white, so that synthetic lots of equal images have one."""


def look(pixels: FloatArray, spec: PreprocessSpec) -> Array:
    """Return brightness, 0 to 1, and sharpness (2,) of a graph input (3,H,W).

    Sharpness is the standard deviation of the Laplacian: how much a pixel differs from its neighbors.
    """
    rgb = pixels * np.reshape(spec.std, (3, 1, 1)) + np.reshape(spec.mean, (3, 1, 1))
    gray = np.tensordot(_LUMA, rgb, 1)
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    return np.array([gray.mean(), laplacian.std() if laplacian.size else 0.0])


def thumbnail(pixels: FloatArray, spec: PreprocessSpec) -> Array:
    """Return a graph input (3,H,W) as a picture (THUMBNAIL,THUMBNAIL,3) of 8 bits, to be looked at."""
    small = cv2.resize(pixels.transpose(1, 2, 0), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    rgb = 255 * (small * np.array(spec.std) + np.array(spec.mean))
    picture: Array = rgb.round().clip(0, 255).astype(np.uint8)
    return picture


class Familiar:
    """Tells images that are unlike those of a reference, by its CLS embeddings (N,D) and looks (N,2)."""

    def __init__(self, cls: FloatArray, looks: Array) -> None:
        self._cls = cls
        self._limit = float(nearest_others(cls).max())
        self._low, self._high = looks.min(axis=0), looks.max(axis=0)

    def away(self, cls: FloatArray) -> float:
        """Return the distance, 0 to 2, of a CLS embedding (D,) from the nearest of the reference's."""
        return float(angular((self._cls @ cls).max()))

    def warnings(self, away: float, looks: Array) -> tuple[str, ...]:
        """Return what is unusual about an image that is ``away`` from the reference, and its looks (2,)."""
        found = []
        if away > CLS_MARGIN * self._limit:
            found.append(
                f"it may be of another product, out of place or damaged: its CLS embedding is {away:.3f} "
                f"from the nearest of the reference, whose own are at most {self._limit:.3f} from each other"
            )
        spare = RANGE_MARGIN * np.maximum(self._high - self._low, _LEAST_WIDTH)
        for k, (less, more) in enumerate(_WORDS):
            if looks[k] < self._low[k] - spare[k]:
                found.append(self._unusual(less, k, looks))
            elif looks[k] > self._high[k] + spare[k]:
                found.append(self._unusual(more, k, looks))
        return tuple(found)

    def _unusual(self, word: str, k: int, looks: Array) -> str:
        what = ("brightness", "sharpness")[k]
        return (
            f"it is {word} than all images of the reference: {what} {looks[k]:.3f}, theirs "
            f"{self._low[k]:.3f} to {self._high[k]:.3f}"
        )
