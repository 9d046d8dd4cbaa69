"""Rules that say from the scores of a lot which images to reject, for comparison with the product's own.

A rule takes scores (N,) and returns whether each image is rejected (N,).  None sees a label.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import cv2
import numpy as np

from musc_edge.runtime.types import Array, FloatArray
from musc_edge.runtime.verdict.auto import Auto, benjamini_hochberg, fit_gumbel
from musc_edge.runtime.verdict.limits import NOT_FLAGGED, REJECT

Rule = Callable[[Array], Array]

SHIPPED = Auto()
"""The product's own rule."""
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


def gumbel_p(scores: Array) -> Array:
    """Probability of a score as large or larger, as the product's own rule fits it to the lowest scores."""
    return fit_gumbel(scores, SHIPPED.fit_from, SHIPPED.fit_to).p(scores)


def family_wise(p: Array, level: float) -> Array:
    """Reject where p is small enough that ``level`` bounds the chance of any false rejection (Holm)."""
    order = np.argsort(p, kind="stable")
    passed = p[order] <= level / (len(p) - np.arange(len(p)))
    first = len(p) if passed.all() else int(passed.argmin())
    rejected = np.zeros(len(p), bool)
    rejected[order[:first]] = True
    return rejected


def mixture(scores: Array, gain: float, most: float = 1.0) -> Array:
    """Reject the upper of two Gaussians on log scores, if two lower the BIC by ``gain`` against one.

    ``most`` is the largest weight that the upper one may have.
    """
    values = np.log(np.maximum(scores, 1e-12))
    gained, weight, claimed = _two_gaussians(values.tobytes())
    if gained <= gain or weight >= most:
        return np.zeros(len(scores), bool)
    return np.array(claimed)


@cache
def _two_gaussians(content: bytes) -> tuple[float, float, tuple[bool, ...]]:
    """BIC gained by two Gaussians against one, weight of the upper one, and which values belong to it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    values = np.frombuffer(content)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal scores
        one, two = (
            GaussianMixture(k, random_state=0, n_init=2, init_params="k-means++").fit(values) for k in (1, 2)
        )
    upper = int(two.means_[:, 0].argmax())
    # A wide component also claims what lies far below: only what is above the lower mean counts.
    claimed = (two.predict(values) == upper) & (values[:, 0] > two.means_[:, 0].min())
    return float(one.bic(values) - two.bic(values)), float(two.weights_[upper]), tuple(claimed.tolist())


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


def gumbel_family_wise(scores: Array, level: float = 0.05) -> Array:
    """Reject by the probabilities of ``gumbel_p`` so that rarely any rejection is false."""
    return family_wise(gumbel_p(scores), level)


def gumbel_false_share(scores: Array, level: float = 0.2) -> Array:
    """Reject by the probabilities of ``gumbel_p`` so that few of the rejections are false."""
    p = gumbel_p(scores)
    rejected: Array = p <= benjamini_hochberg(p, level)
    return rejected


def gumbel_each(scores: Array, level: float) -> Array:
    """Reject each image whose probability by ``gumbel_p`` is at most ``level``."""
    rejected: Array = gumbel_p(scores) <= level
    return rejected


def verdicts(scores: Array, rule: Auto = SHIPPED) -> Array:
    """The words of the product's own rule (N,)."""
    return np.array(rule.judge(scores).verdicts(scores))


def shipped_reject(scores: Array) -> Array:
    """What the product's own rule rejects."""
    rejected: Array = verdicts(scores) == REJECT
    return rejected


def shipped_flagged(scores: Array) -> Array:
    """What the product's own rule rejects or wants reviewed."""
    flagged: Array = verdicts(scores) != NOT_FLAGGED
    return flagged


RULES: Mapping[str, Rule] = {
    "**auto: reject**": shipped_reject,
    "**auto: reject or review**": shipped_flagged,
    "median + 3 MAD": partial(median_mad, k=3.0),
    "median + 3.5 MAD": partial(median_mad, k=3.5),
    "largest gap > 1 MAD": largest_gap,
    "Gumbel, family-wise 5 %": gumbel_family_wise,
    "Gumbel, Benjamini-Hochberg 20 %": gumbel_false_share,
    "Gumbel, Benjamini-Hochberg 30 %": partial(gumbel_false_share, level=0.3),
    "Gumbel, Benjamini-Hochberg 50 %": partial(gumbel_false_share, level=0.5),
    "Gumbel, p at most 0.05": partial(gumbel_each, level=0.05),
    "two Gaussians on log s, BIC gain > 10": partial(mixture, gain=10.0),
    "Gumbel BH 20 %, or BIC gain > 6 with weight < 0.4": either(
        gumbel_false_share, partial(mixture, gain=6.0, most=0.4)
    ),
    "Otsu": otsu,
}

COSTLY = {name for name in RULES if "BIC" in name}
"""Rules that take a hundred times as long as the others."""


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
