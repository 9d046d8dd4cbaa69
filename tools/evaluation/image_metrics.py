"""Image metrics of a lot: AUROC, AP and F1-max with bootstrap intervals, and the confusion at a threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...runtime.types import Array
from .choices import RESAMPLES

_LEVEL = 0.95
_SEED = 0


@dataclass(frozen=True)
class Measured:
    """A metric with its interval of 95 %; NaN where it is not defined, and for no interval."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Confusion:
    """Images by truth and verdict: defects found and missed, good ones rejected and passed."""

    threshold: float
    found: int
    missed: int
    false_alarms: int
    passed: int

    @property
    def precision(self) -> float:
        """Share of the rejected that are defective; NaN if none is rejected."""
        return _ratio(self.found, self.found + self.false_alarms)

    @property
    def recall(self) -> float:
        """Share of the defective that are rejected."""
        return _ratio(self.found, self.found + self.missed)


@dataclass(frozen=True)
class ImageMetrics:
    """Image metrics from 0 to 1; ``threshold`` is the one of ``f1_max``."""

    auroc: Measured
    ap: Measured
    f1_max: Measured
    threshold: float
    good: int
    defective: int


def image_metrics(labels: Array, scores: Array, resamples: int = RESAMPLES) -> ImageMetrics:
    """Compute image metrics from labels (N,) bool, True for a defect, and scores (N,).

    The interval is the percentile bootstrap's: images are drawn with replacement, good and defective ones
    apart, ``resamples`` times; 0 for none.
    """
    good, defective = np.flatnonzero(~labels), np.flatnonzero(labels)
    if not len(good) or not len(defective):
        nothing = Measured(float("nan"))
        return ImageMetrics(nothing, nothing, nothing, float("nan"), len(good), len(defective))
    rng = np.random.default_rng(_SEED)
    draws = [
        np.concatenate([rng.choice(part, len(part)) for part in (good, defective)]) for _ in range(resamples)
    ]
    from sklearn.metrics import average_precision_score, roc_auc_score

    def measured(metric: Callable[[Array, Array], float]) -> Measured:
        value = float(metric(labels, scores))
        if not draws:
            return Measured(value)
        drawn = [metric(labels[draw], scores[draw]) for draw in draws]
        low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Measured(value, float(low), float(high))

    return ImageMetrics(
        measured(roc_auc_score),
        measured(average_precision_score),
        measured(lambda labels, scores: f1_max(labels, scores)[0]),
        f1_max(labels, scores)[1],
        len(good),
        len(defective),
    )


def f1_max(labels: Array, scores: Array) -> tuple[float, float]:
    """The largest F1 of all thresholds and its threshold: an image is rejected from this score on."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, scores)
    # The last point, precision 1 and recall 0, has no threshold and is never the best.
    total = (precision + recall)[:-1]
    f1 = 2 * (precision * recall)[:-1] / np.where(total > 0, total, 1)
    best = int(f1.argmax())
    return float(f1[best]), float(thresholds[best])


def confusion(labels: Array, rejected: Array, threshold: float) -> Confusion:
    """Count images by truth (N,) bool and verdict (N,) bool."""
    counts = [int((labels == truth)[rejected == verdict].sum()) for truth, verdict in
              ((True, True), (True, False), (False, True), (False, False))]  # fmt: skip
    return Confusion(threshold, *counts)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
