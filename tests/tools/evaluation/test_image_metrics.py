"""Image metrics: the authors' numbers, ties, and intervals that hold what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.tools.evaluation.image_metrics import confusion, f1_max, image_metrics
from support.places import golden_folder

Array = npt.NDArray[Any]


def test_the_authors_numbers() -> None:
    with np.load(golden_folder() / "metrics.npz") as golden:
        found = image_metrics(golden["labels"] > 0, golden["scores"], 0)
        auroc, f1, ap = golden["image"]
    assert (found.auroc.value, found.f1_max.value, found.ap.value) == pytest.approx((auroc, f1, ap), abs=1e-9)
    assert (found.good, found.defective) == (5, 5)
    assert np.isnan(found.auroc.low)


def test_a_threshold_rejects_what_lies_on_it() -> None:
    labels, scores = np.array([False, True, True, False]), np.array([0.1, 0.5, 0.5, 0.4])
    best, threshold = f1_max(labels, scores)
    assert (best, threshold) == (1, 0.5)
    counts = confusion(labels, scores >= threshold, threshold)
    assert (counts.found, counts.missed, counts.false_alarms, counts.passed) == (2, 0, 0, 2)
    assert (counts.precision, counts.recall) == (1, 1)


def test_confusion_of_each_kind() -> None:
    labels = np.array([True] * 5 + [False] * 7)
    rejected = np.array([True] * 2 + [False] * 3 + [True] * 1 + [False] * 6)
    counts = confusion(labels, rejected, 0.5)
    assert (counts.found, counts.missed, counts.false_alarms, counts.passed) == (2, 3, 1, 6)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 5)
    assert np.isnan(confusion(labels, np.zeros(12, bool), 0.5).precision)


@pytest.mark.parametrize("label", [False, True])
def test_one_class_alone_defines_nothing(label: bool) -> None:
    found = image_metrics(np.full(6, label), np.arange(6.0))
    assert np.isnan([found.auroc.value, found.ap.value, found.f1_max.value, found.threshold]).all()


@pytest.mark.long
def test_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    # The AUROC of two normal distributions a standard deviation apart is 0.760.
    rng, held = np.random.default_rng(0), 0
    for _ in range(8):
        labels = np.arange(80) < 30
        found = image_metrics(labels, rng.normal(size=80) + labels, 60).auroc
        assert found.low <= found.value <= found.high
        held += found.low <= 0.760 <= found.high
    assert held >= 6


def test_intervals_are_the_same_each_time() -> None:
    labels, scores = np.arange(20) < 8, np.random.default_rng(0).normal(size=20)
    assert image_metrics(labels, scores, 50) == image_metrics(labels, scores, 50)
