"""The interval average of MSM (paper, equation 5): the mean of a range of the sorted distances."""

from __future__ import annotations

import numpy as np

from ..._numbers import counted, too_few
from ..errors import LotError
from ..types import FloatArray

MIN_IMAGES = 5
NARROWEST = 1e-4
"""Least width of the interval: a narrower one would need lots of more than 10,000 images."""


def interval_bounds(images: int, interval: tuple[float, float]) -> tuple[int, int]:
    """Return the index range [start, stop) of the sorted distances that is averaged.

    Raises
    ------
    LotError
        If the range is empty, as it is below 5 images with the default interval.
    """
    lo, hi = _checked(interval)
    start, stop = int(lo * (images - 1)), int(hi * (images - 1))
    if stop <= start:
        raise LotError(
            f"{too_few(images, 'image')}: the interval {lo}, {hi} of the distances to "
            f"{counted(max(images - 1, 0), 'other image')} is empty. Score at least "
            f"{smallest_lot(interval, images)} images together."
        )
    return start, stop


def smallest_lot(interval: tuple[float, float], above: int = 0) -> int:
    """Return the least number of images, at least ``above`` and MIN_IMAGES, whose interval is not empty."""
    lo, hi = _checked(interval)
    size = max(MIN_IMAGES, above)
    while int(lo * (size - 1)) >= int(hi * (size - 1)):
        size += 1
    return size


def _checked(interval: tuple[float, float]) -> tuple[float, float]:
    """Return the interval; LotError if it is not usable."""
    lo, hi = interval
    if not (lo >= 0 and lo + NARROWEST <= hi <= 1):
        raise LotError(
            f"interval {lo}, {hi} is not usable: expected 0 <= lo < hi <= 1, at least {NARROWEST} apart."
        )
    return lo, hi


def interval_mean(distances: FloatArray, start: int, stop: int) -> FloatArray:
    """Return the mean (P,) of ``distances`` (K,P), sorted along K, from index ``start`` to ``stop``."""
    # Partition at both ends of the range instead of sorting all K: what lies outside needs no order.
    columns = np.ascontiguousarray(distances.T)
    columns.partition((start, stop - 1) if start else stop - 1, axis=1)
    chosen = np.sort(columns[:, start:stop], axis=1)  # one order of summation, whatever the lot's order
    mean: FloatArray = chosen.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean
