"""Pixel metrics of a lot, exact: AUROC, AP, F1-max, and PRO by both of its definitions.

Of all pixels, in the descending order of their values t:

    TP(t), FP(t)   defect and normal pixels whose value is at least t
    AUROC          area below TP/P over FP/N, by trapezoids
    AP             sum of precision times the growth of recall, stepwise
    F1-max         the largest 2 TP / (P + TP + FP)
    PRO(t)         mean over the regions (8-connected parts of a mask) of the share that is above t
    AUPRO(f)       area below PRO over FP/N from (0,0) to FP/N = f, interpolated there, divided by f:
                   anomalib's definition
    PRO-200        the authors': 200 even thresholds, FP/N below 0.3 stretched to 0..1, trapezoids
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ...runtime.types import Array, FloatArray
from .sorted_pixels import MOST_PIXELS, Pixels, Range, SortedPixels

STEPS, LIMIT = 200, 0.3
"""The authors' number of thresholds, and the share of false positives up to which they go."""
LIMITS = (0.05, LIMIT)
_POINTS = 500  # of a curve, evenly over recall, and as many over false positives, that are kept to be drawn


@dataclass(frozen=True)
class PixelMetrics:
    """Pixel metrics from 0 to 1; NaN where one is not defined.

    ``pro_200`` is the authors' PRO, ``aupro`` the other by its limit.  ``threshold`` belongs to ``f1_max``.
    ``curves`` has points to draw: false-positive rate, recall, precision and PRO, (n,4).
    """

    auroc: float
    ap: float
    f1_max: float
    threshold: float
    pro_200: float
    aupro: dict[float, float]
    defect_pixels: int
    normal_pixels: int
    regions: int
    curves: Array


def pixel_metrics(
    maps_and_masks: Iterable[tuple[FloatArray, Array]],
    limits: tuple[float, ...] = LIMITS,
    most_pixels: int = MOST_PIXELS,
) -> PixelMetrics:
    """Compute all pixel metrics of a lot; NaN if it has no defect pixel, or nothing else.

    Parameters
    ----------
    maps_and_masks : maps (H,W) float32, each with its mask (H,W) bool.
    limits : shares of false positives up to which AUPRO goes.
    most_pixels : pixels that are in memory at once.

    Raises
    ------
    LotError
        If a map and its mask differ in size, or a map is not finite.
    """
    with SortedPixels() as pixels:
        for values, mask in maps_and_masks:
            pixels.add(values, mask)
        return metrics_of(pixels.of(), limits, most_pixels)


def metrics_of(
    pixels: Pixels, limits: tuple[float, ...] = LIMITS, most_pixels: int = MOST_PIXELS
) -> PixelMetrics:
    """Compute the same of pixels that are sorted already."""
    sums = _Sums(pixels.defect, pixels.normal, pixels.regions, limits)
    if not sums.defect or not sums.normal:
        return sums.metrics(float("nan"))
    for part in pixels.ranges(most_pixels):
        sums.add(part)
    return sums.metrics(_pro_200(pixels))


@dataclass
class _Sums:
    """Sums over pixels in descending order, carried from one range to the next."""

    defect: int
    normal: int
    regions: int
    limits: tuple[float, ...]
    _auroc: float = 0.0
    _ap: float = 0.0
    _best: tuple[float, float] = (0.0, float("nan"))  # F1 and its threshold
    _tp: float = 0.0
    _fp: float = 0.0
    _pro: float = 0.0
    _areas: dict[float, float] = field(default_factory=dict)
    _drawn: list[Array] = field(default_factory=list)

    def add(self, part: Range) -> None:
        """Add the next range."""
        tp, fp = self._tp + np.cumsum(part.defect), self._fp + np.cumsum(part.normal)
        pro = self._pro + np.cumsum(part.share) / self.regions
        self._auroc += float(part.normal @ (tp - part.defect / 2))
        precision = tp / (tp + fp)
        self._ap += float(part.defect @ precision)
        f1 = 2 * tp / (self.defect + tp + fp)
        best = int(f1.argmax())
        self._best = max(self._best, (float(f1[best]), float(part.values[best])), key=lambda pair: pair[0])
        rates, pros = (np.concatenate(pair) for pair in (([self._fp], fp), ([self._pro], pro)))
        for limit in self.limits:
            area = _area_up_to(limit * self.normal, rates, pros) / (limit * self.normal)
            self._areas[limit] = self._areas.get(limit, 0.0) + area
        shown = np.unique(
            np.concatenate([_first_at(tp, self._tp, self.defect), _first_at(fp, self._fp, self.normal)])
        )
        self._drawn.append(np.stack([fp / self.normal, tp / self.defect, precision, pro], 1)[shown])
        self._tp, self._fp, self._pro = float(tp[-1]), float(fp[-1]), float(pro[-1])

    def metrics(self, pro_200: float) -> PixelMetrics:
        """The metrics of all that was added."""
        nothing = float("nan")
        drawn = np.concatenate(self._drawn) if self._drawn else np.empty((0, 4))
        return PixelMetrics(
            auroc=self._auroc / (self.defect * self.normal) if self._drawn else nothing,
            ap=self._ap / self.defect if self._drawn else nothing,
            f1_max=self._best[0] if self._drawn else nothing,
            threshold=self._best[1],
            pro_200=pro_200,
            aupro={limit: self._areas.get(limit, nothing) for limit in self.limits},
            defect_pixels=self.defect,
            normal_pixels=self.normal,
            regions=self.regions,
            curves=drawn,
        )


def _first_at(counts: Array, before: float, total: int) -> Array:
    """Indices at which ascending ``counts``, ``before`` them, first reach each of ``_POINTS`` even steps."""
    steps = np.linspace(0, total, _POINTS)
    steps = steps[(steps > before) & (steps <= counts[-1])]
    found: Array = np.searchsorted(counts, steps)
    return found


def _area_up_to(limit: float, x: Array, y: Array) -> float:
    """Area below the line through (x,y), x ascending, as far as x = ``limit``."""
    inside = int(np.searchsorted(x, limit, "right"))
    if inside == 0:
        return 0.0
    xs, ys = x[:inside], y[:inside]
    if inside < len(x):
        xs, ys = np.append(xs, limit), np.append(ys, np.interp(limit, x, y))
    return float(np.diff(xs) @ (ys[1:] + ys[:-1])) / 2


def _pro_200(pixels: Pixels) -> float:
    """The authors' PRO; NaN where it has no meaning: maps without a range, or no room below the limit."""
    # In float32, as theirs: the thresholds' last bits decide on which side a pixel lies.
    low, high = np.float32(pixels.lowest), np.float32(pixels.highest)
    step = (high - low) / np.float32(STEPS)
    if step <= 0:
        return float("nan")
    above, shares = pixels.above(np.arange(low, high, step).astype(np.float32))
    fpr, pro = above / pixels.normal, shares.mean(axis=0)
    fpr, pro = fpr[fpr < LIMIT], pro[fpr < LIMIT]
    if len(fpr) < 2 or fpr.max() == fpr.min():
        return float("nan")
    fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    # In the thresholds' order, along which rates fall: sorted by rate, ties would come in another one.
    return float(-np.diff(fpr) @ (pro[1:] + pro[:-1])) / 2
