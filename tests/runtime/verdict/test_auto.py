"""The rule for a lot of which nothing is known: nothing out of nothing, and what stands far out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.types import Array
from musc_edge.runtime.verdict.auto import Auto, Gumbel, benjamini_hochberg, fit_gumbel, robust_limit


def gumbel(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).gumbel(0.3, 0.02, count)


def rejects(values: Array, rule: Auto | None = None) -> list[bool]:
    return [word == "reject" for word in (rule or Auto()).judge(values).verdicts(values)]


def test_p_is_the_gumbel_distributions() -> None:
    """At the mode 1 - 1/e; far above it e to the minus distance; 1 far below, without overflow."""
    p = Gumbel(0.3, 0.02).p(np.array([0.3, 0.7, -2.0]))
    assert p == pytest.approx([1 - 1 / math.e, math.exp(-20), 1.0], rel=1e-6)


def test_values_on_a_gumbel_distribution_give_it_back() -> None:
    part = (np.arange(50) + 0.5) / 50
    fit = fit_gumbel(0.3 - 0.02 * np.log(-np.log(part)), 0.03, 0.6)
    assert (fit.location, fit.spread) == pytest.approx((0.3, 0.02))


def test_benjamini_and_hochberg_by_hand() -> None:
    """Of 0.2 * k / 5 = .04, .08, .12, .16, .2 the third is the last that holds."""
    assert benjamini_hochberg(np.array([0.9, 0.11, 0.05, 0.001, 0.5]), 0.2) == 0.11
    assert benjamini_hochberg(np.array([0.9, 0.6]), 0.2) == -1


def test_the_limit_for_a_review_by_hand() -> None:
    """Median 3, median absolute deviation 1: 3 + 2 * 1.4826."""
    assert robust_limit(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), 2) == pytest.approx(5.9652)


def test_what_stands_far_out_is_rejected_whatever_the_order() -> None:
    values = np.concatenate([gumbel(50), [0.9, 0.8]])
    shuffled = np.random.default_rng(1).permutation(52)
    assert rejects(values)[-2:] == [True, True]
    assert rejects(values[shuffled]) == [rejects(values)[row] for row in shuffled]
    limits = Auto().judge(values)
    assert limits.p is not None
    assert limits.p[-2:].max() < 1e-6
    assert limits.reject_from in values


def test_most_lots_without_a_defect_have_no_reject() -> None:
    """No rejects by construction: draws from one distribution, 20 to 200 images."""
    fired = [any(rejects(gumbel(20 + seed, seed))) for seed in range(180)]
    assert sum(fired) / len(fired) < 0.25


@pytest.mark.parametrize("noise", [0, 1e-6, 1e-5])
def test_equal_scores_flag_nothing(noise: float) -> None:
    values = 0.4 + noise * np.random.default_rng(0).standard_normal(60)
    assert set(Auto().judge(values).verdicts(values)) == {"not flagged"}


def test_one_image_apart_from_equal_ones_is_rejected() -> None:
    values = np.append(np.full(30, 0.4), 0.7)
    assert rejects(values) == [False] * 30 + [True]


def test_limits_and_units() -> None:
    """Scores that are doubled and moved have the same verdicts."""
    values = np.concatenate([gumbel(50), [0.9, 0.42]])
    limits, other = Auto().judge(values), Auto().judge(2 * values + 0.1)
    assert other.verdicts(2 * values + 0.1) == limits.verdicts(values)


@pytest.mark.parametrize("count", [1, 5, 19])
def test_a_small_lot_is_refused_with_the_reason(count: int) -> None:
    limits = Auto().judge(gumbel(count))
    assert "too few" in limits.refused
    assert "--threshold" in limits.refused
    assert limits.verdicts(gumbel(count)) == [""] * count
    assert (limits.reject_from, limits.review_from, limits.p) == (None, None, None)


def test_twenty_images_are_enough() -> None:
    assert not Auto().judge(gumbel(20)).refused


def test_constants_that_make_no_sense() -> None:
    with pytest.raises(LotError, match="expected"):
        Auto(fit_from=0.7)
    with pytest.raises(LotError, match="too few"):
        Auto(least_images=2).judge(np.array([0.1, 0.2]))
