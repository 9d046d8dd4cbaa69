"""Measure a GPU's peaks: products of halves in registers, copies in its memory, copies to it from the host.

Stages that run on the GPU are compared with these (limits.py), as those on the CPU are with peak.py's.  The
products are mma.sync's (kernels/peak.cuh), which the scorer uses on all GPUs but Hopper: there it can be
faster than this limit, and so can a ViT.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels import launches
from ...kernels.gpu import Event, Gpu, Stream
from ...runtime import scorers
from ...runtime.errors import DeviceError
from ...runtime.types import Bundle
from .limits import Rates
from .peak import Rounds

THREADS, ROUNDS = 1 << 20, 2048
"""Of the products: 4,096 blocks, enough to keep every GPU busy to the end; 2.2 TFLOP."""
COPIED, UPLOADED = 256_000_000, 64_000_000
"""Bytes: far more than any GPU's cache, and as much as is copied at once from the host."""


@dataclass(frozen=True)
class GpuPeaks(Rounds):
    """Those of a GPU, in halves and within its memory, and bytes/s copied to it; ``flop`` are of a round."""

    rounds_upload: tuple[float, ...]
    name: str
    flop: float

    @property
    def upload(self) -> Rates:
        """Bytes/s of the best round, from the host's memory."""
        return Rates(math.inf, max(self.rounds_upload))


def measure(bundle: Bundle | None = None, rounds: int = 5) -> GpuPeaks:
    """Measure the first GPU, after a round that is not counted.

    Raises
    ------
    DeviceError
        If there is no GPU that can be used, or it fails.
    """
    with scorers.open_gpu(bundle, []) as device:
        return device.run(lambda gpu: _measure(gpu, rounds))


def measure_used(bundle: Bundle, report_facts: dict[str, Any]) -> GpuPeaks | None:
    """Measure the GPU that a benchmark has used, into the report's facts; None, with why, if it cannot be."""
    try:
        peaks = measure(bundle)
    except DeviceError as error:
        report_facts["gpu_peaks"] = {"not_measured": str(error)}
        return None
    report_facts["gpu_peaks"] = facts(peaks)
    return peaks


def facts(peaks: GpuPeaks) -> dict[str, Any]:
    """Return the peaks for a report."""
    return {
        "name": peaks.name,
        "flops": peaks.flops,
        "bytes_per_s": peaks.bandwidth,
        "upload_bytes_per_s": peaks.upload.bandwidth,
    }


def samples(peaks: GpuPeaks) -> dict[str, list[float]]:
    """Return the seconds of the products, of a copy of 256 MB and of an upload of 64 MB, by name."""
    return {
        "GPU, products": [peaks.flop / rate for rate in peaks.rounds_flops],
        "GPU, copy": [2.0 * COPIED / rate for rate in peaks.rounds_bandwidth],
        "GPU, upload": [UPLOADED / rate for rate in peaks.rounds_upload],
    }


def _measure(gpu: Gpu, rounds: int) -> GpuPeaks:
    stream = gpu.stream()
    events = gpu.event(timed=True), gpu.event(timed=True)
    values = np.ones(UPLOADED // 4, np.float32)
    arrays = [gpu.empty((items,), np.float32) for items in (THREADS, COPIED // 4, COPIED // 4)]
    sums, source, target = arrays
    flop = launches.peak_products(gpu, sums, ROUNDS, stream)
    work: list[tuple[float, Callable[[], object]]] = [
        (flop, lambda: launches.peak_products(gpu, sums, ROUNDS, stream)),
        (2 * COPIED, lambda: launches.peak_copy(gpu, source, target, stream)),
        (UPLOADED, lambda: gpu.upload(source.rows(0, values.size), values, stream)),
    ]
    try:
        rates = [
            [amount / _seconds(gpu, stream, events, do) for amount, do in work] for _ in range(1 + rounds)
        ]
    finally:
        for array in arrays:
            gpu.free(array)
    flops, copied, uploaded = zip(*rates[1:], strict=True)
    return GpuPeaks(flops, copied, uploaded, gpu.name, flop)


def _seconds(gpu: Gpu, stream: Stream, events: tuple[Event, Event], work: Callable[[], object]) -> float:
    """Time what ``work`` queues, by the device's own clock."""
    start, stop = events
    gpu.record(start, stream)
    work()
    gpu.record(stop, stream)
    gpu.finish(stop)
    return gpu.elapsed(start, stop)
