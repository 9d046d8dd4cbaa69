"""Score a lot on the GPU, layer by layer and degree by degree; runs in the GPU's own thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...kernels import launches
from ...kernels.gpu import DeviceArray, Gpu
from ...kernels.precisions import HALF
from ..scoring.judges import Judges, require_finite
from ..scoring.method import Method
from ..scoring.plan import LotSize
from ..scoring.protocols import KeptCells
from ..store.features import DeviceStore
from ..timing import StageTimer
from ..types import Array, DevicePlan, FeatureStore, Progress
from .arrays import DeviceLot
from .plan import pairs_per_launch
from .rows import Rows
from .schedule import Average, Compare, Open, Pool, Schedule

_COPIES = 4
"""Blocks of tokens that are copied ahead during one launch, at most."""


@dataclass(frozen=True)
class DeviceWork:
    """One attempt to score a lot by a plan.  Images are addressed by their places on the circle of judges.

    ``check`` is called after every piece of comparisons, and raises if the work is to be given up.
    ``inside`` (N,P), by place, are the patches that may be the nearest; None for all.
    """

    method: Method
    store: FeatureStore
    size: LotSize
    plan: DevicePlan
    judges: Judges
    progress: Progress
    kept: KeptCells | None
    timer: StageTimer
    check: Callable[[], None]
    inside: Array | None = None

    def scores(self, gpu: Gpu) -> Array:
        """Return what is measured of each patch (1 or 2,N,P), by place; called in the GPU's thread."""
        shape = self.size.results, self.size.images, self.size.patches
        finished = [self.kept.scores(i, shape) if self.kept else None for i in range(self.size.layers)]
        left = [i for i, scores in enumerate(finished) if scores is None]
        schedule = Schedule.of(self.judges, self.plan)
        degrees = self.method.degrees
        # Every block of tokens that will be asked for, in order, so that they can be copied ahead across
        # degrees and layers.
        uses = [(layer, block) for layer in left for _ in degrees for block in schedule.blocks]
        total = np.zeros(shape)
        with DeviceLot(
            gpu,
            self.size,
            self.plan,
            self.method.grid,
            self._read,
            self._on_device,
            uses,
            self.timer,
            self.inside,
            self.method.near,
        ) as lot:
            launcher = _Launcher(self, lot, len(left), schedule.pairs)
            for layer, scores in enumerate(finished):
                first = left.index(layer) * len(degrees) * len(schedule.blocks) if scores is None else 0
                total += self._layer(lot, launcher, schedule, layer, first) if scores is None else scores
        return total / self.size.layers

    def _layer(
        self, lot: DeviceLot, launcher: _Launcher, schedule: Schedule, layer: int, first: int
    ) -> Array:
        """Return what the method measures in a layer (1 or 2,N,P), averaged over degrees.

        ``first`` is the number of its first use of tokens among all uses.
        """
        mean = np.zeros((self.size.results, self.size.images, self.size.patches))
        counts = self.judges.counts()
        lot.sample(layer)
        for number, degree in enumerate(self.method.degrees):
            lot.find_shift(degree)
            for step in schedule.steps:
                match step:
                    case Pool():
                        use = first + number * len(schedule.blocks) + step.number
                        lot.pool_block(use, degree, step.row)
                    case Open():
                        lot.open_panel(step.stop - step.start)
                    case Compare():
                        launcher.compare(step.pairs)
                    case Average():
                        for start, stop in _alike(counts, step.start, step.stop):
                            window = self.method.window(int(counts[start]))
                            lot.average(step.start, start, stop, window)
            # Centres are finite exactly if the tokens are and have a usable range (kernels/pool.cuh).  All of
            # them are known after the first degree.
            if number == 0:
                centres = lot.gpu.download(lot.centres, lot.compute)
                require_finite(layer, self.judges, centres)
            mean += lot.gpu.download(lot.results, lot.compute)
            launcher.drain()
        lot.finish()
        mean /= len(self.method.degrees)
        if self.kept:
            self.kept.keep_scores(layer, mean)
        return mean

    def _read(self, layer: int, first: int, last: int) -> Array:
        """Read the tokens (n,P,C) of the images at the places ``first`` to ``last``, into host memory."""
        return np.concatenate([self.store.block(layer, *run) for run in self._runs(first, last)])

    def _on_device(self, layer: int, first: int, last: int) -> list[DeviceArray]:
        """Return the tokens of ``_read`` where they lie on the device, as runs of neighbors (n,P,C)."""
        store = self.store
        if not isinstance(store, DeviceStore):
            raise TypeError(f"{type(store).__name__} is not on the device")
        return [store.on_device(layer, *run) for run in self._runs(first, last)]

    def _runs(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the images at the places ``first`` to ``last`` as runs (i0, i1) of neighbors in the lot."""
        order = self.judges.order[first:last]
        runs = np.split(order, np.flatnonzero(np.diff(order) != 1) + 1)
        return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def _alike(counts: Array, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the places ``start`` to ``stop`` as runs of neighbors with the same count."""
    ends = start + 1 + np.flatnonzero(np.diff(counts[start:stop]))
    yield from zip((start, *ends.tolist()), (*ends.tolist(), stop), strict=True)


class _Launcher:
    """Launches comparisons in pieces, two of them queued at a time, and copies tokens ahead meanwhile.

    One piece runs while the next one waits, so that the device does not run dry; with no more than that
    queued, ctrl-C is noticed after a piece.
    """

    def __init__(self, work: DeviceWork, lot: DeviceLot, layers: int, pairs: int) -> None:
        self._work, self._lot = work, lot
        self._most = pairs_per_launch(work.size)
        # They take turns: of two pieces the older is waited for before its event is recorded again.
        self._events = [lot.gpu.event(), lot.gpu.event()]
        self._waiting: deque[tuple[int, int]] = deque()
        self._done = 0.0
        self._total = layers * work.judges.pairs
        # Progress counts each pair of images once per layer, although it is compared for every degree and,
        # across panels, twice.
        self._weight = work.judges.pairs / (len(work.method.degrees) * pairs)

    def compare(self, pairs: Array) -> None:
        """Queue all ``pairs`` (count,4), piece by piece, and wait for all but the last piece."""
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
        """Wait for the pieces that are still queued."""
        while self._waiting:
            self._finish()

    def _finish(self) -> None:
        """Wait for the oldest piece and count it."""
        event, count = self._waiting.popleft()
        self._lot.gpu.finish(event)
        self._work.check()
        self._done += count * self._weight
        self._work.progress("score", min(round(self._done), self._total), self._total, "pairs")


def seconds_of(gpu: Gpu, size: LotSize, pairs: int, method: Method, precision: str = HALF) -> float:
    """Return the seconds that comparing ``pairs`` pairs takes by ``method``, of two images of random rows."""
    stream, event, allocated = gpu.stream(), gpu.event(), []

    def empty(shape: tuple[int, ...], dtype: type) -> DeviceArray:
        allocated.append(gpu.empty(shape, dtype))
        return allocated[-1]

    rows = Rows.allocate(empty, 2, size.patches, size.width, precision)
    order, distances = empty((pairs, 4), np.int32), empty((2, size.patches), np.uint32)
    # One step of random numbers for all: what is multiplied takes as long, and drawing them takes longer.
    images, steps, *step = rows.features.shape
    drawn = np.random.default_rng(0).standard_normal((images, 1, *step)).astype(np.float16)
    values = np.repeat(drawn, steps, axis=1)
    gpu.upload(
        rows.features, (32 * values).astype(np.int8) if rows.scales else values.view(np.uint16), stream
    )
    for array in filter(None, rows[1:]):
        gpu.upload(array, np.ones((2, size.patches), np.float32), stream)
    gpu.upload(order, np.tile(np.array([0, 1, 0, 1], np.int32), (pairs, 1)), stream)
    gpu.fill(distances, launches.INFINITY_BITS, stream)
    gpu.record(event, stream)
    gpu.finish(event)
    start = time.perf_counter()
    rows.compare(gpu, order, distances, stream, launches.Near.of(method.grid, method.near))
    gpu.record(event, stream)
    gpu.finish(event)
    seconds = time.perf_counter() - start
    for array in allocated:
        gpu.free(array)
    return seconds
