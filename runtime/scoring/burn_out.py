"""Burn-out: begin a patch's interval behind the few images in which the same defect is found again.

To MSM a defect that several images have is normal: each patch of it has its like in the others, nearer than
any good patch.  Among the sorted distances s_1 <= s_2 <= ... <= s_K to K judges that shows as a gap: first
those to the images with the same defect, then, apart from them, those to all others.  Where the largest gap

    (s_(k+1) - s_k) / median of all s_k,    k from ceil(K / 10) to the interval's end

is above GAP, the interval keeps its length and begins with s_(k+1); elsewhere it is the paper's.  How much it
mends, and that it changes little else, was measured on real images (docs/copies.md).

Where a window and the images' regions leave a patch no neighbor in some image (nearest.py), its distance
there says nothing of a defect.  K is then the number of judges in which it has one, and an interval begins
later only if as many distances to these as it averages are left.
"""

from __future__ import annotations

import numpy as np

from ..._numbers import ceil_div
from ..errors import LotError
from ..types import Array, FloatArray

GAP = 0.1
"""Gap between two neighboring distances, as a share of their median, above which the interval begins."""

FIRST = 10
"""A gap is looked for behind the first K / FIRST distances: a single copy, or chance, moves no interval."""

WIDEST = 0.5
"""Largest end of the interval: one that begins there must still find as many distances behind it."""


def first_gap(judges: int) -> int:
    """Return the least number k of distances, of ``judges``, behind which a gap is looked for."""
    return ceil_div(judges, FIRST)


def check_burn_out(interval: tuple[float, float]) -> None:
    """Raise LotError if burn-out has no meaning with ``interval``: it decides itself where it begins."""
    lo, hi = interval
    if lo > 0 or not 1 / FIRST < hi <= WIDEST:
        raise LotError(
            f"burn-out with the interval {lo:g}, {hi:g}: it says where the interval begins, so expected one "
            f"from 0 to more than {1 / FIRST:g} and at most {WIDEST:g}, such as 0, 0.3."
        )


def burn_out_mean(distances: FloatArray, stop: int, found: Array | None = None) -> tuple[FloatArray, Array]:
    """Return the mean (P,) of ``stop`` of the sorted ``distances`` (K,P), and where it began later.

    Both are arrays (P,), of float32 and bool.  ``found`` (P,) is how many of the distances are to a neighbor;
    None for all.  The others must be the largest.
    """
    columns = np.ascontiguousarray(distances.T)
    columns.sort(axis=1)
    start = _starts(columns, stop) if found is None else _starts_among(columns, found, stop)
    chosen = np.take_along_axis(columns, start[:, None] + np.arange(stop), axis=1)
    mean: FloatArray = chosen.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean, start > 0


def _starts_among(columns: FloatArray, found: Array, stop: int) -> Array:
    """Return what ``_starts`` does, each row by its own number ``found`` (P,) of distances that count."""
    start = np.zeros(len(columns), np.int64)
    for count in np.unique(found[found > stop]):
        rows = np.flatnonzero(found == count)
        start[rows] = _starts(columns[rows, :count], stop)
    return start


def _starts(columns: FloatArray, stop: int) -> Array:
    """Return the index (P,) of the first distance to average, of each row of sorted distances (P,K)."""
    patches, judges = columns.shape
    first, last = first_gap(judges), min(stop, judges - stop)
    if first > last:  # so few judges that there is nothing between the two
        return np.zeros(patches, np.int64)
    gaps = columns[:, first : last + 1].astype(np.float64) - columns[:, first - 1 : last]
    middle = columns[:, [(judges - 1) // 2, judges // 2]].mean(axis=1, dtype=np.float64)
    largest = gaps.argmax(axis=1)  # the first of equal ones
    moved = gaps[np.arange(patches), largest] > GAP * middle
    return np.where(moved, first + largest, 0)
