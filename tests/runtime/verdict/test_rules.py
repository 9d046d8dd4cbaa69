"""Rules over a lot's scores: limits that can be computed by hand, ties, small lots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.types import Array
from musc_edge.runtime.verdict.limits import as_written, limit_of_at_most
from musc_edge.runtime.verdict.rules import RejectCount, RejectRate, Rule, Threshold, whole_share

TEN = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def words(rule: Rule, values: Array) -> list[str]:
    return rule.judge(values).verdicts(values)


def rejected(rule: Rule, values: Array) -> int:
    return words(rule, values).count("reject")


def test_a_threshold_rejects_what_lies_on_it() -> None:
    rule = Threshold(0.8, review_from=0.6)
    assert words(rule, TEN) == ["not flagged"] * 5 + ["review"] * 2 + ["reject"] * 3
    limits = rule.judge(TEN)
    assert (limits.reject_from, limits.review_from, limits.flag_from, limits.p) == (0.8, 0.6, 0.6, None)


@pytest.mark.parametrize(
    ("share", "count", "whole"),
    [
        (0.05, 100, 5),
        (0.29, 100, 29),
        (0.07, 100, 7),
        (0.05, 15, 0),
        (0.999, 10, 9),
        (1, 7, 7),
        (1e-9, 90, 0),
    ],
)
def test_a_share_is_rounded_down_as_by_hand(share: float, count: int, whole: int) -> None:
    """0.29 * 100 is 28.999999999999996 to a computer."""
    assert whole_share(share, count) == whole


def test_a_rate_rejects_the_worst() -> None:
    limits = RejectRate(0.25).judge(TEN)
    assert (limits.reject_from, limits.review_from) == (0.9, None)
    assert limits.options == {"rate": 0.25, "at_most": 2}
    assert limits.notes == ()
    assert "at most 25 %" in limits.promise


def test_a_rate_below_one_image_says_that_it_rejects_none() -> None:
    limits = RejectRate(0.05).judge(TEN)
    assert limits.reject_from is None
    assert limits.notes == ("5 % of 10 images is less than one image: none is rejected",)


@pytest.mark.parametrize(
    ("count", "number"), [(1, 0), (2, 2), (3, 2), (4, 2), (5, 5), (6, 6), (7, 6), (99, 6)]
)
def test_equal_scores_are_rejected_together_or_not_at_all(count: int, number: int) -> None:
    values = np.array([0.9, 0.5, 0.9, 0.5, 0.5, 0.1])
    limits = RejectCount(count).judge(values)
    assert limits.verdicts(values).count("reject") == number
    assert bool(limits.notes) == (number < min(count, 6))


@pytest.mark.parametrize("rule", [RejectRate(0.3), RejectCount(3)])
def test_of_equal_scores_none_is_worst(rule: Rule) -> None:
    limits = rule.judge(np.full(10, 0.4))
    assert limits.reject_from is None
    assert limits.notes[0].startswith("0 instead of 3 rejected")


def test_no_rule_rejects_more_than_was_asked() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        values = as_written(random.integers(0, 12, random.integers(1, 40)) / 10)
        count = int(random.integers(1, 45))
        limit = limit_of_at_most(values, count)
        taken = 0 if limit is None else int((values >= limit).sum())
        assert taken <= count
        lower = values[values < (math.inf if limit is None else limit)]
        if len(lower):  # one value more would be too many
            assert (values >= lower.max()).sum() > count


def test_scores_are_judged_as_they_are_written() -> None:
    written = as_written([0.1234564, 0.1234566])
    assert written.tolist() == [0.123456, 0.123457]
    assert RejectCount(1).judge(written).reject_from == 0.123457


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_scores_that_are_none(values: list[float]) -> None:
    with pytest.raises(LotError, match="expected one or more, all finite"):
        as_written(values)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Threshold(-0.1),
        lambda: Threshold(2.1),
        lambda: Threshold(float("nan")),
        lambda: Threshold(0.5, review_from=0.5),
        lambda: Threshold(0.5, by="lot_score"),
        lambda: RejectRate(0),
        lambda: RejectRate(1.01),
        lambda: RejectRate(float("nan")),
        lambda: RejectCount(0),
    ],
)
def test_rules_that_make_no_sense(make: Any) -> None:
    with pytest.raises(LotError, match="expected"):
        make()
