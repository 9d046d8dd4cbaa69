"""Rules that say from the scores of a lot which images to reject, for comparison with the product's own.

A rule takes scores (N,) and returns whether each image is rejected (N,).  None sees a label.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cv2
import numpy as np

from musc_edge.runtime.types import Array, FloatArray

Rule = Callable[[Array], Array]

FITTED = 0.6
"""Share of the lowest scores that the Gumbel distribution is fitted to: the rest may be defective."""
_SIGMA = 1.4826  # standard deviations of a normal distribution in one median absolute deviation


def mad(scores: Array) -> float:
    """Median absolute deviation, scaled to the standard deviation of a normal distribution."""
    return float(_SIGMA * np.median(np.abs(scores - np.median(scores))))


def median_mad(scores: Array, k: float) -> Array:
    """Reject what is more than k deviations above the median."""
    rejected: Array = scores > np.median(scores) + k * mad(scores)
    return rejected


def largest_gap(scores: Array, least: float = 1.0) -> Array:
    """Reject what is above the largest gap in the upper half, if it is at least ``least`` deviations wide."""
    upper = np.sort(scores)[len(scores) // 2 :]
    gaps = np.diff(upper)
    if not len(gaps) or gaps.max() <= least * mad(scores):
        return np.zeros(len(scores), bool)
    rejected: Array = scores > upper[gaps.argmax()]
    return rejected


def gumbel_p(scores: Array, fitted: float = FITTED) -> Array:
    """Probability of a score as large or larger by a Gumbel distribution fitted to the lowest scores.

    Its quantiles are a straight line in -log(-log(rank)): least squares over the lowest ``fitted`` of the
    lot, without the first 3 %.
    """
    ranks = (np.arange(1, len(scores) + 1) - 0.5) / len(scores)
    used = (ranks >= 0.03) & (ranks <= fitted)
    width, place = np.polyfit(-np.log(-np.log(ranks[used])), np.sort(scores)[used], 1)
    if width <= 0:  # equal scores
        return np.ones(len(scores))
    p: Array = -np.expm1(-np.exp(-(scores - place) / width))
    return p


def family_wise(p: Array, level: float) -> Array:
    """Reject where p is small enough that ``level`` bounds the chance of any false rejection (Holm)."""
    order = np.argsort(p, kind="stable")
    passed = p[order] <= level / (len(p) - np.arange(len(p)))
    first = len(p) if passed.all() else int(passed.argmin())
    rejected = np.zeros(len(p), bool)
    rejected[order[:first]] = True
    return rejected


def benjamini_hochberg(p: Array, level: float) -> Array:
    """Reject so many of the smallest p that at most ``level`` of them are expected to be false."""
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= level * np.arange(1, len(p) + 1) / len(p))
    if not len(below):
        return np.zeros(len(p), bool)
    rejected: Array = p <= ordered[below[-1]]
    return rejected


def mixture(scores: Array, gain: float, most: float = 1.0) -> Array:
    """Reject the upper of two Gaussians on log scores, if two lower the BIC by ``gain`` against one.

    ``most`` is the largest weight that the upper one may have.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    values = np.log(np.maximum(scores, 1e-12))[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal scores
        one, two = (GaussianMixture(k, random_state=0, n_init=2).fit(values) for k in (1, 2))
    upper = int(two.means_[:, 0].argmax())
    if one.bic(values) - two.bic(values) <= gain or two.weights_[upper] >= most:
        return np.zeros(len(scores), bool)
    # A wide component also claims what lies far below: only what is above the lower mean counts.
    rejected: Array = (two.predict(values) == upper) & (values[:, 0] > two.means_[:, 0].min())
    return rejected


def otsu(scores: Array) -> Array:
    """Reject the upper of the two groups that differ most from each other: it always finds two."""
    ordered = np.sort(scores)
    below = np.arange(1, len(scores))
    sums = np.cumsum(ordered)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(scores) - below)
    between = below * (len(scores) - below) * (means[1] - means[0]) ** 2
    if not len(between) or between.max() == 0:
        return np.zeros(len(scores), bool)
    rejected: Array = scores > ordered[between.argmax()]
    return rejected


def either(first: Rule, second: Rule) -> Rule:
    """Reject what one of two rules rejects."""
    return lambda scores: first(scores) | second(scores)


def gumbel(scores: Array, test: Callable[[Array, float], Array], level: float) -> Array:
    """Reject by the probabilities of ``gumbel_p``."""
    return test(gumbel_p(scores), level)


BH = partial(gumbel, test=benjamini_hochberg, level=0.2)
RULES: Mapping[str, Rule] = {
    "median + 3 MAD": partial(median_mad, k=3.0),
    "median + 3.5 MAD": partial(median_mad, k=3.5),
    "largest gap > 1 MAD": largest_gap,
    "Gumbel, family-wise 5 %": partial(gumbel, test=family_wise, level=0.05),
    "Gumbel, Benjamini-Hochberg 20 %": BH,
    "two Gaussians on log s, BIC gain > 10": partial(mixture, gain=10.0),
    "Gumbel BH 20 %, or BIC gain > 6 with weight < 0.4": either(BH, partial(mixture, gain=6.0, most=0.4)),
    "Otsu": otsu,
}


def mebin(maps: FloatArray, step: int = 4, least: int = 4, side: int = 6) -> Array:
    """MEBin of RoBiS on pixel maps (N,H,W): whether each image has any pixel left.

    Maps are scaled to 0-255 between the lot's smallest and largest image score.  From 255 down in steps, what
    is above is eroded by a square and its connected parts are counted.  The longest run of at least ``least``
    steps with the same number of parts, not 0, gives the image's threshold; without one it has no defect.
    """
    tops = maps.max(axis=(1, 2))
    low, high = float(tops.min()), float(tops.max())
    if high <= low:
        return np.zeros(len(maps), bool)
    square = np.ones((side, side), np.uint8)
    found = np.zeros(len(maps), bool)
    for i, one in enumerate(maps):
        scaled = np.where(one < low, 0, (one - low) / (high - low) * 255)
        counts = [_parts(scaled, level, square) for level in range(255, 0, -step)]
        found[i] = _longest_run(counts) >= least
    return found


def _parts(scaled: Array, level: int, square: Any) -> int:
    if scaled.max() <= level:
        return 0
    above = cv2.erode((scaled > level).astype(np.uint8), square)
    return cv2.connectedComponents(above, connectivity=8)[0] - 1


def _longest_run(counts: list[int]) -> int:
    """Length of the longest run of equal numbers that are not 0."""
    best = length = 0
    for before, count in zip([0, *counts], counts, strict=False):
        length = length + 1 if count == before else 1
        if count:
            best = max(best, length)
    return best
