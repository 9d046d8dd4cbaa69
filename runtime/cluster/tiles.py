"""The tiles of a lot's images as objects of a cluster: each image is decoded once, where it is described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..images.tile_file import tile_name
from ..tiling import Layout
from ..types import LotImage
from .object_store import Part, Place, arguments


@dataclass
class ClusterTiles:
    """Where the tiles (H,W,3) of images are, by name.  Twin: images.tile_file.TileFile.

    The tiles at one position of a shard's images are one object (1,n,H,W,3).
    """

    layout: Layout
    found: dict[str, Part] = field(default_factory=dict)

    @property
    def cutting(self) -> TilePictures:
        """Whole images are described, and their tiles kept."""
        return TilePictures(self, self.layout)

    @property
    def tiles(self) -> TilePictures:
        """The tiles of a survey by ``lot_of_tiles`` are described."""
        return TilePictures(self, None)

    def add(self, images: Sequence[LotImage], references: Sequence[Any]) -> None:
        """Note where the tiles of a shard's images are: an object for each position."""
        for number, reference in enumerate(references):
            for row, image in enumerate(images):
                self.found[tile_name(image, number)] = Part(reference, 0, row)

    def close(self) -> None:
        """Let the cluster forget the tiles."""
        self.found.clear()


@dataclass(frozen=True)
class TilePictures:
    """What workers make the ViT's inputs of: files, whose tiles they ``cut``, or without that their tiles."""

    tiles: ClusterTiles
    cut: Layout | None

    def given(self, tiles: Sequence[LotImage]) -> tuple[list[Place], list[Any]]:
        """Return what a task is given to find some tiles; nothing if it reads files."""
        return ([], []) if self.cut else arguments([self.tiles.found[tile.name] for tile in tiles])
