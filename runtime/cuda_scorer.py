"""MSM, mutual scoring (paper, section 3.3), on a GPU: the twin of the CPU's scorer (mutual.py).

For each layer and degree the tokens of all images become rows in half precision (kernels/pool.cuh), the
pairs of images are compared (gram.cuh), and each patch's distances are averaged (interval.cuh).  What is on
the device at once is the plan's matter (device_plan.py), and how it gets there the lot's (device_lot.py).

Half precision costs up to 2e-5 in a distance of a real lot, and the result is the same, bit for bit, from
run to run and for every plan.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..kernels import launches
from ..kernels.errors import DeviceMemoryError, KernelError
from ..kernels.gpu import DeviceArray, Gpu
from ..kernels.thread import GpuThread
from .device_lot import DeviceLot
from .device_plan import device_budget, host_plan, make_device_plan, pairs_per_launch
from .device_schedule import Average, Compare, Open, Pool, degree_steps
from .errors import DeviceError, LotError
from .interval import interval_bounds
from .judges import Judges
from .layer import KeptCells
from .memory import size_text
from .method import Method
from .plan import LotSize
from .store import DeviceStore
from .timing import StageTimer
from .types import Array, DevicePlan, FeatureStore, FloatArray, Plan, Progress, no_progress

_SMALLER = 0.8
"""Of the memory of a plan that did not fit, for the next one."""
_COPIES = 4
"""Blocks of tokens that are copied ahead during one launch."""


@dataclass(frozen=True)
class CudaScorer(Method):
    """Mutual scores on the GPU of ``device``, which must be entered.

    ``memory`` is what may be used of the device, in bytes, None for what is free; ``notes`` receives what the
    user should know of.
    """

    device: GpuThread = field(kw_only=True)
    memory: int | None = None
    notes: list[str] = field(default_factory=list)

    kind = "cuda"

    @property
    def version(self) -> str:
        """What the result depends on besides the images: kernels and kind of GPU."""
        return self.device.run(lambda gpu: f"cuda {gpu.arch} {launches.source_digest()[:12]}")

    def plan(
        self,
        shape: tuple[int, int, int, int],
        itemsize: int,
        budget: int | None,
        *,
        threads: int = 1,
        fixed_bytes: int = 0,
        vit_bytes: int = 0,
        keep: bool = False,
    ) -> Plan:
        """The memory plan for tokens of ``shape`` (S,N,P,C), on the host and on the device.

        Raises
        ------
        LotError
            If a budget is too small.
        DeviceError
            If the kernels cannot take such tokens.
        """
        size = self._size(shape, itemsize)
        try:
            free, integrated = self.device.run(lambda gpu: (gpu.free_memory(), gpu.integrated))
            for resident in (False,) if keep else (True, False):
                host = host_plan(
                    size, budget, threads=threads, fixed_bytes=fixed_bytes, vit_bytes=vit_bytes, keep=keep,
                    resident=resident,
                )  # fmt: skip
                room = device_budget(host, free, self.memory, integrated=integrated)
                plan = make_device_plan(size, room, resident=None if resident else False)
                if plan.resident == resident:
                    break
            return replace(host, device=plan)
        except KernelError as error:
            raise DeviceError(str(error)) from error

    def resident_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> DeviceStore | None:
        """A store on the device, if the plan has the tokens there; None if not, or if there is no room."""
        if plan.device is None or not plan.device.resident:
            return None
        try:
            tokens = self.device.run(lambda gpu: gpu.empty(shape, dtype))
        except DeviceMemoryError as error:
            self.notes.append(f"{error} Features are kept in the host's memory instead.")
            return None
        return DeviceStore(self.device, tokens, cls, shape[1])

    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = no_progress,
        kept: KeptCells | None = None,
        timer: StageTimer | None = None,
    ) -> FloatArray:
        """Mutual scores (N,P) of the images in ``store``, averaged over layers and degrees.

        Where the device has less memory than planned, a smaller plan is made and noted.

        Raises
        ------
        LotError
            If the lot is too small for the interval, or tokens are not finite.
        DeviceError
            If the device fails.
        """
        judges = self.judges(store.shape[1])
        size = self._size(store.shape, store.dtype.itemsize)
        resident = isinstance(store, DeviceStore)
        device = plan.device
        if device is None or device.resident != resident or device.panel > size.images:
            device = make_device_plan(size, device.budget if device else self._free(), resident=resident)
        while True:
            work = _Work(self, store, size, device, judges, progress, kept)
            try:
                by_place = self.device.run(work.scores)
                break
            except DeviceMemoryError as error:
                device = make_device_plan(size, int(_SMALLER * device.memory_bytes), resident=resident)
                self.notes.append(f"{error} A plan of {size_text(device.memory_bytes)} was taken instead.")
            except KernelError as error:
                raise DeviceError(str(error)) from error
        by_image = np.empty(by_place.shape, np.float32)
        by_image[judges.order] = by_place
        return by_image

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Time that ``score`` will take here, from a measurement of some pairs of random rows."""
        size = self._size(shape, 2)
        pairs = self.judges(shape[1]).pairs
        some = min(pairs, max(1, pairs_per_launch(size) // 8))
        assert plan.device is not None
        all_pairs = shape[0] * len(self.degrees) * pairs * plan.device.comparisons
        return self.device.run(lambda gpu: _seconds_of(gpu, size, some)) * all_pairs / some

    def _free(self) -> int:
        return self.device.run(lambda gpu: gpu.free_memory()) * 9 // 10

    def _size(self, shape: tuple[int, int, int, int], itemsize: int) -> LotSize:
        layers, images, patches, width = shape
        degrees, judges = len(self.degrees), self.judges(images).count
        return LotSize(layers, images, patches, width, itemsize, degrees, judges)


@dataclass(frozen=True)
class _Work:
    """One attempt to score a lot by a plan.  Images are named by their places among the judges."""

    scorer: CudaScorer
    store: FeatureStore
    size: LotSize
    plan: DevicePlan
    judges: Judges
    progress: Progress
    kept: KeptCells | None

    def scores(self, gpu: Gpu) -> Array:
        """Mutual scores (N,P) by place; called in the GPU's thread."""
        finished = [self.kept.scores(i) if self.kept else None for i in range(self.size.layers)]
        left = [i for i, scores in enumerate(finished) if scores is None]
        degrees = self.scorer.degrees
        blocks, pairs = [], 0
        for step in degree_steps(self.judges, self.plan):
            if isinstance(step, Pool):
                blocks.append(step.block)
            elif isinstance(step, Compare):
                pairs += len(step.pairs)
        uses = [(i, block) for i in left for _ in degrees for block in blocks]
        total = np.zeros((self.size.images, self.size.patches))
        with DeviceLot(gpu, self.size, self.plan, self.scorer.grid, self._read, self._on_device, uses) as lot:
            launcher = _Launcher(self, lot, len(left), pairs)
            for i, scores in enumerate(finished):
                total += self._layer(lot, launcher, i) if scores is None else scores
        return total / self.size.layers

    def _layer(self, lot: DeviceLot, launcher: _Launcher, layer: int) -> Array:
        """Mutual scores (N,P) of a layer, averaged over degrees."""
        mean = np.zeros((self.size.images, self.size.patches))
        bounds = interval_bounds(self.judges.count + 1, self.scorer.interval)
        lot.sample(layer)
        for number, degree in enumerate(self.scorer.degrees):
            lot.find_shift(degree)
            for step in degree_steps(self.judges, self.plan):
                match step:
                    case Pool():
                        lot.pool_block(step.block, degree, step.row)
                    case Open():
                        lot.open_panel(step.stop - step.start)
                    case Compare():
                        launcher.compare(step.pairs)
                    case Average():
                        lot.average(step.start, step.stop, *bounds)
            if number == 0:
                self._require_finite(lot, layer)
            mean += lot.gpu.download(lot.scores, lot.compute)
            launcher.drain()
        mean /= len(self.scorer.degrees)
        if self.kept:
            self.kept.keep_scores(layer, mean)
        return mean

    def _read(self, layer: int, first: int, last: int) -> Array:
        """Tokens (n,P,C) of the images at some places."""
        return np.concatenate([self.store.block(layer, *run) for run in self._runs(first, last)])

    def _on_device(self, layer: int, first: int, last: int) -> list[DeviceArray]:
        """The same as ``_read``, where it lies on the device, in runs of neighbors (n,P,C)."""
        store = self.store
        if not isinstance(store, DeviceStore):
            raise TypeError(f"{type(store).__name__} is not on the device")
        return [store.on_device(layer, *run) for run in self._runs(first, last)]

    def _runs(self, first: int, last: int) -> list[tuple[int, int]]:
        """Images (i0, i1) at the places from ``first`` to ``last``, as runs of neighbors."""
        order = self.judges.order[first:last]
        runs = np.split(order, np.flatnonzero(np.diff(order) != 1) + 1)
        return [(int(run[0]), int(run[-1]) + 1) for run in runs]

    def _require_finite(self, lot: DeviceLot, layer: int) -> None:
        centres = lot.gpu.download(lot.centres, lot.compute)
        broken = np.flatnonzero(~np.isfinite(centres).all(axis=1))
        if len(broken):
            names = ", ".join(str(i) for i in sorted(self.judges.order[broken]))
            raise LotError(
                f"the tokens of layer {layer} hold values that are not finite, in images {names} "
                "(counted from 0). Check the backend's precision."
            )


class _Launcher:
    """Launches comparisons piece by piece, at most two at a time, and copies tokens ahead meanwhile."""

    def __init__(self, work: _Work, lot: DeviceLot, layers: int, pairs: int) -> None:
        self._work, self._lot = work, lot
        self._most = pairs_per_launch(work.size)
        self._events = [lot.gpu.event(), lot.gpu.event()]
        self._waiting: deque[tuple[int, int]] = deque()
        self._done = 0.0
        self._total = layers * work.judges.pairs
        self._weight = work.judges.pairs / (len(work.scorer.degrees) * pairs)

    def compare(self, pairs: Array) -> None:
        """Queue all ``pairs`` (count,4) and wait for all but the last pieces."""
        gpu, stream = self._lot.gpu, self._lot.compute
        for first in range(0, len(pairs), self._most):
            piece = pairs[first : first + self._most]
            self._lot.compare(piece)
            gpu.record(self._events[0], stream)
            self._waiting.append((self._events[0], len(piece)))
            self._events.reverse()
            self._lot.copy_ahead(_COPIES)
            if len(self._waiting) > 1:
                self._finish()

    def drain(self) -> None:
        """Wait for all pieces."""
        while self._waiting:
            self._finish()

    def _finish(self) -> None:
        """Wait for the oldest piece, and count it."""
        event, count = self._waiting.popleft()
        self._lot.gpu.finish(event)
        self._work.scorer.device.check()
        self._done += count * self._weight
        self._work.progress("score", min(round(self._done), self._total), self._total, "pairs")


def _seconds_of(gpu: Gpu, size: LotSize, pairs: int) -> float:
    """Time to compare so many pairs of two images of random rows."""
    pitch = launches.pitch_of(size.width)
    rows = np.random.default_rng(0).standard_normal((2, size.patches, pitch)).astype(np.float16)
    stream, event = gpu.stream(), gpu.event()
    arrays = [
        gpu.empty(rows.shape, np.uint16),
        gpu.empty((2, size.patches), np.float32),
        gpu.empty((pairs, 4), np.int32),
        gpu.empty((2, size.patches), np.uint32),
    ]
    features, squares, order, distances = arrays
    gpu.upload(features, rows.view(np.uint16), stream)
    gpu.upload(squares, np.ones((2, size.patches), np.float32), stream)
    gpu.upload(order, np.tile(np.array([0, 1, 0, 1], np.int32), (pairs, 1)), stream)
    gpu.fill(distances, launches.INFINITY_BITS, stream)
    gpu.record(event, stream)
    gpu.finish(event)
    start = time.perf_counter()
    launches.gram_min(gpu, features, squares, order, distances, stream)
    gpu.record(event, stream)
    gpu.finish(event)
    seconds = time.perf_counter() - start
    for array in arrays:
        gpu.free(array)
    return seconds
