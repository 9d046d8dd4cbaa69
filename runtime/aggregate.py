"""LNAMD (paper, section 3.2): describe each patch by the mean of its r x r neighborhood.

The authors layer-normalise an image's tokens, unfold r x r windows with zero padding and average
each.  Two facts make that short.  The normalised features are compared by angle only, so of the
layer normalisation just the subtraction of the image's scalar mean remains.  And the average over
a zero-padded window divides by r*r everywhere, so it is a sum of shifted grids.
"""

from __future__ import annotations

import numpy as np

from .errors import LotError
from .types import Array, FloatArray

MAX_DEGREE = 999


def describe(tokens: Array, grid: tuple[int, int], degree: int) -> FloatArray:
    """Unit features of patches, ready for comparison: centred, aggregated, normalised.

    Parameters
    ----------
    tokens : ndarray of shape (n, P, C)
    grid : (Gh, Gw) with Gh * Gw = P
    degree : odd side r of the neighborhood

    Returns
    -------
    ndarray of shape (n, P, C), float32; a patch without any content (constant image) is zero.
    """
    return normalise(aggregate(centre(tokens), grid, degree))


def centre(tokens: Array) -> FloatArray:
    """Subtract from each image's tokens (n,P,C) the image's scalar mean; idempotent.

    The mean of float32 values is taken in float64, so that a constant image becomes exactly zero.
    """
    values = np.asarray(tokens, np.float32)
    mean = values.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
    centred: FloatArray = np.subtract(values, mean).astype(np.float32)
    return centred


def aggregate(tokens: FloatArray, grid: tuple[int, int], degree: int) -> FloatArray:
    """Mean over the ``degree`` x ``degree`` neighborhood of each patch, zeros counted outside of the grid.

    Raises
    ------
    LotError
        If ``degree`` is not a positive odd number.
    """
    check_degree(degree)
    if degree == 1:
        return tokens
    n, patches, width = tokens.shape
    rows = tokens.reshape(n, *grid, width)
    for axis in (1, 2):
        rows = _window_sum(rows, axis, degree // 2)
    return (rows / np.float32(degree * degree)).reshape(n, patches, width)


def normalise(tokens: FloatArray) -> FloatArray:
    """Divide tokens (n,P,C) by their Euclidean norms (step 6); zero tokens stay zero."""
    norm = np.sqrt(np.einsum("npc,npc->np", tokens, tokens))[..., None]
    unit: FloatArray = np.divide(tokens, norm, out=np.zeros_like(tokens), where=norm > 0)
    return unit


def check_degree(degree: int) -> None:
    """Raise LotError unless ``degree`` is a positive odd number."""
    if degree % 2 == 0 or not 1 <= degree <= MAX_DEGREE:
        raise LotError(
            f"degree {degree} is not usable: expected an odd number from 1 to {MAX_DEGREE}, such as 3."
        )


def _window_sum(grid: FloatArray, axis: int, reach: int) -> FloatArray:
    """Sum over the 2*reach+1 neighbors along ``axis``, nothing added outside of the array."""
    moved = np.moveaxis(grid, axis, 0)
    total = grid.copy()
    out = np.moveaxis(total, axis, 0)
    for shift in range(1, min(reach, len(moved) - 1) + 1):
        out[shift:] += moved[:-shift]
        out[:-shift] += moved[shift:]
    return total
