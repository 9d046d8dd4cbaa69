"""LNAMD (paper, section 3.2): describe each patch by the mean of its r x r neighborhood.

The authors layer-normalise an image's tokens, unfold r x r windows with zero padding and average
each.  Three facts make that short.  The features are compared by angle only, so of the layer
normalisation just the subtraction of the image's scalar mean remains.  The average over a zero-padded
window divides by r*r everywhere, so it is a sum times a constant.  And the sum is linear, so the product
of pooled features is the pooled product of the tokens: the pooled features themselves are never made,
only their lengths are needed here (the products are pooled in gram_numpy.py and gram_numba.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import LotError
from ..settings import MAX_DEGREE
from ..types import Array, FloatArray


def centre(tokens: Array) -> FloatArray:
    """Subtract from each image's tokens (n,P,C) the image's scalar mean; idempotent.

    The mean of float32 values is taken and subtracted in float64, so that a constant image becomes
    exactly zero and a large mean costs no precision.
    """
    values = np.asarray(tokens, np.float32)
    mean = values.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
    centred = np.empty_like(values)
    np.subtract(values, mean, out=centred, casting="same_kind")
    return centred


def rescale(centred: FloatArray) -> FloatArray:
    """Multiply an image's tokens (P,C) in place by the power of two that brings the largest to about 1.

    It is exact and changes no angle, and products of any tokens stay within the range of float32.
    """
    # Two calls of max instead of abs().max(): no copy of the tokens is made.
    largest = max(float(centred.max(initial=0)), -float(centred.min(initial=0)))
    if largest > 0:
        centred *= np.float32(2.0 ** -np.clip(np.frexp(largest)[1], -126, 126))
    return centred


def band(size: int, degree: int) -> FloatArray:
    """Return the matrix (size,size) of zeros and ones that sums ``degree`` neighbors within the ends."""
    index = np.arange(size)
    near: FloatArray = (np.abs(index[:, None] - index) <= degree // 2).astype(np.float32)
    return near


def pooled_lengths(tokens: FloatArray, grid: tuple[int, int], degrees: Sequence[int]) -> FloatArray:
    """Euclidean lengths (R,P) of an image's tokens (P,C), summed over each degree's neighborhood."""
    lengths = np.empty((len(degrees), len(tokens)), np.float32)
    for t, degree in enumerate(degrees):
        pooled = pool(tokens, grid, degree)
        np.sqrt(np.einsum("pc,pc->p", pooled, pooled), out=lengths[t])
    return lengths


def inverse_lengths(lengths: FloatArray) -> FloatArray:
    """Return 1 / length of each token; 0 where it has no content."""
    return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def pool(tokens: FloatArray, grid: tuple[int, int], degree: int) -> FloatArray:
    """Sum an image's tokens (P,C) over each patch's neighborhood; degree 1 gives the tokens themselves."""
    if degree == 1:
        return tokens
    height, width = grid
    patches, channels = tokens.shape
    # The window is a square, so the sum over it is one over rows and then one over columns.
    rows = band(height, degree) @ tokens.reshape(height, width * channels)
    pooled: FloatArray = np.matmul(band(width, degree), rows.reshape(height, width, channels))
    return pooled.reshape(patches, channels)


def check_degrees(degrees: Sequence[int]) -> None:
    """Raise LotError unless there are degrees and each is a positive odd number."""
    if not degrees:
        raise LotError("no aggregation degree given: expected odd numbers such as 1,3,5.")
    for degree in degrees:
        if degree % 2 == 0 or not 1 <= degree <= MAX_DEGREE:
            raise LotError(
                f"degree {degree} is not usable: expected an odd number from 1 to {MAX_DEGREE}, such as 3."
            )
