"""The images of a lot on their way into a reference: which are held out and kept, what they measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import LotError
from ..images.reading import ImageError
from ..images.survey import Survey, decode_ahead
from ..run import Features, Run
from ..scoring.interval import interval_bounds
from ..scoring.stitch import stitch
from ..types import Array, FloatArray, LotImage
from .choose import cover
from .cut import Cut
from .files import ReferenceFolder
from .looks import THUMBNAIL, look, thumbnail


@dataclass(frozen=True)
class Part:
    """Some images of a lot with their features: rows ``start`` to ``stop`` of ``features``.

    ``cut`` is the lot in tiles; None for whole images.
    """

    features: Features
    survey: Survey
    start: int
    stop: int
    cut: Cut | None = None

    def tile(self, number: int) -> Part:
        """Return the tiles of these images at a position; itself where they are not cut."""
        return replace(self, features=self.cut.at(number), cut=None) if self.cut else self

    @property
    def images(self) -> tuple[LotImage, ...]:
        """The images, in the order of their rows."""
        return self.features.images[self.start : self.stop]

    @property
    def cls(self) -> FloatArray:
        """CLS embeddings (n,D)."""
        return self.features.cls[self.start : self.stop]

    def tokens(self, layer: int, row: int) -> Array:
        """Return the tokens (P,C) of an image in the layer at this position."""
        tokens: Array = self.features.store.block(layer, self.start + row, self.start + row + 1)[0]
        return tokens

    def inside(self, row: int) -> Array:
        """Return which patches (P,) of an image take part."""
        if self.features.inside is None:
            return np.ones(self.features.store.shape[2], bool)
        taken: Array = self.features.inside[self.start + row]
        return taken

    def looks(self, run: Run) -> tuple[Array, Array]:
        """Return brightness and sharpness (n,2), and thumbnails (n,T,T,3); reads the images once more."""
        spec, threads = run.bundle.manifest.preprocess, run.resources.workers
        found: list[Array] = []
        small = np.empty((len(self.images), THUMBNAIL, THUMBNAIL, 3), np.uint8)
        for image, pixels in decode_ahead(
            replace(self.survey, images=self.images), spec, threads, 2 * threads
        ):
            if isinstance(pixels, ImageError):
                raise LotError(f"{image.name} could be read a moment ago, and now not: {pixels}.")
            small[len(found)] = thumbnail(pixels, spec)
            found.append(look(pixels, spec))
        return np.array(found).reshape(-1, 2), small

    def maps(self, run: Run) -> FloatArray:
        """Return the maps (n,Gh,Gw) of a part that begins with row 0, scored as a lot of its own."""
        lot = self._lot()
        copies = [] if run.settings.copies_judge else run.find_copies(lot, self.survey)
        apart = run.apart(lot, copies)
        if self.cut is None:
            return run.score(lot, apart)[0]
        layout = self.cut.layout
        tiles = [run.score(self.tile(k)._lot(), apart)[0] for k in range(len(layout.positions))]
        return stitch(np.stack(tiles), layout)

    def _lot(self) -> Features:
        """The features of a part that begins with row 0."""
        store = self.features.store.first(self.stop)
        inside = None if self.features.inside is None else self.features.inside[: self.stop]
        return replace(self.features, images=self.images, store=store, inside=inside)


@dataclass(frozen=True)
class Chosen:
    """What a reference keeps: images ``old`` of an earlier one's bank, then ``rows`` of ``pool``.

    ``accepted`` are the rows of the pool that are no suspects.
    """

    pool: Part
    accepted: Array
    rows: Array
    earlier: ReferenceFolder | None
    old: Array

    @property
    def images(self) -> int:
        """Images in the bank."""
        return len(self.old) + len(self.rows)

    def gather(self, before: Array, values: Array) -> Array:
        """Put what belongs to the accepted images in the reference's order: first those of the bank.

        ``before`` belongs to those of the earlier reference, ``values`` to the pool's.
        """
        rest = np.setdiff1d(np.arange(len(before)), self.old)
        beside = np.setdiff1d(self.accepted, self.rows)
        return np.concatenate([before[self.old], values[self.rows], before[rest], values[beside]])

    def names(self) -> tuple[str, ...]:
        """Names of the accepted images, first those of the bank."""
        m = self.earlier.manifest if self.earlier else None
        before = _objects([*m.images, *m.others] if m else [])
        return tuple(self.gather(before, _objects([image.name for image in self.pool.images])))


def choose(
    run: Run,
    pool: Part,
    images: int | None,
    suspects: float | tuple[str, ...],
    earlier: ReferenceFolder | None,
    raw: Array | None,
) -> Chosen:
    """Choose ``images`` (None: all) for the bank, of an earlier one's and those of ``pool`` without suspects.

    ``raw`` (n,) are the pool's raw scores, by which suspects are told that are given as a share.

    Raises
    ------
    LotError
        If they are too few for the interval.
    """
    accepted = _without(suspects, pool, raw)
    held = len(earlier.manifest.images) if earlier else 0
    cls = pool.cls[accepted]
    if earlier:
        cls = np.concatenate([earlier.cls[:held], cls])
    picked = cover(cls, images or len(cls))
    interval_bounds(len(picked) + 1, run.method.interval)
    rows = accepted[picked[picked >= held] - held]
    return Chosen(pool, accepted, rows, earlier, picked[picked < held])


def _without(suspects: float | tuple[str, ...], pool: Part, raw: Array | None) -> Array:
    """Return the rows of the pool without suspects: by name, or the share with the highest mutual scores."""
    count = len(pool.images)
    if isinstance(suspects, tuple):
        names = frozenset(suspects)
        return np.array([row for row in range(count) if pool.images[row].name not in names], int)
    drop = round(suspects * count)
    if not drop or raw is None:
        return np.arange(count)
    kept: Array = np.sort(np.argsort(raw, kind="stable")[: count - drop])
    return kept


def _objects(names: Sequence[str]) -> Array:
    """An array of names that keeps them as they are: numpy's own texts end at their last NUL."""
    array: Any = np.empty(len(names), object)
    array[:] = names
    return array  # type: ignore[no-any-return]
