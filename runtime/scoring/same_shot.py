"""Tell a shot that was saved again or changed a little from another photograph of the same thing.

Two photographs of one thing differ by the noise of the sensor wherever one looks, and by how the thing lay
and the light fell.  What is left of one image after the other was moved onto it and brought to its brightness
is that noise, for every two photographs about the same; for a shot that was saved again it is far less.
Detail finer than two pixels is blurred before: moved by a part of a pixel it would differ by more than noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np

from ..types import Array, FloatArray

SHARE = 0.45
"""Largest share, of what usually is left, that may be left of two savings of one shot."""

_BLUR = 1.2  # pixels: the deviation of a Gaussian

_STEPS = 3  # of Gauss and Newton's
_MOST = 1.0  # pixels that one step moves
_LEAST_GAIN = 0.2  # by which slopes are divided
_EDGE = 6  # pixels at the edges that are not compared: an image that is moved has nothing there
_KEPT = 16  # pictures in memory


class SameShot:
    """Compares pictures of a lot; ``picture(row)`` is one (H,W), or None if it cannot be read any more."""

    def __init__(self, picture: Callable[[int], FloatArray | None]) -> None:
        # Not a method of this object, which would then refer to itself, and keep the lot's tokens in memory
        # until Python next looks for what nobody needs.
        self._picture = lru_cache(_KEPT)(lambda row: _blurred(picture(row)))
        self._usual: dict[int, float] = {}

    def __call__(self, a: int, b: int, others: tuple[Sequence[int], Sequence[int]]) -> bool:
        """Return whether two rows show one shot; ``others`` are rows near to each that show other ones.

        True if a picture cannot be read.
        """
        left = self.left(a, b)
        if left is None:
            return True
        return left <= SHARE * min(self._usually(row, near) for row, near in zip((a, b), others, strict=True))

    def _usually(self, row: int, others: Sequence[int]) -> float:
        """What usually is left of a row: the median over others."""
        if row not in self._usual:
            found = [left for other in others if (left := self.left(other, row)) is not None]
            self._usual[row] = float(np.median(found)) if found else float("inf")
        return self._usual[row]

    def left(self, a: int, b: int) -> float | None:
        """What is left of row ``b`` after ``a`` was moved onto it; None if one cannot be read."""
        first, second = self._picture(a), self._picture(b)
        return None if first is None or second is None else remainder(first, second)


def _blurred(picture: FloatArray | None) -> FloatArray | None:
    return None if picture is None else np.asarray(cv2.GaussianBlur(picture, (0, 0), _BLUR))


def remainder(image: FloatArray, other: FloatArray) -> float:
    """Mean square of what is left of ``other`` (H,W) after ``image`` (H,W) was moved and brightened to fit.

    Fits other = a image(x + dx, y + dy) + b by a few steps of Gauss and Newton's, in least squares; shifts of
    up to three pixels are found (Lucas and Kanade, 1981, with gain and offset).
    """
    wanted = _inner(other).astype(np.float64)
    terms = np.empty((len(wanted), 4))
    shift, best = np.zeros(2), np.inf
    for _ in range(_STEPS):
        moved = _moved(image, shift)
        for k, column in enumerate((moved, np.ones_like(moved), _slope(moved, 0), _slope(moved, 1))):
            terms[:, k] = _inner(column)
        # Even pictures have no slope: the least of all solutions will do.
        solution = np.linalg.lstsq(terms.T @ terms, terms.T @ wanted, rcond=None)[0]
        best = min(best, float(np.mean((wanted - terms @ solution) ** 2)))
        shift += np.clip(solution[2:] / max(solution[0], _LEAST_GAIN), -_MOST, _MOST)
    return best


def _inner(image: FloatArray) -> Array:
    """All pixels but those at the edges, as one row."""
    edge = min(_EDGE, (min(image.shape) - 1) // 2)
    return np.ravel(image[edge : image.shape[0] - edge, edge : image.shape[1] - edge])


def _moved(image: FloatArray, shift: Array) -> FloatArray:
    """The image at (x + dx, y + dy)."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = image.shape[1], image.shape[0]
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=how, borderMode=cv2.BORDER_REFLECT))


def _slope(image: FloatArray, axis: int) -> FloatArray:
    """Slope along x (0) or y (1), of a pixel."""
    return np.asarray(cv2.Sobel(image, cv2.CV_32F, 1 - axis, axis, ksize=3, scale=1 / 8))
