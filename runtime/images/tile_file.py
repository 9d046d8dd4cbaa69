"""Tiles of a lot's images in a scratch file: each image is decoded once, and its tiles are read one by one.

A tile is kept as the ViT will see it, 8-bit RGB at the model's size: a tenth or less of its tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..store.tables import FileRows
from ..tiling import Layout
from ..timing import UNTIMED, StageTimer
from ..types import Array, FloatArray, LotImage, PreprocessSpec
from .reading import ImageError, normalise, resize
from .survey import Survey, decode_ahead, run_ahead


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
        self._row = {image.name: row for row, image in enumerate(images)}
        self._shape = *spec.size, 3
        self._file = FileRows(
            (len(layout.positions) * len(images), int(np.prod(self._shape))), np.uint8, scratch
        )

    def cut(self, image: LotImage, picture: Image.Image) -> None:
        """Keep all tiles of a picture in RGB."""
        for number, position in enumerate(self.layout.positions):
            tile = resize(picture, self._spec, self.layout.box(position, picture.size))
            self._file.write(self._place(number, image), 0, np.asarray(tile))

    def whole(
        self,
        survey: Survey,
        spec: PreprocessSpec,
        threads: int,
        ahead: int,
        first: int = 0,
        timer: StageTimer = UNTIMED,
        room: int | None = None,
    ) -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
        """Decode whole images as ``decode_ahead`` does, and keep the tiles of each."""
        return decode_ahead(survey, spec, threads, ahead, first, timer, room, aside=self.cut)

    def tiles(
        self,
        number: int,
        survey: Survey,
        spec: PreprocessSpec,
        threads: int,
        ahead: int,
        first: int = 0,
        timer: StageTimer = UNTIMED,
        room: int | None = None,
    ) -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
        """Yield the tile at position ``number`` of each image, as ``decode_ahead`` yields whole images."""

        def read(image: LotImage) -> FloatArray:
            with timer.work("read tiles"):
                return normalise(self.read(number, image), spec)

        return run_ahead(survey.images[first:], read, threads, ahead)

    def read(self, number: int, image: LotImage) -> Array:
        """Return the tile at position ``number`` of an image, (H,W,3)."""
        count = int(np.prod(self._shape))
        return self._file.read(self._place(number, image), 0, count).reshape(self._shape)

    def _place(self, number: int, image: LotImage) -> int:
        return number * len(self._row) + self._row[image.name]


def tile_bytes(layout: Layout, images: int, spec: PreprocessSpec) -> int:
    """Bytes of the file of tiles."""
    return 3 * spec.size[0] * spec.size[1] * len(layout.positions) * images
