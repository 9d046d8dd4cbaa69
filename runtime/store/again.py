"""A store that keeps no tokens but a few for telling copies: who needs the others has the ViT run again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..types import Array, FloatArray
from .features import OneBatch
from .tables import FileRows


class Taker(Protocol):
    """Who is given tokens as they come."""

    def take(self, first: int, tokens: Array) -> None:
        """Take the tokens (S,n,P,C) of images from number ``first`` on, which are there until it returns."""
        ...


class AgainStore(OneBatch):
    """Gives each batch of tokens to its ``taker``, and keeps those of some patches in the first layer.

    Parameters
    ----------
    shape : (S, N, P, C)
    rows : the file of these, with a row of K*C items for each image.
    places : (K,) these patches.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        dtype: npt.DTypeLike,
        cls: FloatArray,
        rows: FileRows,
        places: Array,
        taker: Taker,
    ) -> None:
        super().__init__(shape, dtype, cls)
        self._rows, self._places, self.taker = rows, places, taker
        self._writes = True
        self.again: Callable[[Taker], None] | None = None
        """Has the ViT describe the same images again."""

    def put(self, i0: int, i1: int) -> None:
        """Hand the tokens in the slot of images i0..i1 on."""
        tokens = self._tokens[:, : i1 - i0]
        for row, image in enumerate(tokens[0] if self._writes else ()):
            self._rows.write(i0 + row, 0, image[self._places].ravel())
        self.taker.take(i0, tokens)

    def taken_by(self, taker: Taker) -> AgainStore:
        """Return a store for the second run, which gives its batches to ``taker`` and keeps nothing."""
        second = copy.copy(self)
        second.cls = np.empty_like(self.cls)  # those of the first run are there
        second.taker, second._writes = taker, False
        return second

    def describe_again(self, taker: Taker) -> None:
        """Have the ViT describe all images once more, and give their tokens to ``taker``."""
        if self.again is None:
            raise RuntimeError("the ViT has not run once yet")
        self.again(taker)

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Raise NotImplementedError: tokens are not kept."""
        raise NotImplementedError("tokens are not kept")

    def some(self, layer: int, i0: int, i1: int, places: Array) -> Array:
        """Return the tokens (i1-i0,K,C) of the patches that are kept, which ``places`` must be."""
        if layer != 0 or places.tolist() != self._places.tolist():
            raise NotImplementedError("of other patches tokens are not kept")
        shape = len(places), self.shape[3]
        found = self._rows.read(i0, 0, (i1 - i0) * prod(shape))
        return found.reshape(i1 - i0, *shape)

    def picked(self, layer: int, patches: Array) -> Array:
        """Refuse: of other patches tokens are not kept."""
        raise NotImplementedError("of other patches tokens are not kept")

    def first(self, images: int) -> AgainStore:
        """Return a view of this store with its first ``images`` images only."""
        view = copy.copy(self)
        view.shape = (self.shape[0], images, *self.shape[2:])
        view.cls = self.cls[:images]
        return view

    def free(self) -> None:
        """Do nothing: the file goes with the last reference."""
