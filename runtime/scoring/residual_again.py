"""Residuals of a lot whose tokens are not kept: the ViT describes its images twice (residual.py).

What is common in the lot is summed up while the ViT runs for the first time, in the blocks in which it would
be read from a file; the residuals are measured while it runs again.  Both are computed by the same functions
on the same numbers, so that the scores are the same, bit for bit, if the ViT's are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..errors import LotError
from ..store.again import AgainStore
from ..store.features import HostStore
from ..types import Array, FloatArray, Plan
from .blas import one_thread_per_product
from .judges import Judges, require_finite
from .subspace import Moments, Subspace, subspaces

LayerOf = Callable[[HostStore, int], Any]
"""Makes the work on a layer of some images (residual.Layer)."""


class Seen:
    """Sums up what is common in the images that the ViT describes, block by block, for all layers."""

    def __init__(self, layer_of: LayerOf, plan: Plan, layers: int, degrees: int, width: int) -> None:
        self._layer_of, self._plan = layer_of, plan
        self._whole = [Moments.none(degrees, width) for _ in range(layers)]
        self._longest: list[list[FloatArray]] = [[] for _ in range(layers)]
        self._waiting: list[Array] = []

    def take(self, first: int, tokens: Array) -> None:
        """Take the next images' tokens (S,n,P,C)."""
        self._waiting += [tokens[:, k].copy() for k in range(tokens.shape[1])]
        while len(self._waiting) >= self._plan.block:
            self._add(self._plan.block)

    def whole(self, judges: Judges) -> list[Moments]:
        """Return the moments of each layer, of all images; LotError if tokens are not finite."""
        self._add(len(self._waiting))
        for layer, lengths in enumerate(self._longest):
            require_finite(layer, judges, np.concatenate(lengths))
        return self._whole

    def _add(self, images: int) -> None:
        """Add the first of the images that wait."""
        if not images:
            return
        block = HostStore(np.stack(self._waiting[:images], axis=1), np.empty((images, 0), np.float32))
        del self._waiting[:images]
        with one_thread_per_product(self._plan.threads), ThreadPoolExecutor(self._plan.threads) as pool:
            layers = range(len(self._whole))
            found = pool.map(lambda k: self._layer_of(block, k).moments((0, images)), layers)
            for layer, (moments, longest) in enumerate(found):
                self._whole[layer].add(moments)
                self._longest[layer].append(longest)


class Measured:
    """Measures the residuals (N,P) of images as the ViT describes them, summed over layers, in float64.

    ``common`` is what the images have in common, for each layer and degree.
    """

    def __init__(
        self,
        layer_of: LayerOf,
        common: Sequence[Sequence[Subspace]],
        shape: tuple[int, int],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._layer_of, self._common, self._pool = layer_of, common, pool
        self.total, self.images = np.zeros(shape, np.float64), 0

    def take(self, first: int, tokens: Array) -> None:
        """Take the next images' tokens (S,n,P,C); LotError if they are more than before."""
        count, there = tokens.shape[1], len(self.total)
        if first + count > there:
            raise LotError(f"more than {there} images can be read now: some could not be a moment ago.")
        block = HostStore(tokens, np.empty((count, 0), np.float32))

        def measure(row: int) -> None:
            for layer, common in enumerate(self._common):  # in their order, as where each is finished first
                work = self._layer_of(block, layer)
                self.total[first + row] += work.residuals((row, row + 1), common)[0]

        for _ in self._pool.map(measure, range(count)):
            self.images += 1


def score_again(store: AgainStore, layer_of: LayerOf, judges: Judges, share: float, plan: Plan) -> FloatArray:
    """Return the residuals (N,P) of a lot that the ViT has described once, averaged over layers and degrees.

    Raises
    ------
    LotError
        If tokens are not finite, or images cannot be read that could be before, or the other way round.
    DeviceError
        If the ViT fails.
    """
    layers, images, patches, _ = store.shape
    seen = store.taker
    if not isinstance(seen, Seen):
        raise TypeError("nobody has summed up what is common while the ViT ran")
    with one_thread_per_product(plan.threads), ThreadPoolExecutor(plan.threads) as pool:
        common = [subspaces(moments, share) for moments in seen.whole(judges)]
        measured = Measured(layer_of, common, (images, patches), pool)
        store.describe_again(measured)
    if measured.images != images:
        raise LotError(
            f"of {images} images only {measured.images} could be read for the second run of the ViT."
        )
    scores: FloatArray = (measured.total / layers).astype(np.float32)
    return scores
