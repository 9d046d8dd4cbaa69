"""The features of a lot as objects of the cluster, on the machines that made them.

An object holds tokens (L,n,P,C).  Where there are several machines it is one layer of one image, so that each
goes where it is needed and nowhere else; on one machine, where nothing moves, it is a whole shard: making an
object takes a millisecond, however small it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..._numbers import runs
from ..types import Array, FeatureStore, FloatArray, Slot
from .engine import Cluster


class Part(NamedTuple):
    """A part of an object that a reference leads to, such as the tokens (P,C) of a layer of an image."""

    reference: Any
    layer: int
    row: int


Place = tuple[int, int, int]
"""Where a part is among some objects: the object's number, layer and row."""


@dataclass(frozen=True)
class ObjectStore:
    """Where the tokens of each layer of each image are; ``cls`` (N,D) in this process's memory.

    What is read comes over the network, so the scorer hands the references on instead.
    """

    cluster: Cluster
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    cls: FloatArray
    found: list[Sequence[Part]] = field(default_factory=list)

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
        return np.stack(fetch(self.cluster, self.of(layer, range(i0, i1))))

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Fetch the tokens (i1-i0,K,C) of the patches ``places`` (K,): chosen by workers."""
        chosen = []
        for images in together(range(i0, i1)):
            at, objects = arguments(self.of(layer, images))
            chosen += self.cluster.submit(choose, places, at, *objects)
        return np.concatenate(self.cluster.get(chosen))

    def picked(self, layer: int, patches: Array) -> Array:
        """Fetch the token (N,C) of one patch of each image: picked by workers."""
        picked = []
        for images in together(range(len(patches))):
            at, objects = arguments(self.of(layer, images))
            picked += self.cluster.submit(pick, patches[images.start : images.stop], at, *objects)
        return np.concatenate(self.cluster.get(picked))

    def of(self, layer: int, images: Iterable[int]) -> list[Part]:
        """Return where the tokens of one layer of some images are."""
        return [self.found[image][layer] for image in images]

    def first(self, images: int) -> ObjectStore:
        """Return a view of this store with its first ``images`` images only."""
        layers, _, patches, width = self.shape
        return ObjectStore(
            self.cluster, (layers, images, patches, width), self.dtype, self.cls[:images], self.found
        )

    def free(self) -> None:
        """Let the cluster forget the features."""
        self.found.clear()


_TOGETHER = 64
"""Images that a task takes which only looks at them."""


def together(images: range) -> list[range]:
    """Cut some images into those of each task that only looks at them."""
    return runs(images, _TOGETHER)


def choose(patches: Array, at: Sequence[Place], *objects: Array) -> Array:
    """Return, on a worker, the tokens (n,K,C) of some ``patches`` of the images at ``at``."""
    return np.stack([image[patches] for image in taken(at, objects)])


def pick(patches: Array, at: Sequence[Place], *objects: Array) -> Array:
    """Return, on a worker, the token (n,C) of one patch of each image at ``at``."""
    return np.stack([image[patch] for image, patch in zip(taken(at, objects), patches, strict=True)])


def taken(at: Sequence[Place], objects: Sequence[Array]) -> list[Array]:
    """Return the parts that lie at places of some objects."""
    return [objects[number][layer, row] for number, layer, row in at]


def arguments(found: Sequence[Part]) -> tuple[list[Place], list[Any]]:
    """Return what a task is given to find some parts: their places, and references to objects, each once."""
    references = {id(each.reference): each.reference for each in found}
    numbers = {known: number for number, known in enumerate(references)}
    at = [(numbers[id(each.reference)], each.layer, each.row) for each in found]
    return at, list(references.values())


def fetch(cluster: Cluster, found: Sequence[Part]) -> list[Array]:
    """Return parts of the cluster's objects here."""
    at, objects = arguments(found)
    return taken(at, cluster.get(objects))


def arguments_for(
    cluster: Cluster, store: FeatureStore, layer: int, images: Sequence[int]
) -> tuple[list[Place], list[Any]]:
    """Return ``arguments`` for one layer of some images, wherever the store has them."""
    if isinstance(store, ObjectStore):
        return arguments(store.of(layer, images))
    tokens = np.empty((1, len(images), *store.shape[2:]), store.dtype)
    for row, image in enumerate(images):
        tokens[0, row] = store.block(layer, image, image + 1)[0]
    return [(0, 0, row) for row in range(len(images))], [cluster.ray.put(tokens)]
