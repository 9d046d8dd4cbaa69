"""Case ``peak``: what this machine can do at most, measured: matrix products and copies, on all threads.

Every stage is held against one of the two.  The products are square, large enough to hide their edges and
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
class Peaks:
    """``flops`` in FLOP/s of float32 products, ``bandwidth`` in bytes/s, read and written ones both counted.

    ``rounds_flops`` and ``rounds_bandwidth`` hold what each round gave; a peak is the best of them.
    """

    threads: int
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


def measure(threads: int, rounds: int = 5, seconds: float = 0.2) -> Peaks:
    """Measure both peaks, in turn, ``seconds`` for each in a round, after one round that is not counted."""
    flops, bandwidth = [], []
    products = [_product() for _ in range(threads)]
    copies = [_copy() for _ in range(threads)]
    with one_thread_per_product(threads), ThreadPoolExecutor(threads) as pool:
        for _ in range(1 + rounds):
            flops.append(2.0 * SIDE**3 * _rate(pool, products, seconds))
            bandwidth.append(2.0 * COPIED * _rate(pool, copies, seconds))
    return Peaks(threads, tuple(flops[1:]), tuple(bandwidth[1:]))


class Yardstick:
    """Matrix products that never change: how fast the machine is after each round.

    Each is made by all cores together, as a ViT's are, so that the slowest of them counts.  ``seconds``
    receives those of a product for each measurement.
    """

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self._product = _product()

    def measure(self, round_s: float) -> None:
        """Measure after a round of so many seconds: for a fiftieth of them, and at least four products."""
        self.seconds.append(1 / _repeat(round_s / 50, self._product, least=4))


def merged(a: Peaks, b: Peaks) -> Peaks:
    """The rounds of both, as of before and after a measurement: a shared machine is at its best at times."""
    return Peaks(a.threads, a.rounds_flops + b.rounds_flops, a.rounds_bandwidth + b.rounds_bandwidth)


def samples(peaks: Peaks) -> dict[str, list[float]]:
    """Seconds for a product of 1024 x 1024 x 1024 and for a copy of 64 MB, by what was timed."""
    return {
        "product": [2.0 * SIDE**3 / rate for rate in peaks.rounds_flops],
        "copy": [2.0 * COPIED / rate for rate in peaks.rounds_bandwidth],
    }


def facts(peaks: Peaks) -> dict[str, Any]:
    """The peaks, for a report."""
    return {"threads": peaks.threads, "flops": peaks.flops, "bytes_per_s": peaks.bandwidth}


def _product() -> Callable[[], object]:
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), np.float32)
    return partial(np.matmul, a, b, out=np.empty((SIDE, SIDE), np.float32))


def _copy() -> Callable[[], object]:
    source, target = np.ones((2, COPIED // 4), np.float32)
    return partial(np.copyto, target, source)


def _rate(pool: ThreadPoolExecutor, works: list[Callable[[], object]], seconds: float) -> float:
    """Calls per second of all ``works`` together, each on a thread of its own for about ``seconds``."""
    return sum(pool.map(partial(_repeat, seconds), works))


def _repeat(seconds: float, work: Callable[[], object], least: int = 1) -> float:
    """Calls per second of ``work``, from ``least`` calls or more."""
    start, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)
