"""Case ``peak``: measure this machine's peaks, matrix products and copies, on all threads.

Every stage is compared with one of the two.  The products are square, large enough to hide their edges and
small enough for the caches, one per thread as in mutual scoring; the copies are far larger than the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...runtime.scoring.blas import one_thread_per_product

SIDE = 1024
COPIED = 64_000_000


@dataclass(frozen=True)
class Rounds:
    """Peaks: ``flops`` in FLOP/s of products, ``bandwidth`` in bytes/s copied, read plus written.

    ``rounds_flops`` and ``rounds_bandwidth`` are those of each round; a peak is the best of them.
    """

    rounds_flops: tuple[float, ...]
    rounds_bandwidth: tuple[float, ...]

    @property
    def flops(self) -> float:
        """FLOP/s of the best round."""
        return max(self.rounds_flops)

    @property
    def bandwidth(self) -> float:
        """Bytes/s of the best round."""
        return max(self.rounds_bandwidth)


@dataclass(frozen=True)
class Peaks(Rounds):
    """Those of the CPU, in float32, on so many ``threads``."""

    threads: int


def measure(threads: int, rounds: int = 5, seconds: float = 0.2) -> Peaks:
    """Measure both peaks in turn, ``seconds`` for each in a round, after a round that is not counted."""
    flops, bandwidth = [], []
    products = [_product() for _ in range(threads)]
    copies = [_copy() for _ in range(threads)]
    with one_thread_per_product(threads), ThreadPoolExecutor(threads) as pool:
        for _ in range(1 + rounds):
            flops.append(2.0 * SIDE**3 * _rate(pool, products, seconds))
            bandwidth.append(2.0 * COPIED * _rate(pool, copies, seconds))
    return Peaks(tuple(flops[1:]), tuple(bandwidth[1:]), threads)


class Yardstick:
    """Times matrix products that never change, to tell how fast the machine is after each round.

    All cores work on each together, as in a ViT, so that the slowest of them counts.  ``seconds`` receives
    the seconds of one product for each measurement.
    """

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self._product = _product()

    def measure(self, round_s: float) -> None:
        """Measure after a round of so many seconds: for a fiftieth of them, and at least four products."""
        self.seconds.append(1 / _repeat(round_s / 50, self._product, least=4))


def merged(a: Peaks, b: Peaks) -> Peaks:
    """Join the rounds from before and after a measurement: a shared machine is at its best only at times."""
    return Peaks(a.rounds_flops + b.rounds_flops, a.rounds_bandwidth + b.rounds_bandwidth, a.threads)


def samples(peaks: Peaks) -> dict[str, list[float]]:
    """Return the seconds of a product of 1024 x 1024 x 1024 and of a copy of 64 MB, by name."""
    return {
        "product": [2.0 * SIDE**3 / rate for rate in peaks.rounds_flops],
        "copy": [2.0 * COPIED / rate for rate in peaks.rounds_bandwidth],
    }


def facts(peaks: Peaks) -> dict[str, Any]:
    """Return the peaks for a report."""
    return {"threads": peaks.threads, "flops": peaks.flops, "bytes_per_s": peaks.bandwidth}


def _product() -> Callable[[], object]:
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), np.float32)
    return partial(np.matmul, a, b, out=np.empty((SIDE, SIDE), np.float32))


def _copy() -> Callable[[], object]:
    source, target = np.ones((2, COPIED // 4), np.float32)
    return partial(np.copyto, target, source)


def _rate(pool: ThreadPoolExecutor, works: list[Callable[[], object]], seconds: float) -> float:
    """Return calls per second of all ``works`` together, each on its own thread for about ``seconds``."""
    return sum(pool.map(partial(_repeat, seconds), works))


def _repeat(seconds: float, work: Callable[[], object], least: int = 1) -> float:
    """Return calls per second of ``work``, from at least ``least`` calls."""
    start, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)
