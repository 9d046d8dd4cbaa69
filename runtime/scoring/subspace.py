"""What is common in the patches of a lot, by PCA, and how far a patch lies outside of it.

The described patches of all images (unit vectors x, or zero without content) have a mean m and a covariance.
The leading eigenvectors of that, as few as make up a share of the variance, span what is common in the lot;
the residual of a patch is the length of the part of x - m outside of their span:

    r(x) = |W.T @ (x - m)|          W (C, C-k): the other eigenvectors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Array, FloatArray
from .aggregate import inverse_lengths, pool


def describe(
    centred: FloatArray, grid: tuple[int, int], degrees: Sequence[int]
) -> tuple[list[FloatArray], FloatArray]:
    """Describe an image's patches for each degree: unit vectors (P,C), and the lengths (R,P) they had.

    ``centred`` (P,C) are its centred tokens; a patch without content is described by zero.
    """
    found, lengths = [], np.empty((len(degrees), len(centred)), np.float32)
    for t, degree in enumerate(degrees):
        pooled = pool(centred, grid, degree)
        np.sqrt(np.einsum("pc,pc->p", pooled, pooled), out=lengths[t])
        found.append(pooled * inverse_lengths(lengths[t])[:, None])
    return found, lengths


@dataclass
class Moments:
    """Of described patches, for R degrees: their number, sums (R,C) and sums of products (R,C,C), float64."""

    count: int
    sums: Array
    products: Array

    @classmethod
    def none(cls, degree_count: int, width: int) -> Moments:
        """Return the moments of no patch."""
        return cls(0, np.zeros((degree_count, width)), np.zeros((degree_count, width, width)))

    @classmethod
    def of(cls, described: Array) -> Moments:
        """Return the moments of ``described`` (R,n,C), float64, by one product for each degree."""
        # A matrix with its own transpose: BLAS makes half of it only.
        products = np.stack([patches.T @ patches for patches in described])
        return cls(described.shape[1], described.sum(axis=1), products)

    def add(self, other: Moments) -> None:
        """Add those of other patches."""
        self.count += other.count
        self.sums += other.sums
        self.products += other.products


@dataclass(frozen=True)
class Subspace:
    """What is common in a lot, for one degree: ``mean`` (C,), and the directions ``outside`` (C, C-k)."""

    mean: FloatArray
    outside: FloatArray

    def residuals(self, described: FloatArray) -> FloatArray:
        """Return how far (P,) an image's described patches (P,C) lie outside."""
        # By the directions outside: the length of x - m less that inside would cancel to rounding errors.
        rest = (described - self.mean) @ self.outside
        lengths: FloatArray = np.sqrt(np.einsum("pc,pc->p", rest, rest))
        return lengths


def subspaces(moments: Moments, share: float) -> list[Subspace]:
    """Find for each degree what is common: the mean, and as few components as make up ``share``."""
    found = []
    for sums, products in zip(moments.sums, moments.products, strict=True):
        mean = sums / moments.count
        values, vectors = np.linalg.eigh(products / moments.count - np.outer(mean, mean))
        rest = vectors[:, : count_outside(values, share)]  # in ascending order of their eigenvalues
        found.append(Subspace(mean.astype(np.float32), np.ascontiguousarray(rest, np.float32)))
    return found


def count_outside(values: Array, share: float) -> int:
    """Count the directions outside, of eigenvalues (C,) in ascending order: all but the leading ones.

    The leading ones are the fewest whose sum is at least ``share`` of the whole; one direction always stays
    outside.
    """
    shares = np.maximum(values[::-1], 0).cumsum()  # rounding makes an eigenvalue of 0 negative
    leading = int(np.searchsorted(shares, share * shares[-1])) + 1 if shares[-1] > 0 else 0
    return max(len(values) - leading, 1)
