"""The scorer on any GPU: against the CPU's, against the authors' files, and against itself by other plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from musc_edge.kernels.precisions import HALF, INT8
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.gpu.plan import make_device_plan
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.parallel import cores
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds, LotSize
from musc_edge.runtime.store.features import DeviceStore, HostStore
from musc_edge.runtime.types import Array, DevicePlan, FloatArray, Plan, Slot
from musc_edge.tools.selftest.kernel_checks import HALF_STEP

ERRORS = {HALF: 1e-4, INT8: 2e-3}
"""What a precision may cost in a score of random tokens."""


def make_lot(
    layers: int, images: int, grid: tuple[int, int], width: int, dtype: type = np.float16, seed: int = 0
) -> HostStore:
    """A lot whose images resemble each other: a common image plus noise."""
    rng = np.random.default_rng(seed)
    patches = grid[0] * grid[1]
    common = rng.standard_normal((layers, 1, patches, width), np.float32)
    tokens = common + 0.3 * rng.standard_normal((layers, images, patches, width), np.float32) + 1
    return HostStore(tokens.astype(dtype), np.empty((images, 0), np.float32))


def scores_on(device: GpuThread, store: HostStore, grid: tuple[int, int], plan: DevicePlan) -> FloatArray:
    """Mutual scores by a plan."""
    scorer = CudaScorer(Method(grid), device, precision=plan.precision)
    whole = scorer.plan(store.shape, store.tokens.itemsize)
    return scorer.score(store, replace(whole, device=plan))


def plan_from_host(scorer: CudaScorer, store: HostStore) -> Plan:
    """The best plan for tokens that stay in the host's memory."""
    plan = scorer.plan(store.shape, store.tokens.itemsize)
    assert plan.device is not None
    return replace(plan, device=make_device_plan(size_of(store), plan.device.budget, holds_tokens=False))


def size_of(store: HostStore, degrees: int = 3) -> LotSize:
    """The lot as plans see it, every image being judged by all others."""
    layers, images, patches, width = store.shape
    return LotSize(layers, images, patches, width, store.tokens.itemsize, degrees, images - 1)


def scores_of_resident(
    device: GpuThread, store: HostStore, grid: tuple[int, int], precision: str = HALF
) -> FloatArray:
    """Mutual scores with the tokens of all layers on the device."""
    scorer = CudaScorer(Method(grid), device, precision=precision)
    plan = scorer.plan(store.shape, store.tokens.itemsize)
    there = put_on_device(scorer, store, plan)
    assert there is not None, "the device has no room for the tokens"
    return scorer.score(there, plan)


def put_on_device(scorer: CudaScorer, store: HostStore, plan: Plan) -> DeviceStore | None:
    """The lot with the tokens of all layers on the device; None if there is no room for them."""
    there = scorer.device_store(store.shape, store.dtype, store.cls, plan)
    if there:
        fill(there, store.tokens, batch=1)
    return there


def fill(store: DeviceStore, tokens: Array, batch: int) -> None:
    """Write tokens (S,N,P,C) as a backend does that works on the host."""
    images = tokens.shape[1]
    uploading = store.for_backend(fills_device=False)
    for i in range(0, images, batch):
        stop = min(i + batch, images)
        slot = uploading.slot(i, stop)
        assert isinstance(slot, Slot)
        slot.tokens[:] = tokens[:, i:stop]
        uploading.put(i, stop)


def some_plans(store: HostStore, precision: str = HALF) -> list[DevicePlan]:
    """The largest plan for tokens in the host's memory, the smallest, and two between."""
    size = size_of(store)
    plans = [make_device_plan(size, 10**13, precision, holds_tokens=False)]
    while True:
        try:
            plans.append(make_device_plan(size, plans[-1].memory_bytes - 1, precision, holds_tokens=False))
        except LotError:
            break
    chosen = np.linspace(0, len(plans) - 1, 4).astype(int)
    return [plans[i] for i in dict.fromkeys(chosen)]


def check_scorer(device: GpuThread, store: HostStore, grid: tuple[int, int], precision: str = HALF) -> float:
    """The CPU's scores within the precision's errors, and the same bits from run to run and by all plans."""
    plans = some_plans(store, precision)
    found = [scores_on(device, store, grid, plan) for plan in (plans[0], *plans)]
    for plan, scores in zip((plans[0], *plans), found, strict=True):
        assert np.array_equal(scores, found[0]), f"other bits by {plan}"
    resident = scores_of_resident(device, store, grid, precision)
    assert np.array_equal(resident, found[0]), "other bits of resident tokens"
    cpu = CpuScorer(Method(grid), "numpy")
    expected = cpu.score(store, cpu.plan(store.shape, store.tokens.itemsize, HostNeeds(threads=cores())))
    error = float(np.abs(found[0] - expected).max())
    assert error < ERRORS[precision], f"a score is {error:.2e} from the CPU's"
    return error


def check_golden(device: GpuThread, folder: Path) -> dict[str, float]:
    """The authors' own scores, within half of what rounding can do to the distance of two unit rows."""
    errors = {}
    for path in sorted(folder.glob("mutual_*.npz")):
        with np.load(path) as golden:
            tokens, expected = golden["tokens"], golden["patch_scores"]
            degrees, (low, high) = tuple(map(int, golden["degrees"])), map(float, golden["interval"])
        side = round(tokens.shape[2] ** 0.5)
        store = HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
        scorer = CudaScorer(Method((side, side), degrees, (low, high)), device)
        found = scorer.score(store, scorer.plan(store.shape, 4))
        errors[path.stem] = float(np.abs(found - expected).max())
        assert errors[path.stem] < HALF_STEP, f"{path.name}: a score is off by {errors[path.stem]:.2e}"
    assert errors, f"{folder} holds no mutual_*.npz"
    return errors
