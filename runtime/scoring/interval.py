"""The interval average of MSM (paper, equation 5): which of the sorted distances count, and their mean."""

from __future__ import annotations

import numpy as np

from ..errors import LotError
from ..types import FloatArray

MIN_IMAGES = 5
NARROWEST = 1e-4
"""Least width of the interval: a narrower one would need lots of more than 10,000 images."""


def interval_bounds(images: int, interval: tuple[float, float]) -> tuple[int, int]:
    """Index range [start, stop) of the sorted distances to the other images that is averaged.

    Raises
    ------
    LotError
        If the range is empty, as it is below 5 images with the default interval.
    """
    lo, hi = _checked(interval)
    start, stop = int(lo * (images - 1)), int(hi * (images - 1))
    if stop <= start:
        raise LotError(
            f"{images} images are too few: the interval {lo}, {hi} of the distances to {max(images - 1, 0)} "
            f"other images is empty. Score at least {smallest_lot(interval, images)} images together."
        )
    return start, stop


def smallest_lot(interval: tuple[float, float], above: int = 0) -> int:
    """Least number of images, from ``above`` on and never below MIN_IMAGES, that fills ``interval``."""
    lo, hi = _checked(interval)
    size = max(MIN_IMAGES, above)
    while int(lo * (size - 1)) >= int(hi * (size - 1)):
        size += 1
    return size


def _checked(interval: tuple[float, float]) -> tuple[float, float]:
    """The interval itself, or LotError if it is not one."""
    lo, hi = interval
    if not (lo >= 0 and lo + NARROWEST <= hi <= 1):
        raise LotError(
            f"interval {lo}, {hi} is not usable: expected 0 <= lo < hi <= 1, at least {NARROWEST} apart."
        )
    return lo, hi


def interval_mean(distances: FloatArray, start: int, stop: int) -> FloatArray:
    """Mean of the sorted ``distances`` (K,P) from index ``start`` to ``stop`` along the first axis."""
    columns = np.ascontiguousarray(distances.T)
    columns.partition((start, stop - 1) if start else stop - 1, axis=1)
    chosen = np.sort(columns[:, start:stop], axis=1)  # one order of summation, whatever the lot's order
    mean: FloatArray = chosen.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean
