"""Tiles of a lot's images in a scratch file: each image is decoded once, and its tiles are read one by one.

A tile is kept as the ViT will see it, 8-bit RGB at the model's size: a tenth or less of its tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

from ..store.tables import FileRows
from ..tiling import Layout
from ..timing import UNTIMED, StageTimer
from ..types import Array, FloatArray, LotImage, PreprocessSpec
from .reading import ImageError, normalise, resize
from .survey import Survey, run_ahead


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
        names = [_name(image, number) for number in numbers for image in images]
        self._row = {name: row for row, name in enumerate(names)}
        self._shape = *spec.size, 3
        self._file = FileRows((len(names), prod(self._shape)), np.uint8, scratch)

    def close(self) -> None:
        """Give the disk's room back."""
        self._file.close()

    def cut(self, image: LotImage, picture: Image.Image) -> None:
        """Keep all tiles of a picture in RGB."""
        for number, position in enumerate(self.layout.positions):
            tile = resize(picture, self._spec, self.layout.box(position, picture.size))
            self._file.write(self._row[_name(image, number)], 0, np.asarray(tile))

    def read(self, name: str) -> Array:
        """Return a tile (H,W,3) by the name that ``lot`` gives it."""
        return self._file.read(self._row[name], 0, prod(self._shape)).reshape(self._shape)

    def lot(self, survey: Survey, numbers: Sequence[int], rows: Sequence[int]) -> Survey:
        """Return tiles as a lot: ``rows`` of those of all images at the first position, then at the next."""
        tiles = [(_name(image, k), image) for k in numbers for image in survey.images]
        images = dict(tiles[row] for row in rows)
        return replace(
            survey,
            images=tuple(LotImage(name, image.path) for name, image in images.items()),
            headers={name: survey.headers[image.name] for name, image in images.items()},
        )

    def tiles(
        self,
        survey: Survey,
        spec: PreprocessSpec,
        threads: int,
        ahead: int,
        first: int = 0,
        timer: StageTimer = UNTIMED,
        room: int | None = None,
    ) -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
        """Yield the tiles of a survey by ``lot``, as ``decode_ahead`` yields whole images."""

        def read(tile: LotImage) -> FloatArray:
            with timer.work("read tiles"):
                return normalise(self.read(tile.name), spec)

        return run_ahead(survey.images[first:], read, threads, ahead)


def _name(image: LotImage, number: int) -> str:
    """What a tile is called."""
    return f"{image.name} (tile {number + 1})"


def tile_bytes(layout: Layout, images: int, spec: PreprocessSpec) -> int:
    """Bytes of the file of tiles."""
    return 3 * spec.size[0] * spec.size[1] * len(layout.positions) * images
