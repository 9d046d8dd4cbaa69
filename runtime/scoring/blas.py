"""Limit BLAS to one thread per matrix product, since our own threads already fill the cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier, BrokenBarrierError

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

_WARM = 512


@contextmanager
def one_thread_per_product(threads: int) -> Iterator[None]:
    """Within the block every matrix product runs on the thread that calls it; ``threads`` may do so at once.

    First each of them makes one product that is larger than those to come.  OpenBLAS packs its operands into
    buffers that it never frees, and its kernels prefetch beyond what a small product has packed.  Where
    that memory was never written, each prefetch seems to walk the page tables in vain: products of
    256 x 384 x 256 ran three times slower in a virtual machine, for as long as the process lived.
    """
    start = Barrier(threads)

    def warm(_: int) -> None:
        square = np.ones((_WARM, _WARM), np.float32)
        with suppress(BrokenBarrierError):  # where a thread cannot start, the others go on
            start.wait(timeout=5)  # at once, so that each takes a buffer of its own
        np.matmul(square, square)

    # Besides speed this fixes the result: a product that BLAS splits over threads may be summed differently.
    with threadpool_limits(1, "blas"):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(warm, range(threads)))
        yield


def threads_per_product() -> int:
    """Return how many threads BLAS may split a product over, as this process is now."""
    return max((each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"), default=1)
