"""p-values: by their definition, and what they promise, over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.reference.conformal import Calibration
from musc_edge.runtime.verdict.limits import NOT_FLAGGED, REJECT


@pytest.mark.parametrize("scores", [[], [0.3], [0.1, 0.2, 0.2, 0.4], [0.5] * 7])
@pytest.mark.parametrize("score", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 9.0])
def test_p_counts_the_scores_that_are_as_high(scores: list[float], score: float) -> None:
    expected = (1 + sum(c >= score for c in scores)) / (len(scores) + 1)
    assert Calibration(np.array(scores), 0.05).p(score) == expected


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.07, 0.29, 0.5])
@pytest.mark.parametrize("images", [0, 5, 13, 19, 20, 99, 100, 101])
def test_what_is_above_the_limit_is_rejected_and_nothing_else(alpha: float, images: int) -> None:
    scores = np.random.default_rng(images).permutation(images) / 10
    found = Calibration(scores, alpha)
    limit = found.reject_above
    for score in np.arange(-1, images + 1) / 10 + 0.05:
        rejected = found.verdict(found.p(score)) == REJECT
        assert rejected == (limit is not None and score > limit)
    if limit is not None:
        assert found.verdict(found.p(limit)) == NOT_FLAGGED
    assert (limit is None) == (found.smallest > alpha)


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.5, 1), (0.03, 33)])
def test_it_says_how_many_images_a_rate_takes(alpha: float, needed: int) -> None:
    short = Calibration(np.arange(needed - 1.0), alpha).promise()
    assert "no image can be rejected" in short
    assert f"Calibrate by {needed} or more" in short
    enough = Calibration(np.arange(float(needed)), alpha).promise()
    assert f"at most {100 * alpha:g} % are rejected" in enough
    assert "Nothing is promised about missed defects" in enough


def test_the_rate_is_kept_whatever_the_distribution() -> None:
    """10,000 draws of calibration and image: within four standard deviations of floor(a(n+1))/(n+1)."""
    rng = np.random.default_rng(0)
    alpha, images, draws = 0.1, 34, 10_000
    rejected = 0
    for _ in range(draws):
        values = rng.standard_cauchy(images + 1)
        found = Calibration(values[1:], alpha)
        rejected += found.verdict(found.p(values[0])) == REJECT
    exact = 3 / 35
    assert abs(rejected / draws - exact) < 4 * (exact * (1 - exact) / draws) ** 0.5


@pytest.mark.parametrize("alpha", [0, 1, -1, 2, float("nan")])
def test_rates_that_are_none_are_refused(alpha: float) -> None:
    with pytest.raises(LotError, match="between 0 and 1"):
        Calibration(np.arange(9.0), alpha)
