"""Scores by residual: against an SVD of all patches, the same bytes always, and what is refused."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import DeviceError, LotError
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scorers import open_scorer
from musc_edge.runtime.scoring.cautions import copy_caution
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.scoring.residual import SHARE, ResidualScorer
from musc_edge.runtime.scoring.subspace import count_outside
from musc_edge.runtime.settings import RESIDUAL, Resources, ScoreSettings
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import FileStore, HostStore
from musc_edge.runtime.store.kept_entries import Batch
from musc_edge.runtime.store.tables import FileRows
from musc_edge.runtime.timing import StageTimer
from musc_edge.runtime.types import Copies, FeatureStore
from musc_edge.runtime.verdict.judged_lot import JudgedLot, MadeBy
from support import oracle
from support.emulated_gpu import EmulatedGpu
from support.scorer_checks import put_on_device

Array = npt.NDArray[Any]
Grid = tuple[int, int]


def lot_of(images: int, grid: Grid, width: int, layers: int = 1, seed: int = 0, noise: float = 0.3) -> Array:
    """Tokens (S,N,P,C) with a few strong directions in common, and noise."""
    generator = np.random.default_rng(seed)
    patches = grid[0] * grid[1]
    directions = generator.normal(size=(layers, 1, 3, width))
    tokens = generator.normal(size=(layers, images, patches, 3)) @ directions
    return np.asarray(tokens + noise * generator.normal(size=tokens.shape) + 2, np.float32)


def store_of(tokens: Array) -> HostStore:
    return HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))


def scored(
    store: FeatureStore,
    grid: Grid,
    degrees: Sequence[int] = (1, 3, 5),
    needs: HostNeeds | None = None,
    **how: Any,
) -> Array:
    """Residuals (N,P) of a store's images."""
    scorer = ResidualScorer(Method(grid, tuple(degrees), by=RESIDUAL))
    plan = scorer.plan(store.shape, store.dtype.itemsize, needs or HostNeeds())
    return scorer.score(store, plan, **how)


def check(tokens: Array, grid: Grid, degrees: Sequence[int] = (1, 3, 5)) -> Array:
    """Assert that the scores agree with the oracle's; return them."""
    scores = scored(store_of(tokens), grid, degrees)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(
        scores, oracle.residual_scores(tokens, grid, degrees, SHARE), rtol=0, atol=2e-6
    )
    return scores


# ---- against the oracle ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "grid", "width", "layers", "degrees"),
    [
        (7, (3, 4), 12, 2, (1, 3, 5)),
        (5, (7, 3), 8, 3, (3,)),
        (40, (2, 3), 16, 1, (1, 101)),  # more than one block of images
        (6, (1, 1), 12, 1, (1,)),
        (6, (2, 2), 2, 1, (1,)),  # one direction is left
    ],
)
def test_scores_are_what_an_svd_of_all_patches_leaves(
    images: int, grid: Grid, width: int, layers: int, degrees: tuple[int, ...]
) -> None:
    assert check(lot_of(images, grid, width, layers), grid, degrees).max() > 0.01


def test_half_precision_tokens_are_taken_as_they_are() -> None:
    tokens = lot_of(8, (3, 3), 10).astype(np.float16)
    check(tokens, (3, 3))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scores_do_not_depend_on_the_scale_of_the_tokens(scale: float) -> None:
    tokens = lot_of(8, (3, 3), 10)
    near = scored(store_of(tokens * np.float32(scale)), (3, 3)) - scored(store_of(tokens), (3, 3))
    assert np.abs(near).max() < 1e-6


def test_lots_with_fewer_patches_than_directions() -> None:
    check(lot_of(5, (1, 2), 64), (1, 2))


def test_lots_that_fill_few_directions() -> None:
    """Two directions and their mean hold all patches: what lies outside of the first is in the second."""
    generator = np.random.default_rng(3)
    tokens = generator.normal(size=(1, 7, 6, 2)) @ generator.normal(size=(2, 20))
    check(tokens.astype(np.float32), (2, 3))


def test_an_image_without_content_among_others() -> None:
    tokens = lot_of(9, (3, 4), 12)
    tokens[0, 4] = 0.7
    scores = check(tokens, (3, 4), (1, 3))
    assert np.ptp(scores[4]) < 1e-6


@pytest.mark.parametrize("value", [0.0, 0.1, -3e38])
def test_a_lot_without_content_scores_zero(value: float) -> None:
    assert not scored(store_of(np.full((2, 6, 12, 8), value, np.float32)), (3, 4)).any()


def test_an_odd_patch_scores_highest() -> None:
    tokens = lot_of(30, (4, 4), 16, noise=0.01)
    odd = np.random.default_rng(9).normal(size=16).astype(np.float32)
    tokens[0, 11, 6] += 8 * (odd - odd.mean())
    scores = check(tokens, (4, 4), (1,))
    assert int(scores.argmax()) == 11 * 16 + 6


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1, 2, 3, 94], 0.94, 3),  # reached exactly by one
        ([1, 2, 3, 94], 0.95, 2),
        ([1, 1, 1, 1], 0.95, 1),  # all four would make it up, and one is left
        ([0, 0, 0, 5], 0.95, 3),
        ([-1e-18, 0, 0, 0], 0.95, 4),  # nothing varies
        ([5], 0.95, 1),
    ],
)
def test_how_many_directions_are_outside(values: list[float], share: float, expected: int) -> None:
    assert count_outside(np.array(values, np.float64), share) == expected


def test_another_share_leaves_more_or_less() -> None:
    tokens, method = lot_of(12, (3, 4), 16), Method((3, 4), (1,), by=RESIDUAL)
    store, sums = store_of(tokens), []
    for share in (0.5, 0.9, 0.99):
        scorer = ResidualScorer(method, share)
        scores = scorer.score(store, scorer.plan(store.shape, 4))
        expected = oracle.residual_scores(tokens, (3, 4), (1,), share)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6)
        sums.append(scores.sum())
    assert sums == sorted(sums, reverse=True)


def test_copies_are_not_told_to_judge_apart() -> None:
    copies = [Copies(("a.png", "b.png"), (("a.png", "b.png"),))]
    (text,) = copy_caution(copies, judge=True, by=RESIDUAL)
    assert text.endswith(
        "a defect that is on several of them scores too low. Keep one of each, with --exclude"
    )


# ---- the same bytes --------------------------------------------------------------------------


def test_bytes_depend_on_neither_threads_nor_memory(tmp_path: Path) -> None:
    tokens = lot_of(70, (4, 8), 40, layers=2)
    store = store_of(tokens)
    expected = scored(store, (4, 8)).tobytes()
    rows = FileRows((2 * 75, 32 * 40), np.float32, tmp_path)
    in_file = FileStore(rows, store.shape, np.float32, store.cls, room=75)
    in_file.slot(0, 70).tokens[:] = tokens
    in_file.put(0, 70)
    for threads in (1, 2, 5):
        for where in (store, in_file):
            assert scored(where, (4, 8), needs=HostNeeds(threads=threads)).tobytes() == expected


def test_tokens_on_a_gpu_give_the_same_bytes(kernel_library: Path) -> None:
    store = store_of(lot_of(9, (2, 3), 8, layers=2))
    with GpuThread(lambda: EmulatedGpu(kernel_library)) as device:
        scorer = CudaScorer(Method((2, 3)), device)
        there = put_on_device(scorer, store, scorer.plan(store.shape, 4))
        assert there is not None
        assert scored(there, (2, 3)).tobytes() == scored(store, (2, 3)).tobytes()


# ---- a run -----------------------------------------------------------------------------------


def kept_work(folder: Path, store: HostStore) -> Checkpoint:
    """The work that is kept in ``folder`` when the features of ``store`` have just been made."""
    kept = Checkpoint(folder, {}, {})
    kept.keep_batch(0, store, (0, store.shape[1]), Batch([str(i) for i in range(store.shape[1])], []))
    return kept


def test_finished_layers_are_not_read_again(tmp_path: Path) -> None:
    store = store_of(lot_of(9, (2, 3), 8, layers=3))
    with closing(kept_work(tmp_path, store)) as kept:
        first = scored(store, (2, 3), kept=kept)
    (tmp_path / "layer_1.npy").unlink()
    read = []

    class Watched(HostStore):
        def block(self, layer: int, i0: int, i1: int) -> Array:
            read.append(layer)
            return super().block(layer, i0, i1)

    with closing(kept_work(tmp_path, store)) as kept:
        read.clear()
        seen: list[tuple[str, float, float, str]] = []
        again = scored(
            Watched(store.tokens, store.cls), (2, 3), kept=kept, progress=lambda *call: seen.append(call)
        )
        assert "scores of 2 layers come from an earlier, interrupted run" in kept.notes
    assert again.tobytes() == first.tobytes()
    assert set(read) == {1}
    assert list(seen[0]) == ["score", 18, 54, "reads"]
    assert [call[1] for call in seen] == sorted(call[1] for call in seen)
    assert seen[-1][1] == 54


def test_an_interrupt_ends_all_threads() -> None:
    store = store_of(lot_of(300, (4, 4), 8, layers=2))
    threads = set(threading.enumerate())

    def interrupt(stage: str, done: float, total: float, unit: str) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(store, (4, 4), needs=HostNeeds(threads=3), progress=interrupt)
    assert set(threading.enumerate()) == threads


def test_the_work_is_timed() -> None:
    timer = StageTimer()
    scored(store_of(lot_of(40, (4, 4), 8, layers=2)), (4, 4), timer=timer)
    assert {name: len(spans) for name, spans in timer.spans().items()} == {
        "covariance": 2 * 3, "components": 2, "residual": 2 * 3
    }  # fmt: skip


@pytest.mark.parametrize("region", [False, True])
def test_memory_is_as_planned(region: bool) -> None:
    inside = np.ones((64, 256), bool) if region else None
    shape = (2, 64, 256, 96)
    store = store_of(np.random.default_rng(0).standard_normal(shape, np.float32))
    scorer = ResidualScorer(Method((16, 16), by=RESIDUAL))
    plan = scorer.plan(shape, 4, HostNeeds(threads=2))
    tracemalloc.start()
    try:
        scorer.score(store, plan, inside=inside)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.3 * plan.workspace_bytes < used <= plan.workspace_bytes + 500_000


def test_a_short_budget_takes_the_tokens_to_a_file() -> None:
    scorer = ResidualScorer(Method((16, 16), (1,), by=RESIDUAL))
    shape = (4, 100_000, 256, 384)
    plan = scorer.plan(shape, 2, HostNeeds(4_000_000_000, threads=2))
    assert plan.tokens_on_disk
    assert plan.disk_bytes == plan.token_bytes == 4 * 100_000 * 256 * 384 * 2
    assert plan.memory_bytes < 1_000_000_000
    with pytest.raises(LotError, match="the smallest that works is"):
        scorer.plan(shape, 2, HostNeeds(100_000_000))
    assert not scorer.plan(shape, 2).tokens_on_disk
    assert scorer.plan(shape, 2, HostNeeds(keep=True)).tokens_on_disk


def test_the_forecast_grows_with_the_lot() -> None:
    scorer = ResidualScorer(Method((4, 4), by=RESIDUAL))
    few, many = ((2, n, 16, 8) for n in (10, 10_000_000))
    assert 0 < scorer.seconds(few, scorer.plan(few, 4)) < scorer.seconds(many, scorer.plan(many, 4))


def test_the_version_names_share_and_libraries() -> None:
    version = ResidualScorer(Method((1, 1))).version
    assert version.startswith(f"residual 0.95, numpy {np.__version__}")
    assert len(version.split(", ")) > 2  # the BLAS that numpy has


# ---- what is refused -------------------------------------------------------------------------


def test_too_few_images_are_refused() -> None:
    with pytest.raises(LotError, match="4 images are too few to tell what is common"):
        scored(store_of(lot_of(4, (2, 2), 8)), (2, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_with_tokens_that_are_not_finite_are_named(value: float) -> None:
    tokens = lot_of(40, (4, 4), 8, layers=2)
    tokens[1, [7, 31], 3, 2] = value
    with pytest.raises(LotError, match=r"tokens of layer 1 .* not finite, in images 7, 31 \(counted from 0"):
        scored(store_of(tokens), (4, 4))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"interval": (0.1, 0.5)}, r"interval \(0.1, 0.5\)"),
        ({"group_size": 9}, "group size 9"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(LotError, match=f"{named} has no meaning by residual"):
        ScoreSettings(by=RESIDUAL, **settings)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(LotError, match="by 'magic': expected pairs or residual"):
        ScoreSettings(by="magic")


@pytest.mark.parametrize(
    "resources", [Resources(scorer="cuda"), Resources(scorer="numba"), Resources(device_memory=10**9)]
)
def test_resources_without_meaning_are_refused(resources: Resources) -> None:
    method = Method((2, 2), by=RESIDUAL)
    with pytest.raises(DeviceError, match="has no meaning by residual"), open_scorer(method, resources):
        pass
    with open_scorer(method) as scorer:
        assert scorer.kind == RESIDUAL


def test_limits_of_a_lot_by_pairs_do_not_serve() -> None:
    pairs = MadeBy("bundle", (1,), (0.0, 0.3), 8, 40)
    lot = JudgedLot("other", "all", (0.3,), (), pairs)
    assert lot.compare(pairs) == ()
    with pytest.raises(LotError, match="other was scored with by pairs, this lot with residual"):
        lot.compare(replace(pairs, by=RESIDUAL))
