"""The stage timer: what it adds up, with a clock that the test sets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from musc_edge.runtime import timing
from musc_edge.runtime.timing import StageTimer
from musc_edge.runtime.types import Array


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def spend(timer: StageTimer, clock: Clock, name: str, seconds: float) -> None:
    with timer.stage(name):
        clock.now += seconds


def test_stages_add_up_in_the_order_of_their_first_use(clock: Clock) -> None:
    timer = StageTimer()
    assert timer.seconds == {}
    for name, seconds in [("decode", 1.5), ("extract", 4.0), ("decode", 0.25), ("score", 0.0)]:
        spend(timer, clock, name, seconds)
        clock.now += 1000  # time between the stages belongs to none
    assert list(timer.seconds.items()) == [("decode", 1.75), ("extract", 4.0), ("score", 0.0)]


def test_stage_that_fails_is_counted(clock: Clock) -> None:
    timer = StageTimer()

    def fail() -> None:
        with timer.stage("extract"):
            clock.now += 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    spend(timer, clock, "extract", 3)
    assert timer.seconds == {"extract": 5.0}


def test_timers_are_apart(clock: Clock) -> None:
    first, second = StageTimer(), StageTimer()
    spend(first, clock, "a", 1)
    assert second.seconds == {}


def test_seconds_are_those_of_a_real_clock() -> None:
    timer = StageTimer()
    with timer.stage("a"):
        pass
    assert timer.seconds["a"] >= 0


# ---- spans -----------------------------------------------------------------------------------


def test_spans_are_kept_of_stages_and_of_the_work_within(clock: Clock) -> None:
    timer = StageTimer()
    with timer.stage("score"):
        clock.now += 1
        with timer.work("compare"):
            clock.now += 2
        with timer.work("compare"):
            clock.now += 4
    assert timer.seconds == {"score": 7.0}  # work is within a stage, and not added to it
    spans = timer.spans()
    assert spans["score"].tolist() == [[100.0, 107.0]]
    assert spans["compare"].tolist() == [[101.0, 103.0], [103.0, 107.0]]


def test_work_that_ends_while_spans_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hashes may, in a thread of their own: it brings a name that was not there."""
    timer = StageTimer()
    timer.record("load", 1, 2)

    def array(values: object) -> Array:
        timer.record("hash", 1, 3)
        return np.array(values)

    monkeypatch.setattr(timing, "np", SimpleNamespace(array=array, diff=np.diff))
    assert list(timer.spans()) == ["load"]
    assert list(timer.spans()) == ["load", "hash"]


def test_work_on_many_threads_loses_no_span() -> None:
    timer = StageTimer()

    @timer.work("compare")
    def work(_: int) -> None:
        pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(5000)))
    spans = timer.spans()["compare"]
    assert spans.shape == (5000, 2)
    assert (spans[:, 0] <= spans[:, 1]).all()
