"""How long each kernel takes, with what it computes and moves at least."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from musc_edge.kernels import launches
from musc_edge.kernels.gpu import DeviceArray, Gpu, Stream
from musc_edge.kernels.pycuda_gpu import PycudaGpu
from musc_edge.runtime.scoring.burn_out import first_gap
from musc_edge.tools.selftest.kernel_checks import Bench, bench

WARM_UP = 3


@dataclass(frozen=True)
class Sizes:
    """Of a lot: ``images`` are pooled in one launch, ``pairs`` compared, ``judges`` averaged over."""

    images: int
    grid: tuple[int, int]
    width: int
    pairs: int
    judges: int
    repeats: int

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def __str__(self) -> str:
        return f"P={self.patches} C={self.width}"


FULL = (Sizes(64, (37, 37), 1024, 1000, 199, 12), Sizes(400, (16, 16), 384, 10000, 199, 12))
QUICK = (Sizes(2, (3, 5), 40, 3, 5, 3),)


def seconds_of(gpu: Gpu, stream: Stream, work: Callable[[], object], repeats: int) -> list[float]:
    """Time of each of ``repeats`` runs on the device, by its events; by the host's clock if it has none."""
    taken = []
    for number in range(WARM_UP + repeats):
        seconds = (
            _by_events(gpu, stream, work) if isinstance(gpu, PycudaGpu) else _by_clock(gpu, stream, work)
        )
        if number >= WARM_UP:
            taken.append(seconds)
    return taken


def _by_events(gpu: PycudaGpu, stream: Stream, work: Callable[[], object]) -> float:
    queue, event = gpu._streams[stream], gpu._driver.Event
    start, end = event(), event()
    start.record(queue)
    work()
    end.record(queue)
    end.synchronize()
    return float(start.time_till(end)) / 1000


def _by_clock(gpu: Gpu, stream: Stream, work: Callable[[], object]) -> float:
    event = gpu.event()
    start = time.perf_counter()
    work()
    gpu.record(event, stream)
    gpu.finish(event)
    return time.perf_counter() - start


Case = tuple[str, Callable[[], object], float, float]
Cases = Callable[[Bench, Sizes], Iterator[Case]]


def time_kernels(gpu: Gpu, *, quick: bool, cases: Sequence[Cases] | None = None) -> list[dict[str, Any]]:
    """A row for each kernel and size: its name, seconds of each repeat, FLOP and bytes."""
    chosen = (_pooling, comparing, _averaging) if cases is None else cases
    return [row for sizes in (QUICK if quick else FULL) for row in _rows(gpu, sizes, chosen)]


def _rows(gpu: Gpu, sizes: Sizes, cases: Sequence[Cases]) -> Iterator[dict[str, Any]]:
    for case in cases:
        with bench(gpu) as b:
            for name, work, flop, moved in case(b, sizes):
                seconds = seconds_of(gpu, b.stream, work, sizes.repeats)
                yield {"kernel": name, "size": str(sizes), "seconds": seconds, "flop": flop, "bytes": moved}


def _random(b: Bench, shape: tuple[int, ...], dtype: type, scale: float = 1.0) -> DeviceArray:
    """Random values, no zeros: those are faster on some devices.  Drawn for one item, shifted for others."""
    item = np.random.default_rng(0).standard_normal(shape[1:], np.float32) * scale
    array = b.empty(shape, dtype)
    for i in range(shape[0]):
        b.gpu.upload(array.rows(i, i + 1), np.roll(item, i).astype(dtype)[None], b.stream)
    return array


def _pooling(b: Bench, s: Sizes) -> Iterator[Case]:
    """Read the tokens once, write the rows once."""
    pitch, grid, patches = launches.pitch_of(s.width), s.grid, s.patches
    tokens = _random(b, (s.images, patches, s.width), np.float16)
    centres, shift = b.empty((s.images, 4), np.float32), b.put(np.zeros(pitch, np.float32))
    rows = b.empty(launches.feature_shape(s.images, patches, s.width), np.uint16)
    squares = b.empty((s.images, patches), np.float32)
    read, written = tokens.nbytes, rows.nbytes + squares.nbytes
    yield (
        f"centre_half, {s.images} images",
        lambda: launches.centre(b.gpu, tokens, centres, b.stream),
        0,
        read,
    )
    for r in (1, 3, 5):
        yield (
            f"pool_half, r={r}, {s.images} images",
            lambda r=r: launches.pool(  # type: ignore[misc]
                b.gpu, tokens, centres, shift, rows, squares, grid, r, b.stream
            ),
            0,
            read + written,
        )
    in_int8 = b.empty(launches.feature_shape(s.images, patches, s.width, 1), np.int8)
    scales = b.empty((s.images, patches), np.float32)
    yield (
        f"pool_half_int8, r=3, {s.images} images",
        lambda: launches.pool_int8(
            b.gpu, tokens, centres, shift, (in_int8, squares, scales), grid, 3, b.stream
        ),
        0,
        read + in_int8.nbytes + squares.nbytes + scales.nbytes,
    )
    few = rows.rows(0, min(8, s.images))
    yield (
        "column_mean, 8 images",
        lambda: launches.column_mean(b.gpu, few, patches, shift, b.stream),
        0,
        few.nbytes,
    )


def comparing(b: Bench, s: Sizes) -> Iterator[Case]:
    """A product for each pair; pairs of different images, as in a lot."""
    patches = s.patches
    rows = _random(b, launches.feature_shape(s.images, patches, s.width), np.float16, s.width**-0.5)
    rows = DeviceArray(rows.address, rows.shape, np.dtype(np.uint16))
    squares = b.put(np.ones((s.images, patches), np.float32))
    both = cycle([(i, j) for i in range(s.images) for j in range(i + 1, s.images)])
    table = np.array([(*next(both), 2 * k, 2 * k + 1) for k in range(s.pairs)], np.int32)
    pairs, distances = b.put(table), b.empty((2 * s.pairs, patches), np.uint32)
    b.gpu.fill(distances, launches.INFINITY_BITS, b.stream)
    flop = 2.0 * patches**2 * s.width * s.pairs
    moved = rows.nbytes + distances.nbytes
    yield (
        f"gram_min, {s.pairs} pairs",
        lambda: launches.gram_min(b.gpu, rows, squares, pairs, distances, b.stream),
        flop,
        moved,
    )
    for window in (1, 4):
        near = launches.Near.of(s.grid, window)
        yield (
            f"gram_min_near, window {window}, {s.pairs} pairs",
            lambda near=near: launches.gram_min(  # type: ignore[misc]
                b.gpu, rows, squares, pairs, distances, b.stream, near
            ),
            flop * _share_near(s.grid, window),
            moved,
        )
    in_int8 = _random(b, launches.feature_shape(s.images, patches, s.width, 1), np.int8, 20)
    scales = b.put(np.full((s.images, patches), 0.001, np.float32))
    yield (
        f"gram_min_int8, {s.pairs} pairs",
        lambda: launches.gram_min_int8(b.gpu, (in_int8, squares, scales), pairs, distances, b.stream),
        flop,
        in_int8.nbytes + distances.nbytes,
    )


def _share_near(grid: tuple[int, int], window: int) -> float:
    """The share of all pairs of patches that are within a window."""
    share = 1.0
    for side in grid:
        at = np.arange(side)
        share *= float((abs(at[:, None] - at) <= window).mean())
    return share


def _averaging(b: Bench, s: Sizes) -> Iterator[Case]:
    """Read the distances once."""
    values = np.random.default_rng(0).random((s.judges, s.patches), np.float32)
    distances = b.empty((s.images, s.judges, s.patches), np.uint32)
    for i in range(s.images):
        b.gpu.upload(distances.rows(i, i + 1), np.roll(values, i)[None].view(np.uint32), b.stream)
    scores = b.empty((s.images, s.patches), np.float32)
    for start, stop in ((0, max(1, int(0.3 * s.judges))), (max(1, s.judges // 10), max(2, s.judges // 2))):
        yield (
            f"interval_mean, {s.judges} judges, {start} to {stop}, {s.images} images",
            lambda a=start, z=stop: launches.interval_mean(  # type: ignore[misc]
                b.gpu, distances, scores, a, z, b.stream
            ),
            0,
            distances.nbytes + scores.nbytes,
        )
    later, stop = b.empty((s.images, s.patches), np.float32), max(1, int(0.3 * s.judges))
    yield (
        f"burn_out_mean, {s.judges} judges, {s.images} images",
        lambda: launches.burn_out_mean(
            b.gpu, distances, scores, later, (s.judges, first_gap(s.judges), stop), b.stream
        ),
        0,
        distances.nbytes + scores.nbytes,
    )
    yield (
        f"burn_out_mean_near, {s.judges} judges, {s.images} images",
        lambda: launches.burn_out_mean_near(b.gpu, distances, scores, later, stop, b.stream),
        0,
        distances.nbytes + scores.nbytes,
    )
