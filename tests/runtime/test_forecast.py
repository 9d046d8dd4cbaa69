"""The time that is left: what was forecast, until a tenth of a stage has been timed.  The clock is ours."""

from __future__ import annotations

import pytest

from musc_edge.runtime.forecast import EXTRACT, SCORE, SHEET, WRITE, Forecast, Schedule
from support.lots import lot_result

FORECAST = {EXTRACT: 100.0, SCORE: 200.0, WRITE: 50.0, SHEET: 5.0}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_before_the_work_it_is_the_forecast(clock: Clock) -> None:
    schedule = Schedule(FORECAST, clock)
    assert schedule.left == schedule.total == 355
    assert not schedule.progress(EXTRACT, 0, 80)
    assert schedule.left == 355


def test_a_tenth_corrects_its_stage(clock: Clock) -> None:
    schedule = Schedule(FORECAST, clock)
    schedule.progress(EXTRACT, 0, 80)
    clock.now += 30
    assert schedule.progress(EXTRACT, 8, 80)  # three times as slow as forecast
    assert schedule.left == 270 + 255
    assert schedule.total == 30 + 270 + 255
    clock.now += 270
    assert not schedule.progress(EXTRACT, 80, 80)  # said once
    assert schedule.left == 255
    schedule.progress(SCORE, 0, 1000)
    assert schedule.left == 255
    clock.now += 10
    assert schedule.progress(SCORE, 100, 1000)
    assert schedule.left == 90 + 50 + 5
    assert schedule.total == 300 + 10 + 145


def test_less_than_a_tenth_keeps_the_forecast(clock: Clock) -> None:
    schedule = Schedule(FORECAST, clock)
    schedule.progress(SCORE, 0, 1000)
    clock.now += 1
    assert not schedule.progress(SCORE, 50, 1000)
    assert schedule.left == pytest.approx(0.95 * 200 + 55)


def test_the_first_results_of_several_threads_are_no_tenth(clock: Clock) -> None:
    schedule = Schedule({WRITE: 30.0}, clock)
    schedule.progress(WRITE, 0, 20)
    for done, timed in [(1, False), (2, False), (3, False), (4, True), (5, False)]:
        clock.now += 1
        assert schedule.progress(WRITE, done, 20) == timed


def test_the_work_of_an_earlier_run_is_no_rate(clock: Clock) -> None:
    schedule = Schedule({EXTRACT: 100.0}, clock)
    schedule.progress(EXTRACT, 60, 100)
    assert schedule.left == pytest.approx(40)
    clock.now += 20
    schedule.progress(EXTRACT, 70, 100)
    assert schedule.left == pytest.approx(60)  # 2 s an image, not 20 s for 70


def test_damaged_work_of_an_earlier_run(clock: Clock) -> None:
    schedule = Schedule({SCORE: 100.0}, clock)
    schedule.progress(SCORE, 600, 1000)
    clock.now += 10
    schedule.progress(SCORE, 500, 1000)
    assert schedule.left == pytest.approx(50)


def test_other_stages_are_passed_over(clock: Clock) -> None:
    schedule = Schedule(FORECAST, clock)
    assert not schedule.progress("describe", 5, 10)
    assert schedule.left == 355
    assert not schedule.progress(EXTRACT, 0, 0)  # nothing to do


def test_a_stage_that_was_not_reported_is_over_when_the_next_begins(clock: Clock) -> None:
    schedule = Schedule(FORECAST, clock)
    schedule.progress(WRITE, 0, 10)
    assert schedule.left == 55


def test_a_forecast_counts_all_of_the_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    plan = lot_result(tmp_path_factory.mktemp("lot") / "lot", ["a.png", "b.png"]).run.plan
    found = Forecast(2, 1, 1, 1, 2.0, 20.0, plan, "numpy", "cpu", 10.0, 1.0, 5.0, 2.0)
    assert found.total_seconds == 38
    assert list(found.stages.values()) == [10.0, 20.0, 5.0, 2.0]
    assert Schedule(found.stages).left == 37
