"""The features of a lot as objects of the cluster, on the machines that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..types import Array, FeatureStore, FloatArray, Slot
from .engine import Cluster


@dataclass(frozen=True)
class ObjectStore:
    """References to the tokens (P,C) of each layer of each image; ``cls`` (N,D) in this process's memory.

    What is read comes over the network, so the scorer hands the references on instead.
    """

    cluster: Cluster
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    cls: FloatArray
    references: list[Sequence[Any]] = field(default_factory=list)

    def slot(self, i0: int, i1: int) -> Slot:
        """Refuse: workers write the features."""
        raise NotImplementedError("features of a cluster are written by its workers")

    def finite(self, i0: int, i1: int) -> Array:
        """Return ones: workers have looked."""
        return np.ones(i1 - i0, bool)

    def put(self, i0: int, i1: int) -> None:
        """Do nothing: workers write the features."""

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Fetch tokens (i1-i0,P,C) of one layer."""
        return np.stack(self.cluster.get([self.references[image][layer] for image in range(i0, i1)]))

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Fetch the tokens (i1-i0,K,C) of the patches ``places`` (K,): chosen where they lie."""
        chosen = [
            self.cluster.submit(choose, places, *[self.references[i][layer] for i in part])[0]
            for part in (range(i, min(i + _TOGETHER, i1)) for i in range(i0, i1, _TOGETHER))
        ]
        return np.concatenate(self.cluster.get(chosen))

    def first(self, images: int) -> ObjectStore:
        """Return a view of this store with its first ``images`` images only."""
        layers, _, patches, width = self.shape
        return ObjectStore(
            self.cluster, (layers, images, patches, width), self.dtype, self.cls[:images], self.references
        )

    def free(self) -> None:
        """Let the cluster forget the features."""
        self.references.clear()


_TOGETHER = 64
"""Images whose patches one task chooses."""


def choose(places: Array, *images: Array) -> Array:
    """Return the tokens (n,K,C) of the patches ``places`` of some images."""
    return np.stack([image[places] for image in images])


def reference_of(cluster: Cluster, store: FeatureStore, layer: int, image: int) -> Any:
    """Return a reference to the tokens (P,C) of one layer of an image, wherever the store has them."""
    if isinstance(store, ObjectStore):
        return store.references[image][layer]
    return cluster.ray.put(store.block(layer, image, image + 1)[0])
