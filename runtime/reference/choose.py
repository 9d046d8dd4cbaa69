"""Choose what a reference keeps: images that cover the lot, and patches that cover an image.

Greedy k-center: each next point is the one that is farthest from all that were chosen (Gonzalez 1985; the
coreset of PatchCore).  No point is then farther from its nearest chosen one than twice what the best choice
could reach.
"""

from __future__ import annotations

import numpy as np

from ..types import Array, FloatArray

SEED = 0
"""Seed of the images that are held out: fixed, so that a reference is made alike every time."""


def cover(points: FloatArray, count: int) -> Array:
    """Choose ``count`` of the unit vectors ``points`` (n,d), the most central one first; ascending indexes.

    Of equally far points the first is taken, and no point twice.
    """
    if count >= len(points):
        return np.arange(len(points))
    chosen = [int((points @ points.mean(axis=0)).argmax())]
    nearest = points @ points[chosen[0]]  # the largest cosine with one that was chosen
    nearest[chosen] = np.inf
    while len(chosen) < count:
        farthest = int(nearest.argmin())
        chosen.append(farthest)
        np.maximum(nearest, points @ points[farthest], out=nearest)
        nearest[chosen] = np.inf
    return np.sort(chosen)


def held_out(images: int, share: float) -> Array:
    """Draw the images that are held out of the bank, at random by a fixed seed; ascending."""
    drawn = np.random.RandomState(SEED).permutation(images)[: round(share * images)]
    return np.sort(drawn)


def nearest_others(cls: FloatArray) -> Array:
    """Return the distance (N,) of each CLS embedding (N,D) to the nearest other one."""
    cosines = cls @ cls.T
    np.fill_diagonal(cosines, -np.inf)
    return angular(cosines.max(axis=1))


def angular(cosines: Array) -> Array:
    """Return the distances between unit vectors with these ``cosines``."""
    distances: Array = np.sqrt(np.maximum(2 - 2 * np.asarray(cosines, np.float64), 0))
    return distances
