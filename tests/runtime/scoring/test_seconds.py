"""How long comparing is said to take: some pairs and loads are timed, by our clock, and all follows."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from musc_edge.runtime.scoring import mutual
from musc_edge.runtime.scoring.image_pairs import Comparer
from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.types import FloatArray

Shape = tuple[int, int, int, int]


class Clock(threading.local):
    """Stands still, in each thread, but for what work takes: ``comparing`` a pair, ``loading`` an image.

    Loading is centring and rescaling, for as long each.
    """

    now = 0.0

    def __init__(self, comparing: float, loading: float, compared: list[float]) -> None:
        self.comparing, self.loading = comparing, loading
        self.compared = compared  # the same for all threads

    def perf_counter(self) -> float:
        return self.now

    def compare(self, *_: object) -> None:
        self.now += self.comparing
        self.compared.append(self.now)

    def centre(self, tokens: FloatArray) -> FloatArray:
        self.now += len(tokens) * self.loading / 2
        return tokens

    def rescale(self, tokens: FloatArray) -> None:
        assert tokens.ndim == 2
        self.now += self.loading / 2


def run_by(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(mutual, "time", clock)
    monkeypatch.setattr(mutual, "centre", clock.centre)
    monkeypatch.setattr(mutual, "rescale", clock.rescale)
    monkeypatch.setattr(Comparer, "compare", clock.compare)
    return clock


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("group", [None, 6])
@pytest.mark.parametrize(("block", "blocks_in_memory"), [(8, 1), (8, 2), (16, 3)])
def test_every_pair_and_every_load_counts(
    monkeypatch: pytest.MonkeyPatch, threads: int, group: int | None, block: int, blocks_in_memory: int
) -> None:
    run_by(Clock(2.0, 0.5, []), monkeypatch)
    shape = (2, 45, 12, 4)
    scorer = CpuScorer(Method((3, 4), (1, 3), group_size=group), "numpy")
    plan = scorer.plan(shape, 4, HostNeeds(threads=threads))
    plan = replace(plan, block=block, blocks_in_memory=blocks_in_memory)
    pairs = 45 * (group or 44) // 2
    loads = 45 + choose(45, group).loads(block, blocks_in_memory) * block  # first for the lengths
    expected = 2 * (pairs * 2.0 + loads * 0.5) / threads
    assert scorer.seconds(shape, plan) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "seconds"),
    [
        ((2, 100, 100, 64), 0.01 * 2 * (100 * 99 / 2) * (2 * 100**2 * 64) / 1e11),  # 1 % at 100 GFLOP/s
        ((4, 500, 196, 384), 0.1),
    ],
)
def test_timing_goes_on_as_long_as_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, shape: Shape, seconds: float
) -> None:
    clock = run_by(Clock(seconds / 3.5, seconds, []), monkeypatch)
    side = int(shape[2] ** 0.5)
    scorer = CpuScorer(Method((side, side)), "numpy")
    plan = scorer.plan(shape, 4, HostNeeds(threads=1))
    found = scorer.seconds(shape, plan)
    assert len(clock.compared) == 1 + 4, "once to begin with, then until the time is over"
    images = shape[1]
    loads = images + choose(images, None).loads(plan.block, plan.blocks_in_memory) * plan.block
    expected = shape[0] * (images * (images - 1) / 2 * clock.comparing + loads * clock.loading)
    assert found == pytest.approx(expected), "the mean of all runs, not of the last"
