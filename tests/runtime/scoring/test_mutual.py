"""Mutual scoring: whatever the plan or the threads, the same bytes; by all or by a few; what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.interval import interval_bounds, interval_mean, smallest_lot
from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer, mutual_scores
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.types import FloatArray
from support import oracle
from support.lots import every_plan, random_store
from support.places import ROOT

Shape = tuple[int, int, int, int]
GRIDS = {6: (2, 3), 12: (3, 4), 30: (5, 6), 1024: (32, 32)}


def scorer_of(
    shape: Shape, kind: str = "auto", group: int | None = None, scratch: Path | None = None
) -> CpuScorer:
    return CpuScorer(Method(GRIDS[shape[2]], group_size=group), kind, scratch=scratch)


def score(scorer: CpuScorer, shape: Shape, threads: int = 1) -> FloatArray:
    return scorer.score(random_store(1, shape), scorer.plan(shape, 4, HostNeeds(threads=threads)))


# ---- the same bytes --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "numba"])
@pytest.mark.parametrize(
    ("shape", "group"),
    [((2, 7, 12, 8), None), ((1, 7, 1024, 4), None), ((1, 60, 30, 4), None), ((2, 90, 12, 8), 9)],
)
@pytest.mark.slow
def test_plan_changes_no_byte(shape: Shape, group: int | None, kind: str, tmp_path: Path) -> None:
    scorer = scorer_of(shape, kind, group, tmp_path)
    store = random_store(1, shape)
    plans = every_plan(scorer, shape, threads=2)
    assert len({(p.blocks_in_memory, p.tokens_on_disk, p.cosines_on_disk) for p in plans}) >= 3
    expected = scorer.score(store, plans[0])
    for plan in plans[1:]:
        assert scorer.score(store, plan).tobytes() == expected.tobytes()
    assert not list(tmp_path.iterdir())  # scratch files have no name


@pytest.mark.parametrize("kind", ["numpy", "numba"])
@pytest.mark.parametrize(("shape", "group"), [((2, 40, 30, 16), None), ((1, 41, 30, 16), 7)])
@pytest.mark.slow
def test_threads_and_repeated_runs_change_no_byte(shape: Shape, group: int | None, kind: str) -> None:
    scorer = scorer_of(shape, kind, group)
    assert len({score(scorer, shape, threads).tobytes() for threads in (1, 1, 2, 3)}) == 1


def test_twins_agree() -> None:
    shape = (2, 20, 30, 16)
    one, other = (score(scorer_of(shape, kind), shape) for kind in ("numpy", "numba"))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.long
@pytest.mark.slow
def test_plan_changes_no_byte_on_another_core(tmp_path: Path) -> None:
    """OpenBLAS picks other kernels on other processors; some change results with the shapes."""
    code = (
        "import sys\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "from support.lots import every_plan, random_store\n"
        "from musc_edge.runtime.scoring.method import Method\n"
        "from musc_edge.runtime.scoring.mutual import CpuScorer\n"
        "shape = (1, 7, 1024, 64)\n"
        "scorer, store = CpuScorer(Method((32, 32))), random_store(3, shape)\n"
        "print(len({scorer.score(store, p).tobytes() for p in every_plan(scorer, shape, threads=2)}))\n"
    )
    env = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}
    folder = str(ROOT / "tests")
    run = subprocess.run(
        [sys.executable, "-c", code, folder], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "1"


# ---- by a few --------------------------------------------------------------------------------


def scores_by_judges(tokens: oracle.Numbers, grid: tuple[int, int], degree: int, group: int) -> oracle.Floats:
    """Mutual scores (N,P) of tokens (N,P,C) as the oracle's, but over each image's judges only."""
    N = len(tokens)
    judges = choose(N, group)
    images = [oracle.layer_norm(image.astype(np.float64)) for image in tokens]
    units = [oracle.normalise(oracle.aggregate(image, grid, degree)) for image in images]
    scores = np.zeros(tokens.shape[:2])
    for place, i in enumerate(judges.order):
        nearest = np.sort(
            [
                np.sqrt(((units[i][:, None] - units[j]) ** 2).sum(axis=2).min(axis=1))
                for j in judges.order[judges.of(place)]
            ],
            axis=0,
        )
        scores[i] = nearest[int(0.1 * judges.count) : int(0.6 * judges.count)].mean(axis=0)
    return scores


@pytest.mark.parametrize(
    ("images", "group"), [(12, 4), (12, 5), (13, 4), (13, 5), (13, 12), (40, 7), (40, 38)]
)
def test_a_group_scores_as_the_oracle_by_its_judges(images: int, group: int) -> None:
    shape = (1, images, 12, 8)
    store = random_store(6, shape)
    scorer = CpuScorer(Method((3, 4), (3,), (0.1, 0.6), group_size=group))
    scores = scorer.score(store, scorer.plan(shape, 4))
    expected = scores_by_judges(store.tokens[0], (3, 4), 3, group)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_a_group_as_large_as_the_lot_scores_as_the_lot() -> None:
    shape = (2, 11, 12, 8)
    expected = score(scorer_of(shape), shape)
    for group in (10, 11, 1000):
        assert score(scorer_of(shape, group=group), shape).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("interval", "least"), [((0.0, 0.3), 4), ((0.0, 1.0), 4), ((0.0, 0.1), 10)])
def test_groups_that_are_too_small_for_the_interval_are_refused(
    interval: tuple[float, float], least: int
) -> None:
    CpuScorer(Method((2, 3), interval=interval, group_size=least))
    message = f"group size of {least - 1} is too small.*at least {least} other images"
    with pytest.raises(LotError, match=message):
        CpuScorer(Method((2, 3), interval=interval, group_size=least - 1))


# ---- progress, and what is refused -----------------------------------------------------------


@pytest.mark.parametrize(("group", "pairs"), [(None, 45 * 44 // 2), (6, 45 * 6 // 2)])
@pytest.mark.parametrize("threads", [1, 2])
def test_progress_counts_pairs_up_to_all_of_them(group: int | None, pairs: int, threads: int) -> None:
    shape = (2, 45, 12, 4)
    scorer = CpuScorer(Method((3, 4), (1, 3), group_size=group))
    seen: list[tuple[str, float, float, str]] = []
    plan = scorer.plan(shape, 4, HostNeeds(threads=threads))
    scorer.score(random_store(4, shape), plan, lambda *args: seen.append(args))
    described = [call for call in seen if call[0] == "describe"]
    assert described == [("describe", k + 1, 90, "images") for k in range(90)]
    seen = seen[90:]
    assert {(stage, total, unit) for stage, _, total, unit in seen} == {("score", 2 * pairs, "pairs")}
    done = [d for _, d, _, _ in seen]
    assert done[0] == 0
    assert done[-1] == 2 * pairs
    assert done == sorted(done)
    assert max(np.diff(done)) <= 16 * 16  # bars move by a cell at most


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("group", [None, 4])
def test_images_that_are_not_finite_are_named_before_any_is_compared(value: float, group: int | None) -> None:
    shape = (2, 9, 6, 4)
    store = random_store(5, shape)
    store.tokens[1, 3, 2, 1] = store.tokens[1, 7, 5, 3] = value
    scorer = CpuScorer(Method((2, 3), group_size=group))
    seen: list[str] = []
    with pytest.raises(LotError, match=r"layer 1 .*not finite, in images 3, 7 \(counted from 0\)"):
        scorer.score(store, scorer.plan(shape, 4, HostNeeds(threads=2)), lambda stage, *_: seen.append(stage))
    assert set(seen) == {"describe"}


@pytest.mark.parametrize(
    ("images", "interval", "bounds"),
    [
        (5, (0.0, 0.3), (0, 1)),
        (11, (0.1, 0.5), (1, 5)),
        (31, (0.0, 0.3), (0, 9)),
        (8, (0.0, 1.0), (0, 7)),
        (10, (0.5, 1.0), (4, 9)),
    ],
)
def test_interval_bounds(images: int, interval: tuple[float, float], bounds: tuple[int, int]) -> None:
    assert interval_bounds(images, interval) == bounds


@pytest.mark.parametrize("images", [0, 1, 2, 3, 4])
def test_small_lots_are_refused_with_the_least_that_works(images: int) -> None:
    with pytest.raises(LotError, match=rf"{images} images? (is|are) too few.*at least 5 images"):
        interval_bounds(images, (0.0, 0.3))


def test_smallest_lot_of_a_narrow_interval_works() -> None:
    interval = (0.2, 0.21)
    least = smallest_lot(interval)
    assert least == 25  # the first of which a fifth of the others and 0.21 of them are not the same number
    interval_bounds(least, interval)
    with pytest.raises(LotError, match=f"at least {least} images"):
        interval_bounds(6, interval)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 7), (2, 5), (6, 7), (3, 4)])
def test_interval_mean_is_the_mean_of_the_sorted_slice(start: int, stop: int) -> None:
    distances = np.random.default_rng(5).random((7, 9)).astype(np.float32)
    expected = np.sort(distances, axis=0)[start:stop].mean(axis=0)
    np.testing.assert_allclose(interval_mean(distances, start, stop), expected, rtol=1e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 900), (0, 2999), (100, 900), (2000, 3000)])
def test_interval_mean_of_a_large_lot(start: int, stop: int) -> None:
    """NumPy sorts few numbers whole, where it is asked for a part: only many show whether that was enough."""
    distances = np.random.default_rng(6).random((3000, 4)).astype(np.float32)
    expected = np.sort(distances, axis=0)[start:stop].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(interval_mean(distances, start, stop), expected, rtol=1e-7)


@pytest.mark.parametrize("degrees", [(), (2,), (1, 4), (0,), (-3,)])
def test_unusable_degrees_are_refused(degrees: tuple[int, ...]) -> None:
    with pytest.raises(LotError, match="odd"):
        mutual_scores(np.zeros((1, 5, 4, 2), np.float32), (2, 2), degrees)


def test_interval_that_this_lot_leaves_empty_and_a_smaller_one_does_not() -> None:
    """8 images have 7 distances: from 0.3 to 0.4 of them there is none, with 6 images there was one."""
    with pytest.raises(LotError, match=r"8 images are too few.* 7 other images is.*at least 9 images"):
        interval_bounds(8, (0.3, 0.4))
    interval_bounds(6, (0.3, 0.4))
    with pytest.raises(LotError, match="choose a group size of 8"):
        CpuScorer(Method((2, 3), interval=(0.3, 0.4), group_size=7)).judges(100)


def test_grids_and_threads_of_any_kind() -> None:
    tokens = random_store(7, (1, 6, 12, 4)).tokens
    expected = mutual_scores(tokens, (3, 4), threads=1)
    for grid in ([3, 4], np.array([3, 4])):
        assert mutual_scores(tokens, grid, threads=2).tobytes() == expected.tobytes()  # type: ignore[arg-type]
