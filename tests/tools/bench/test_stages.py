"""What spans say of a run, by hand and against a count of every millisecond."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.tools.bench.stages import calls, timeline


def spans(*pairs: tuple[float, float]) -> npt.NDArray[np.float64]:
    return np.array(pairs, np.float64).reshape(-1, 2)


def test_one_after_the_other() -> None:
    found = timeline({"decode": spans((1, 2), (3, 5)), "extract": spans((5, 9))}, 0, 10)
    assert found.busy == {"decode": 3.0, "extract": 4.0}
    assert (found.wall, found.overlap, found.idle) == (10, 0, 3)  # 0 to 1, 2 to 3, 9 to 10
    assert found.explained == pytest.approx(0.7)


def test_what_runs_at_once_is_counted_once() -> None:
    found = timeline({"decode": spans((0, 4), (1, 3)), "extract": spans((2, 6))}, 0, 6)
    assert sum(found.busy.values()) == 10
    assert (found.overlap, found.idle) == (4, 0)


def test_waiting_is_not_work() -> None:
    found = timeline(
        {"wait for images": spans((0, 8)), "score": spans((0, 10)), "decode": spans((0, 1))}, 0, 10
    )
    assert found.busy == {"decode": 1.0}
    assert found.idle == 9


def test_nothing_explains_an_empty_run() -> None:
    found = timeline({}, 2, 4)
    assert (found.busy, found.overlap, found.idle, found.explained) == ({}, 0, 2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_as_a_count_of_every_tick(seed: int) -> None:
    generator = np.random.default_rng(seed)
    work = {}
    active = np.zeros(1000, np.int64)
    for name in "abc":
        starts = generator.integers(0, 900, 12)
        found = np.stack([starts, starts + generator.integers(0, 100, 12)], axis=1)
        for start, stop in found:
            active[start:stop] += 1
        work[name] = found.astype(np.float64)
    result = timeline(work, 0, 1000)
    assert sum(result.busy.values()) == active.sum()
    assert result.idle == (active == 0).sum()
    assert result.overlap == np.maximum(active - 1, 0).sum()
    assert result.wall == sum(result.busy.values()) - result.overlap + result.idle


def test_percentiles_of_calls() -> None:
    found = calls(np.arange(101) / 100)
    assert (found.count, found.p50, found.p90, found.p99, found.longest) == (101, 0.5, 0.9, 0.99, 1.0)
