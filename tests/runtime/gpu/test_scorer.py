"""CudaScorer on an emulated GPU: against the float64 oracle and the authors' numbers, by every plan alike."""

from __future__ import annotations

import gc
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.kernels.cuda_source import HOPPER
from musc_edge.kernels.errors import KernelError
from musc_edge.kernels.gpu import DeviceArray, Gpu, Launch, Stream
from musc_edge.kernels.precisions import HALF, INT8
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import DeviceError, LotError
from musc_edge.runtime.gpu import plan as device_plan
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds, LotSize
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.features import HostStore, UploadStore
from musc_edge.runtime.store.kept_entries import Batch
from musc_edge.runtime.timing import StageTimer
from musc_edge.runtime.types import DevicePlan, DeviceSlot
from support import oracle
from support.emulated_gpu import EmulatedGpu
from support.places import golden_folder
from support.scorer_checks import check_scorer, fill, make_lot

pytestmark = pytest.mark.long

Array = npt.NDArray[Any]
Shape = tuple[int, int, int, int]
GOLDEN = sorted(golden_folder().glob("mutual_*.npz"))
FINE = 3e-4
"""What half precision may cost in a score of random and narrow tokens; test_precision.py is stricter."""
COARSE = 2e-3
"""And what int8 may."""


class Place:
    """Emulated GPUs, each in a thread of its own, and whether all that they gave was given back."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self.gpus: list[EmulatedGpu] = []

    def device(self, seed: int = 0, memory: int = 1 << 30) -> GpuThread:
        def opened() -> EmulatedGpu:
            self.gpus.append(EmulatedGpu(self._library, seed, memory))
            return self.gpus[-1]

        return GpuThread(opened)


def left(device: GpuThread) -> tuple[int, int]:
    """Bytes and arrays that are allocated now."""
    return device.run(lambda gpu: (gpu._used, len(gpu._memory)))  # type: ignore[attr-defined]


@pytest.fixture
def place(kernel_library: Path) -> Place:
    return Place(kernel_library)


@pytest.fixture
def device(place: Place) -> Iterator[GpuThread]:
    """An emulated GPU that holds nothing any more when a test is over."""
    with place.device() as opened:
        yield opened
        assert left(opened) == (0, 0)


def store_of(shape: Shape, dtype: str = "float32", seed: int = 0) -> HostStore:
    """Random tokens (S,N,P,C) with a common part, as those of a lot have."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(shape[3]) + 0.5 * rng.standard_normal((shape[0], 1, *shape[2:]))
    tokens = (common + rng.standard_normal(shape)).astype(dtype)
    return HostStore(tokens, np.empty((shape[1], 0), np.float32))


def upload(there: DeviceArray, values: Array, gpu: Gpu) -> None:
    """As a backend that fills the device."""
    gpu.upload(there, values, gpu.default_stream())


def score(scorer: CudaScorer, store: HostStore, plan: DevicePlan | None = None) -> Array:
    """Scores by ``plan``, or that for what is free; the tokens are put on the device if the plan says so."""
    chosen = scorer.plan(store.shape, store.dtype.itemsize)
    chosen = replace(chosen, device=plan) if plan else chosen
    resident = scorer.device_store(store.shape, store.dtype, store.cls, chosen)
    if resident is None:
        return scorer.score(store, chosen)
    try:
        fill(resident, store.tokens, batch=4)
        return scorer.score(resident, chosen)
    finally:
        scorer.device.run(lambda gpu: gpu.free(resident._arena))


# ---- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "grid", "degrees", "interval"),
    [
        ((2, 5, 6, 33), (2, 3), (1, 3, 5), (0.0, 0.3)),
        ((1, 9, 1, 8), (1, 1), (1,), (0.0, 1.0)),
        ((1, 12, 10, 20), (5, 2), (3, 7), (0.3, 0.7)),
        ((1, 25, 2, 8), (1, 2), (3,), (0.1, 0.5)),
        ((1, 5, 132, 5), (11, 12), (5,), (0.0, 0.3)),
    ],
)
def test_scores_are_the_oracle_s(
    device: GpuThread, shape: Shape, grid: tuple[int, int], degrees: tuple[int, ...],
    interval: tuple[float, float], dtype: str,
) -> None:  # fmt: skip
    store = store_of(shape, dtype, seed=shape[1])
    scores = score(CudaScorer(Method(grid, degrees, interval), device), store)
    assert scores.dtype == np.float32
    expected = oracle.mutual_scores(store.tokens, grid, degrees, interval)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=FINE)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scores_in_int8_are_nearly_the_oracle_s(device: GpuThread, dtype: str) -> None:
    store, grid = store_of((2, 7, 12, 200), dtype), (3, 4)
    scores = score(CudaScorer(Method(grid), device, precision=INT8), store)
    expected = oracle.mutual_scores(store.tokens, grid, (1, 3, 5), (0.0, 0.3))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=COARSE)
    error = np.abs(scores - expected).max()
    assert error > FINE / 10, "as exact as half precision: was it int8?"


def test_copies_in_int8_are_at_distance_zero(device: GpuThread) -> None:
    """Exactly, as images and whatever their rows' scales are."""
    store = store_of((1, 6, 12, 70))
    store.tokens[0, 1::2] = store.tokens[0, ::2]
    scores = score(CudaScorer(Method((3, 4), (1, 3), (0.0, 0.2)), device, precision=INT8), store)
    assert not scores.any()


def test_excluded_patches_are_nobody_s_neighbor_in_int8(device: GpuThread) -> None:
    store, inside = store_of((1, 7, 12, 200)), np.ones((7, 12), bool)
    store.tokens[0, 3, 9:] = store.tokens[0, 5, :3]  # equal, and no neighbors
    inside[:, 9:] = False
    method = Method((3, 4), (1,))
    by_gpu, by_cpu = CudaScorer(method, device, precision=INT8), CpuScorer(method, "numpy")
    found = by_gpu.score(store, by_gpu.plan(store.shape, 4, HostNeeds(keep=True)), inside=inside)
    expected = by_cpu.score(store, by_cpu.plan(store.shape, 4), inside=inside)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=COARSE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(2, 7, 6, 64), (3, 7, 2, 65)])
def test_a_store_on_the_device_finds_what_is_not_finite(
    device: GpuThread, shape: Shape, dtype: str, value: float
) -> None:
    """Written directly, or uploaded where images do not begin on addresses that TensorRT can write to."""
    tokens = np.full(shape, 3e4, dtype)
    tokens[0, 2, -1, -1] = tokens[-1, 5, 0, 0] = value
    scorer = CudaScorer(Method((2, shape[2] // 2)), device)
    plan = scorer.plan(shape, tokens.itemsize)
    cls = np.zeros((7, 3), np.float32)
    cls[4, 1] = value
    resident = scorer.device_store(shape, dtype, cls, plan)
    assert resident is not None
    store = resident.for_backend(fills_device=True)
    direct = shape[3] == 64
    assert isinstance(store, UploadStore) != direct
    for i0, i1 in ((0, 3), (3, 7)):
        slot = store.slot(i0, i1)
        if isinstance(slot, DeviceSlot):
            for there, part in zip(slot.tokens, tokens[:, i0:i1], strict=True):
                device.run(partial(upload, there, part))
        else:
            slot.tokens[:] = tokens[:, i0:i1]
        assert store.finite(i0, i1).tolist() == [i not in (2, 4, 5) for i in range(i0, i1)]
    device.run(lambda gpu: gpu.free(store._arena))


@pytest.mark.parametrize(("images", "group"), [(12, 4), (12, 5), (13, 5), (25, 7)])
def test_a_group_scores_as_the_oracle_by_its_judges(device: GpuThread, images: int, group: int) -> None:
    store, grid, interval = store_of((1, images, 6, 8), seed=group), (2, 3), (0.1, 0.6)
    scores = score(CudaScorer(Method(grid, (3,), interval, group), device), store)
    judges = choose(images, group)
    for place, image in enumerate(judges.order):
        lot = store.tokens[:, [image, *judges.order[judges.of(place)]]]
        expected = oracle.mutual_scores(lot, grid, (3,), interval)[0]
        np.testing.assert_allclose(scores[image], expected, rtol=0, atol=FINE)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_scores_of_a_layer_are_the_authors(device: GpuThread, path: Path) -> None:
    """Within 1e-4, or 2e-4 where tokens are only 16 wide: there single values weigh more."""
    with np.load(path) as golden:
        tokens, degrees = golden["tokens"][-1:], tuple(map(int, golden["degrees"]))
        last = len(golden["tokens"]) - 1
        expected = np.mean([golden[f"r{degree}_s{last}"] for degree in degrees], axis=0)
    side, width = round(tokens.shape[2] ** 0.5), tokens.shape[3]
    store = HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
    scores = score(CudaScorer(Method((side, side), degrees), device), store)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 if width > 16 else 2e-4)


# ---- plans -----------------------------------------------------------------------------------


def plans_of(size: LotSize, precision: str) -> list[DevicePlan]:
    """All plans that differ in what is on the device at once."""
    plans = device_plan._candidates(size, 1 << 30, precision)
    found = {(p.block, p.ring, p.panel, p.streamed): p for p in plans}
    return list(found.values())


@pytest.mark.parametrize(("group", "precision"), [(None, HALF), (5, HALF), (None, INT8)])
@pytest.mark.slow
def test_no_plan_and_no_order_of_work_changes_a_byte(
    place: Place, group: int | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, grid = (2, 8, 4, 5), (2, 2)
    monkeypatch.setattr(device_plan, "BLOCK_BYTES", 3 * 4 * 5 * 4)
    monkeypatch.setattr(device_plan, "LAUNCH_FLOP", 7 * 2.0 * 4**2 * 64)
    store = store_of(shape, seed=3)
    size = LotSize(*shape, 4, 2, choose(8, group).count)
    assert device_plan.pairs_per_launch(size) == 7
    plans = plans_of(size, precision)[group or 0 :: 4 if precision == HALF else 9]
    assert {plan.streamed for plan in plans} == {False, True}
    assert {plan.ring for plan in plans} >= {0, 2}
    results = set()
    for seed, plan in enumerate(plans):
        with place.device(seed, 1 << 20) as device:
            scorer = CudaScorer(Method(grid, (1, 3), (0.2, 0.6), group), device, precision=precision)
            results.add(score(scorer, store, plan).tobytes())
            assert left(device) == (0, 0)
    assert len(results) == 1
    for gpu, plan in zip(place.gpus, plans, strict=True):
        assert gpu.peak <= plan.memory_bytes


def test_a_device_with_less_memory_than_planned_takes_a_smaller_plan_and_notes_it(place: Place) -> None:
    shape = (1, 12, 6, 40)
    store = store_of(shape)
    with place.device() as device:
        scorer = CudaScorer(Method((2, 3), (1,)), device)
        whole = scorer.plan(shape, 4)
        expected = scorer.score(store, whole)
    assert whole.device
    needed = whole.device.memory_bytes
    with place.device(memory=needed * 3 // 4) as device:
        scorer = CudaScorer(Method((2, 3), (1,)), device)
        assert scorer.score(store, whole).tobytes() == expected.tobytes()
        assert left(device) == (0, 0)
    assert scorer.notes
    note = scorer.notes[-1]
    assert re.search(r"bytes asked for, \d+ free. A plan of \d+ kB was taken instead", note)
    with place.device(memory=1000) as device, pytest.raises(LotError, match="of device memory is too little"):
        CudaScorer(Method((2, 3), (1,)), device).score(store, whole)


def test_plans_are_made_from_what_is_free_or_was_given(place: Place) -> None:
    with place.device(memory=10**6) as device:
        free = CudaScorer(Method((2, 3)), device).plan((1, 6, 6, 8), 4)
        given = CudaScorer(Method((2, 3)), device, memory=200_000).plan((1, 6, 6, 8), 4)
        with pytest.raises(DeviceError, match="tokens of width 12285"):
            CudaScorer(Method((1, 1)), device).plan((1, 6, 1, 12285), 4)
    assert free.device
    assert given.device
    assert (free.device.budget, given.device.budget) == (900_000, 200_000)


@pytest.mark.parametrize("precision", [HALF, INT8])
def test_seconds_are_measured_and_leave_nothing(device: GpuThread, precision: str) -> None:
    shape = (2, 9, 6, 8)
    scorer = CudaScorer(Method((2, 3), (1, 3)), device, precision=precision)
    plan = scorer.plan(shape, 4)
    assert scorer.seconds(shape, plan) > 0
    assert scorer.version == "cuda sm_00 emulated" + (" int8" if precision == INT8 else "")


# ---- time, progress, and what was kept -------------------------------------------------------------


@pytest.mark.parametrize(("panel", "copied"), [(12, True), (4, True), (12, False)])
@pytest.mark.slow
def test_the_device_s_work_is_timed(device: GpuThread, panel: int, copied: bool) -> None:
    """Within the time that scoring took, and kernels one after the other."""
    store, timer = store_of((2, 12, 20, 64)), StageTimer()
    scorer = CudaScorer(Method((4, 5), (1, 3)), device)
    plan = scorer.plan(store.shape, 4, HostNeeds(keep=copied))
    assert plan.device
    there = scorer.device_store(store.shape, store.dtype, store.cls, plan)
    assert (there is None) == copied
    if there:
        fill(there, store.tokens, batch=12)
    by_panels = replace(plan, device=replace(plan.device, block=4, ring=2 if copied else 0, panel=panel))
    start = time.perf_counter()
    scorer.score(there or store, by_panels, timer=timer)
    stop = time.perf_counter()
    spans = timer.spans()
    assert set(spans) == {"aggregate", "compare", "select"} | ({"load", "upload"} if copied else set())
    for found in spans.values():
        assert (found[:, 0] >= start).all()
        assert (found[:, 1] <= stop).all()
    kernels = np.concatenate([spans[name] for name in ("aggregate", "compare", "select")])
    kernels = kernels[np.argsort(kernels[:, 0])]
    assert (np.diff(kernels) > 0).all()
    assert (kernels[1:, 0] >= kernels[:-1, 1] - 1e-9).all()
    if there:
        device.run(lambda gpu: gpu.free(there._arena))


@pytest.mark.parametrize("panel", [12, 4])
def test_progress_rises_to_all_pairs(device: GpuThread, panel: int) -> None:
    store = store_of((2, 12, 2, 8))
    scorer = CudaScorer(Method((1, 2), (1, 3)), device)
    plan = scorer.plan(store.shape, 4, HostNeeds(keep=True))
    assert plan.device
    seen: list[tuple[str, float, float, str]] = []
    by_panels = replace(plan, device=replace(plan.device, block=4, ring=2, panel=panel))
    scorer.score(store, by_panels, lambda *call: seen.append(call))
    assert {(stage, total, unit) for stage, _, total, unit in seen} == {("score", 2 * 66, "pairs")}
    done = [call[1] for call in seen]
    assert done == sorted(done)
    assert done[-1] == 2 * 66


def kept_work(folder: Path, store: HostStore) -> Checkpoint:
    """The work that is kept in ``folder`` when the features of ``store`` have just been made."""
    kept = Checkpoint(folder, {}, {})
    images = store.shape[1]
    kept.keep_batch(0, store, (0, images), Batch([f"{i}.png" for i in range(images)], []))
    return kept


@pytest.mark.parametrize("group", [None, 4])
def test_kept_layers_are_not_scored_again(place: Place, tmp_path: Path, group: int | None) -> None:
    store = store_of((3, 9, 6, 8))
    results = []
    for _ in range(2):
        with place.device() as device, closing(kept_work(tmp_path, store)) as kept:
            scorer = CudaScorer(Method((2, 3), (1, 3), group_size=group), device)
            results.append(scorer.score(store, scorer.plan(store.shape, 4), kept=kept).tobytes())
        (tmp_path / "layer_1.npy").unlink()
    assert results[1] == results[0]
    assert len(place.gpus[1].launches) == len(place.gpus[0].launches) // 3


def test_kept_layers_of_other_features_are_scored_again(place: Place, tmp_path: Path) -> None:
    stores = [store_of((3, 9, 6, 8), seed=seed) for seed in (0, 1)]
    results = []
    for store, folder in [(stores[0], "one"), (stores[1], "one"), (stores[1], "two")]:
        with place.device() as device, closing(kept_work(tmp_path / folder, store)) as kept:
            scorer = CudaScorer(Method((2, 3), (1, 3)), device)
            results.append(scorer.score(store, scorer.plan(store.shape, 4), kept=kept).tobytes())
    assert results[1] == results[2] != results[0]


# ---- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("group", [None, 4])
def test_images_that_are_not_finite_are_named(device: GpuThread, value: float, group: int | None) -> None:
    store = store_of((2, 9, 6, 4))
    store.tokens[1, 3, 2, 1] = store.tokens[1, 7, 5, 3] = value
    with pytest.raises(LotError, match=r"layer 1 .*not finite, in images 3, 7 \(counted from 0\)") as caught:
        score(CudaScorer(Method((2, 3), group_size=group), device), store)
    assert left(device) == (0, 0)  # though the frames of the work still live in the traceback
    del caught


def test_an_image_whose_range_no_float_holds_is_named(device: GpuThread) -> None:
    store = store_of((1, 9, 6, 4))
    store.tokens[0, 4] = 3.3e38
    store.tokens[0, 4, 2] = -3.3e38
    with pytest.raises(LotError, match=r"layer 0 .*not finite, in images 4 \(counted from 0\)"):
        score(CudaScorer(Method((2, 3)), device), store)


class FailingGpu(EmulatedGpu):
    """Its tenth launch fails."""

    def launch(self, launch: Launch, arguments: tuple[DeviceArray | np.int32, ...], stream: Stream) -> None:
        if sum(1 for _ in self.queued) == 9:
            raise KernelError("the GPU has fallen off the bus.")
        self.queued.append(launch)
        super().launch(launch, arguments, stream)

    queued: list[Launch]


def test_errors_of_the_device_are_device_errors_and_leave_nothing(kernel_library: Path) -> None:
    def opened() -> EmulatedGpu:
        gpu = FailingGpu(kernel_library)
        gpu.queued = []
        return gpu

    with GpuThread(opened) as device:
        with pytest.raises(DeviceError, match="fallen off the bus"):
            score(CudaScorer(Method((2, 3)), device), store_of((1, 9, 6, 4)))
        assert left(device) == (0, 0)


def test_ctrl_c_stops_within_a_launch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_plan, "LAUNCH_FLOP", 0)
    store = store_of((1, 12, 2, 8))
    queued: list[int] = []

    def interrupt(stage: str, done: float, total: float, unit: str) -> None:
        if not queued:
            queued.append(len(place.gpus[0].launches))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert opened._stop.wait(60)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), place.device() as opened:  # noqa: PT012, left by the interrupt
            scorer = CudaScorer(Method((1, 2), (1,)), opened)
            scorer.score(store, scorer.plan(store.shape, 4), interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(place.gpus[0].launches) <= queued[0] + 2 < 66
    assert place.gpus[0]._used == 0


def test_what_is_collected_in_another_thread_was_freed_in_the_gpu_s(place: Place) -> None:
    """Whatever of the work lives on in a cycle holds numbers, no memory."""
    with place.device() as device:
        try:
            scorer = CudaScorer(Method((2, 3)), device)
            store = store_of((1, 9, 6, 4))
            store.tokens[0, 0] = np.nan
            score(scorer, store)
        except LotError as error:
            cycle: list[object] = [error]
            cycle.append(cycle)
        assert left(device) == (0, 0)
        del cycle
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join()
        assert left(device) == (0, 0)
        store.tokens[0, 0] = 0
        assert np.isfinite(score(scorer, store)).all()


# ---- on Hopper -------------------------------------------------------------------------------


def test_products_of_warpgroups_score_by_every_plan_alike_and_as_the_cpu(kernel_library: Path) -> None:
    """A module for sm_90a compares by other kernels, on the same rows."""
    launched: list[Launch] = []

    def hopper() -> EmulatedGpu:
        gpu = EmulatedGpu(kernel_library, seed=6, arch=HOPPER)
        gpu.launches = launched
        return gpu

    with GpuThread(hopper) as device:
        assert check_scorer(device, make_lot(1, 6, (3, 3), 24), (3, 3)) < FINE
    names = {launch.kernel for launch in launched}
    assert "gram_min_128" in names
    assert "gram_min" not in names
