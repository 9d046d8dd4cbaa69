"""The maxima of maps: the same on any number of threads, as many as planned, and an error without any."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime import pipeline
from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.pipeline import score_lot
from musc_edge.runtime.planning import Planner
from musc_edge.runtime.scoring import anomaly_map
from musc_edge.runtime.scoring.anomaly_map import raw_scores, upsample
from musc_edge.runtime.settings import Resources
from musc_edge.runtime.types import Array, Plan
from support.lots import write_png

SIZE = (40, 56)


@pytest.mark.parametrize("count", [0, 1, 2, 23])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_maximum_is_at_its_map(count: int, threads: int) -> None:
    maps = np.random.default_rng(0).random((count, 5, 7), np.float32)
    raw = raw_scores(maps, SIZE, threads)
    assert raw.dtype == np.float64
    np.testing.assert_array_equal(raw, upsample(maps, SIZE).max(axis=(1, 2), initial=0))


@pytest.mark.parametrize(
    ("size", "asked", "taken"),
    [(SIZE, 3, 3), ((1000, 500), 100, 12), ((1000, 500), 5, 5), ((8000, 2000), 100, 1)],
)
def test_no_more_threads_than_64_mb_of_strips(
    size: tuple[int, int], asked: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread has a strip of 256 rows in float64, and the columns that it is made of."""
    seen: list[tuple[int, int]] = []

    def nothing(items: Array, work: object, threads: int, ahead: int, name: str) -> Iterator[Any]:
        seen.append((threads, ahead))
        yield from ()

    monkeypatch.setattr(anomaly_map, "in_order", nothing)
    raw_scores(np.zeros((2, 5, 7), np.float32), size, asked)
    assert seen == [(taken, 2 * taken)]


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DeviceError, match="give fewer by --threads"):
        raw_scores(np.zeros((4, 5, 7), np.float32), SIZE, threads=2)


def test_as_many_threads_as_planned(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be fewer than were asked for, where memory is short."""
    plan, taken = Planner.plan, list[int]()

    def fewer(self: Planner, images: int, **options: object) -> Plan:
        return replace(plan(self, images, **options), threads=1)  # type: ignore[arg-type]

    def scores(maps: Array, size: tuple[int, int], threads: int) -> Array:
        taken.append(threads)
        return raw_scores(maps, size, threads)

    monkeypatch.setattr(Planner, "plan", fewer)
    monkeypatch.setattr(pipeline, "raw_scores", scores)
    for k in range(6):
        write_png(tmp_path / f"{k}.png", (16, 24), seed=k)
    score_lot(tmp_path, tiny_bundle, resources=Resources(threads=3, backend="cpu", scorer="numpy"))
    assert taken
    assert set(taken) == {1}
