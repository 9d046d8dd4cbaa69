"""Give blocks of rows to the workers of a cluster: copies, RsCIN and the warning of separate groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from ..scoring.blas import threads_per_product
from ..scoring.blocks import here
from ..scoring.copies import looked_at, sketches_of
from ..types import Array, FloatArray
from .engine import WORKER_BYTES, Cluster, Job
from .object_store import ObjectStore, Place, arguments, choose, together
from .pairs import settle_down

_PASSES = 6
"""Arrays of the size of a block's rows, in float64, that work on them has at once, at most."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class OnCluster:
    """What ``scoring.blocks.here`` does on one machine: each block is a task, the arrays are sent once.

    A cluster of one machine has nothing to add: products have all of its processors without one.
    """

    cluster: Cluster

    def __call__(
        self, work: Callable[..., Result], blocks: Iterable[range], *arrays: Array
    ) -> Iterator[Result]:
        """Yield the results in the order of the blocks."""
        if len(self.cluster.nodes) == 1:
            yield from here(work, blocks, *arrays)
            return
        shared = [self.cluster.ray.put(array) for array in arrays]
        for _, result, _ in self.cluster.in_order(self._jobs(work, blocks, shared, len(arrays[0]))):
            yield result

    def _jobs(
        self, work: Callable[..., Result], blocks: Iterable[range], shared: list[Any], columns: int
    ) -> Iterator[Job[int]]:
        threads = threads_per_product()
        for number, rows in enumerate(blocks):
            memory = WORKER_BYTES + _PASSES * 8 * len(rows) * columns
            yield number, self.cluster.submit(of_block, work, threads, rows, *shared, memory=memory)


def of_block(work: Callable[..., Result], threads: int, rows: range, *arrays: Array) -> Result:
    """Return, on a worker, the result for one block.

    BLAS has as many ``threads`` as where the work would be done without a cluster: split otherwise, products
    may differ in their last bits.
    """
    settle_down()
    with threadpool_limits(threads, "blas"):
        return work(rows, *arrays)


def sketches_on(store: ObjectStore) -> FloatArray:
    """Let workers make the sketches (N,1024) by which copies are told, where the tokens lie."""
    _, count, patches, _ = store.shape
    places, threads = looked_at(patches), threads_per_product()
    made = []
    for images in together(range(count)):
        at, objects = arguments(store.of(0, images))
        made += store.cluster.submit(of_block, _sketch, threads, range(0), places, at, *objects)
    return np.concatenate(store.cluster.get(made))


def _sketch(_: range, patches: Array, at: Sequence[Place], *objects: Array) -> FloatArray:
    return sketches_of(choose(patches, at, *objects))
