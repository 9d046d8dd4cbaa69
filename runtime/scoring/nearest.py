"""Which patches of another image may be the nearest: all, or only those of a region and within a window.

A patch that is excluded by a region of interest neither has a score nor is anybody's neighbor.  With a window
W only patches of another image whose rows and columns differ by at most W are compared.  A patch that finds
none in an image is there at the largest distance of unit vectors, 2: it is last among its sorted distances.
(One without content, which is no unit vector, is there at the root of 3; on a GPU at 2 as well.)

Pooling is not touched: the mean over a patch's neighborhood (LNAMD) has all tokens that are there, excluded
ones too, as for the grid's own patches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..errors import LotError
from ..types import Array, FloatArray
from .aggregate import band

OPPOSITE = np.float32(-1)
"""The cosine of a patch without any that may be its nearest."""
_ALONE = np.sqrt(np.array([4, 3], np.float32))
"""The distances that are made of it (image_pairs.py), of a patch with content and of one without."""


def check_window(window: int | None) -> None:
    """Raise LotError unless there is no window, or one of 0 or more patches."""
    if window is not None and window < 0:
        raise LotError(f"a window of {window} patches: expected 0 or more, such as 2.")


def count_neighbors(distances: FloatArray) -> Array:
    """Count (Q,) in how many of K images each patch has a neighbor, of its ``distances`` (K,Q) to them."""
    counts: Array = np.count_nonzero(~np.isin(distances, _ALONE), axis=0)
    return counts


@lru_cache(4)
def far_apart(grid: tuple[int, int], window: int) -> Array:
    """Return where (P,P) two patches of a grid are more than ``window`` rows or columns apart."""
    rows, columns = (band(side, 2 * window + 1) > 0 for side in grid)
    near = rows[:, None, :, None] & columns[None, :, None, :]
    return ~near.reshape(grid[0] * grid[1], -1)


def hollow(inverse: FloatArray, inside: Array | None, grid: tuple[int, int], window: int | None) -> Array:
    """Return where (N,R,1), or with a window (N,R,P), patches without content may be the nearest.

    ``inverse`` (N,R,P) are inverse lengths, 0 without content; ``inside`` (N,P) are the patches that are not
    excluded.
    """
    empty: Array = inverse == 0
    if inside is not None:
        empty &= inside[:, None]
    if window is None or not empty.any():
        return np.asarray(empty.any(axis=2, keepdims=True))
    rows, columns = (band(side, 2 * window + 1) for side in grid)
    counts = rows @ empty.reshape(*empty.shape[:2], *grid).astype(np.float32) @ columns
    near: Array = counts.reshape(empty.shape) > 0
    return near


def mark_excluded(maps: FloatArray, inside: Array | None) -> FloatArray:
    """Set the patches of ``maps`` (N,P) that are not ``inside`` (N,P) to NaN, in place; returns the maps."""
    if inside is not None:
        maps[~inside] = np.nan
    return maps
