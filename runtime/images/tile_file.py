"""Tiles of a lot's images in a scratch file: each image is decoded once, and its tiles are read one by one.

A tile is kept as the ViT will see it, 8-bit RGB at the model's size: a tenth or less of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

from ..store.tables import FileRows
from ..tiling import Layout
from ..timing import UNTIMED, StageTimer
from ..types import Array, FloatArray, LotImage, PreprocessSpec
from .reading import normalise, resize
from .survey import Stream, Survey, decode_ahead, run_ahead


class TileFile:
    """The tiles of ``images``, (H,W,3) each, in a nameless file in ``scratch``.

    Raises
    ------
    OutputError
        If the disk cannot hold the file.
    """

    def __init__(
        self, layout: Layout, images: Sequence[LotImage], spec: PreprocessSpec, scratch: Path | None
    ) -> None:
        self.layout, self._spec = layout, spec
        numbers = range(len(layout.positions))
        names = [tile_name(image, number) for number in numbers for image in images]
        self._row = {name: row for row, name in enumerate(names)}
        self._shape = *spec.size, 3
        self._file = FileRows((len(names), prod(self._shape)), np.uint8, scratch)

    def close(self) -> None:
        """Give the disk's room back."""
        self._file.close()

    @property
    def cutting(self) -> partial[Stream]:
        """What makes the ViT's inputs of whole images, and keeps their tiles."""
        return partial(decode_ahead, aside=self._cut)

    @property
    def tiles(self) -> partial[Stream]:
        """What makes them of the tiles of a survey by ``lot_of_tiles``."""
        return partial(tiles_ahead, self.read)

    def _cut(self, image: LotImage, picture: Image.Image) -> None:
        for number, tile in enumerate(cut(picture, self.layout, self._spec)):
            self._file.write(self._row[tile_name(image, number)], 0, tile)

    def read(self, tile: LotImage) -> Array:
        """Return a tile (H,W,3)."""
        return self._file.read(self._row[tile.name], 0, prod(self._shape)).reshape(self._shape)


def cut(picture: Image.Image, layout: Layout, spec: PreprocessSpec) -> Iterator[Array]:
    """Yield the tiles (H,W,3) of a picture in RGB, in the order of the layout's positions."""
    for position in layout.positions:
        yield np.asarray(resize(picture, spec, layout.box(position, picture.size)))


def lot_of_tiles(survey: Survey, numbers: Sequence[int], rows: Sequence[int]) -> Survey:
    """Return tiles as a lot: ``rows`` of those of all images at the first position, then at the next."""
    tiles = [(tile_name(image, k), image) for k in numbers for image in survey.images]
    images = dict(tiles[row] for row in rows)
    return replace(
        survey,
        images=tuple(LotImage(name, image.path) for name, image in images.items()),
        headers={name: survey.headers[image.name] for name, image in images.items()},
    )


def tiles_ahead(
    read: Callable[[LotImage], Array],
    survey: Survey,
    spec: PreprocessSpec,
    threads: int,
    ahead: int,
    first: int = 0,
    timer: StageTimer = UNTIMED,
    room: int | None = None,
) -> Stream:
    """Yield tiles that ``read`` returns (H,W,3), as ``decode_ahead`` yields whole images."""

    def prepared(tile: LotImage) -> FloatArray:
        with timer.work("read tiles"):
            return normalise(read(tile), spec)

    return run_ahead(survey.images[first:], prepared, threads, ahead)


def tile_name(image: LotImage, number: int) -> str:
    """What a tile is called."""
    return f"{image.name} (tile {number + 1})"


def tile_bytes(layout: Layout, images: int, spec: PreprocessSpec) -> int:
    """Bytes of the file of tiles."""
    return 3 * spec.size[0] * spec.size[1] * len(layout.positions) * images
