"""Mutual scoring in blocks: whatever the plan, the same bytes; and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.mutual import NumpyScorer, interval_bounds, interval_mean, mutual_scores, smallest_lot
from musc_edge.runtime.plan import make_plan
from musc_edge.runtime.store import HostStore
from musc_edge.runtime.types import FloatArray, Plan


def store_of(seed: int, shape: tuple[int, int, int, int]) -> HostStore:
    tokens = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return HostStore(tokens, np.empty((shape[1], 0), np.float32))


def every_plan(shape: tuple[int, int, int, int]) -> list[Plan]:
    """All plans that differ for a lot, found by lowering the budget to the smallest that works."""
    plans = [make_plan(shape, 4, None)]
    while True:
        try:
            plans.append(make_plan(shape, 4, plans[-1].memory_bytes - 1))
        except LotError:
            return plans


def score(store: HostStore, plan: Plan, scratch: Path | None = None) -> FloatArray:
    grid = {12: (3, 4), 1024: (32, 32), 30: (5, 6)}[store.shape[2]]
    return NumpyScorer(grid, scratch=scratch).score(store, plan)


@pytest.mark.parametrize("shape", [(2, 7, 12, 8), (1, 9, 1024, 4), (1, 200, 30, 4)])
def test_plan_changes_no_byte(shape: tuple[int, int, int, int], tmp_path: Path) -> None:
    store = store_of(1, shape)
    plans = every_plan(shape)
    assert len({(p.resident, p.tokens_on_disk, p.minima_on_disk) for p in plans}) >= 3
    expected = score(store, plans[0])
    for plan in plans[1:]:
        assert score(store, plan, tmp_path).tobytes() == expected.tobytes()
    assert not list(tmp_path.iterdir())  # scratch files have no name


def test_repeated_runs_give_the_same_bytes() -> None:
    store = store_of(2, (2, 20, 30, 16))
    plan = make_plan(store.shape, 4, None)
    assert len({score(store, plan).tobytes() for _ in range(3)}) == 1


def test_plan_changes_no_byte_on_another_core(tmp_path: Path) -> None:
    """OpenBLAS picks other kernels on other processors; some change results with the shapes."""
    code = (
        "import numpy as np, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_mutual as t\n"
        "store = t.store_of(3, (1, 9, 1024, 64))\n"
        "print(len({t.score(store, p).tobytes() for p in t.every_plan(store.shape)}))\n"
    )
    env = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}
    folder = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", code, folder], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "1"


def test_progress_counts_pairs_up_to_all_of_them() -> None:
    store = store_of(4, (2, 11, 12, 4))
    seen: list[tuple[str, float, float, str]] = []
    NumpyScorer((3, 4), (1, 3)).score(store, make_plan(store.shape, 4, None), lambda *args: seen.append(args))
    pairs = 11 * 10 // 2 * 2 * 2
    assert list(seen[-1]) == ["score", pairs, pairs, "pairs"]
    done = [s[1] for s in seen]
    assert done == sorted(done)
    assert max(np.diff([0, *done])) <= 10  # one image against the rest: bars move steadily


@pytest.mark.parametrize(
    ("images", "interval", "bounds"),
    [(5, (0.0, 0.3), (0, 1)), (11, (0.1, 0.5), (1, 5)), (31, (0.0, 0.3), (0, 9)), (8, (0.0, 1.0), (0, 7))],
)
def test_interval_bounds(images: int, interval: tuple[float, float], bounds: tuple[int, int]) -> None:
    assert interval_bounds(images, interval) == bounds


@pytest.mark.parametrize("images", [0, 1, 2, 3, 4])
def test_small_lots_are_refused_with_the_least_that_works(images: int) -> None:
    with pytest.raises(LotError, match=rf"{images} images are too few.*at least 5 images"):
        interval_bounds(images, (0.0, 0.3))


def test_smallest_lot_of_a_narrow_interval_works() -> None:
    interval = (0.2, 0.21)
    least = smallest_lot(interval)
    assert least > 5
    interval_bounds(least, interval)
    with pytest.raises(LotError, match=f"at least {least} images"):
        interval_bounds(6, interval)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 7), (2, 5), (6, 7), (3, 4)])
def test_interval_mean_is_the_mean_of_the_sorted_slice(start: int, stop: int) -> None:
    distances = np.random.default_rng(5).random((7, 9)).astype(np.float32)
    expected = np.sort(distances, axis=0)[start:stop].mean(axis=0)
    np.testing.assert_allclose(interval_mean(distances, start, stop), expected, rtol=1e-6)


@pytest.mark.parametrize("degrees", [(), (2,), (1, 4), (0,), (-3,)])
def test_unusable_degrees_are_refused(degrees: tuple[int, ...]) -> None:
    with pytest.raises(LotError, match="odd"):
        mutual_scores(np.zeros((1, 5, 4, 2), np.float32), (2, 2), degrees)
