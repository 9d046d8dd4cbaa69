"""Control charts: how often they are wrong on steady lines, and what they find; by fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge import LotError
from musc_edge.runtime.line.charts import DEFECTIVE, LEAST, Charts, _bounds
from musc_edge.runtime.types import Array

RATE = 0.001
SIGNALS = ("raw_score", "cls_distance", "brightness", "sharpness")
LINES = 50


def base(n: int, seed: int = 0) -> dict[str, Array]:
    draw = np.random.RandomState(seed)
    return {name: draw.normal(size=n) for name in SIGNALS}


def lines(images: int, seed: int = 1, defective: float = 0.0) -> Array:
    """Values (images, LINES, 4) of lines like the base; the defective ones are extreme in all signals."""
    draw = np.random.RandomState(seed)
    values: Array = draw.normal(size=(images, LINES, len(SIGNALS)))
    values[draw.rand(images, LINES) < defective] = 9
    return values


def changes(charts: Charts, values: Array) -> Array:
    """Return ``since`` (images, LINES, G) after each image."""
    state, found = charts.start(values.shape[1]), []
    for number, each in enumerate(values, 1):
        state = charts.step(state, each, number)
        found.append(state.since)
    return np.array(found)


@pytest.mark.parametrize(("n", "defective"), [(LEAST, 0.0), (100, 0.0), (100, DEFECTIVE)])
def test_steady_lines_have_no_more_false_alarms_than_promised(n: int, defective: float) -> None:
    """10,000 images: each of 50 lines of 200 has an alarm with a probability of 200 * RATE at most."""
    found = changes(Charts(base(n), RATE), lines(200, n, defective))
    # 19 of 50 or more have one with a probability of 0.3 % (exact binomial), where the bound is reached.
    assert found.any(axis=(0, 2)).sum() < 19


def test_the_luck_of_the_reference_is_allowed_for() -> None:
    """Given n uniform numbers, the scores of further ones exceed the bounds as often as is stated."""
    n, luck = 50, 0.02
    drawn = np.sort(np.random.RandomState(4).rand(4000, n), axis=1)
    rank, high = _bounds(n, luck)
    for means, bound in ((1 - drawn.mean(axis=1), rank), (1 - drawn[:, 44], high)):
        # 80 of 4000 are expected; beyond these bounds are 0.1 % on either side.
        assert 54 <= (means > bound).sum() <= 109


def test_a_bet_on_a_steady_line_loses_on_average() -> None:
    """The promise itself: no factor is above 1 on average, whatever the share of defects up to the limit."""
    charts = Charts(base(50), RATE)
    for defective in (0.0, DEFECTIVE):
        scores = charts.scores(lines(1000, 3, defective))
        assert (scores.mean(axis=(0, 1)) <= charts._most).all()


@pytest.mark.parametrize("chart", range(2 * len(SIGNALS)))
def test_a_change_is_found_soon_and_where_it_began(chart: int) -> None:
    values = lines(200, 5)
    values[100:, :, chart // 2] += 3 if chart % 2 == 0 else -3
    found = changes(Charts(base(100), RATE), values)
    assert not found[99].any()
    assert (found[140, :, chart] > 0).all()
    others = np.delete(found[-1], chart, axis=-1)
    assert not others.any()
    assert np.median(np.abs(found[-1, :, chart] - 101)) <= 2


def test_defects_in_every_fifth_image_are_no_change_and_in_most_are() -> None:
    charts = Charts(base(100), RATE)
    assert not changes(charts, lines(250, 6, DEFECTIVE)).any()
    rises = changes(charts, lines(250, 6, 0.7))[-1]
    assert (rises[:, ::2] > 0).all()
    assert not rises[:, 1::2].any()


def test_a_line_is_steady_again_when_the_change_is_over() -> None:
    values = lines(350, 7)
    values[:40, :, 2] += 3
    found = changes(Charts(base(100), RATE), values)
    assert (found[39, :, 4] > 0).all()
    assert (found[160, :, 4] == 0).mean() > 0.9
    assert not found[-1].any()


def test_equal_values_are_no_rise_and_no_fall() -> None:
    charts = Charts({"brightness": np.full(30, 0.5)}, RATE)
    assert not changes(charts, np.full((300, 1, 1), 0.5)).any()
    assert changes(charts, np.full((60, 1, 1), 0.50001))[-1].tolist() == [[1, 0]]


def test_what_has_too_few_images_is_not_watched() -> None:
    few = {**base(100), "raw_score": np.zeros(LEAST - 1)}
    assert Charts(few, RATE).signals == SIGNALS[1:]
    nothing = Charts({"raw_score": np.zeros(LEAST - 1)}, RATE)
    assert nothing.signals == ()
    assert nothing.step(nothing.start(), np.zeros(0), 1).since.tolist() == []


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_above_0_and_below_1(rate: float) -> None:
    with pytest.raises(LotError, match="false alarms per image: expected above 0"):
        Charts(base(30), rate)
