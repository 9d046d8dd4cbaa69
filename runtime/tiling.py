"""Where the tiles of an image lie: pure arithmetic, in shares of the image's sides.

Every tile becomes an input of the ViT and gets a grid of patches of its own.  The map of a whole image has a
grid too: as many cells as patches of a tile's size fit along each side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .._numbers import ceil_div
from .errors import LotError

Position = tuple[int, int]
"""Row and column of a tile."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels and parts of them."""

MOST_TILES = 64
"""Tiles along a side of an image, at most."""
_MOST_OVERLAP = 0.5


@dataclass(frozen=True)
class Tiles:
    """How large images are cut, each tile for a run of the ViT (docs/tiles.md).

    Attributes
    ----------
    rows : int, default 0
        Tiles down an image, all of one size.  Their places are shares of the image, so that the images of a
        lot may differ in size.
    columns : int, default 0
        Tiles across it.
    side : int, default 0
        Instead of rows and columns: square tiles of so many pixels of the image, as few as cover it.  All
        images of a lot must then have one size.
    overlap : float, default 0
        How far neighboring tiles lie over each other: below 1 a share of a tile, from 1 on pixels of the
        image, for which all images must have one size.  At most half of a tile.
    free : bool, default False
        Compare a tile with those of all places in the other images, as textures allow; by default with those
        at its own place.

    Raises
    ------
    LotError
        If neither or both of rows and columns, and side, are given, or a number is out of range.
    """

    rows: int = 0
    columns: int = 0
    side: int = 0
    overlap: float = 0.0
    free: bool = False

    def __post_init__(self) -> None:
        by_count = 1 <= self.rows <= MOST_TILES and 1 <= self.columns <= MOST_TILES
        of_side = f", and a side of {self.side} pixels" if self.side else ""
        if self.side < 0 or bool(self.side) == bool(self.rows or self.columns) or not (by_count or self.side):
            raise LotError(
                f"tiles of {self.rows} rows and {self.columns} columns{of_side}: expected 1 to {MOST_TILES} "
                "rows and columns, or else a side in pixels."
            )
        share = self.overlap < 1 and 0 <= self.overlap <= _MOST_OVERLAP
        if not share and not (self.overlap >= 1 and float(self.overlap).is_integer()):
            raise LotError(
                f"overlap {self.overlap}: expected a share of a tile up to {_MOST_OVERLAP}, or whole pixels."
            )

    @property
    def in_pixels(self) -> bool:
        """Whether the tiles' places depend on the size of the images."""
        return bool(self.side) or self.overlap >= 1

    def __str__(self) -> str:
        tiles = f"tiles of {self.side} pixels" if self.side else f"{self.rows} x {self.columns} tiles"
        overlap = f"{self.overlap:.0f} pixels" if self.overlap >= 1 else f"{self.overlap:g} of a tile"
        free = ", of any place" if self.free else ""
        return tiles + (f", overlap {overlap}" if self.overlap else "") + free


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of an image: where each begins, and the length of all, as shares of it."""

    starts: tuple[float, ...]
    length: float

    def cells(self, patches: int) -> int:
        """Cells of the whole image's grid, where a tile has ``patches``."""
        return round(patches / self.length)


@dataclass(frozen=True)
class Layout:
    """The tiles of an image, down and across it."""

    down: Axis
    across: Axis

    @property
    def positions(self) -> list[Position]:
        """All positions, row by row."""
        return [(r, c) for r in range(len(self.down.starts)) for c in range(len(self.across.starts))]

    def grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the map of a whole image, where a tile has a ``grid`` of patches."""
        return self.down.cells(grid[0]), self.across.cells(grid[1])

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """Return where the tiles lie in an image of ``size`` (W,H), in the order of ``positions``."""
        return [self.box(position, size) for position in self.positions]

    def box(self, position: Position, size: tuple[int, int]) -> Box:
        """Return where a tile lies in an image of ``size`` (W,H)."""
        left, top = self.across.starts[position[1]], self.down.starts[position[0]]
        right, bottom = min(left + self.across.length, 1.0), min(top + self.down.length, 1.0)
        # Rounded: what lies on a whole pixel but for the last bits of a share is cut there.
        return (
            round(left * size[0], 6),
            round(top * size[1], 6),
            round(right * size[0], 6),
            round(bottom * size[1], 6),
        )


WHOLE = Layout(Axis((0.0,), 1.0), Axis((0.0,), 1.0))
"""The whole image as the only tile."""


def layout_of(tiles: Tiles, sizes: Iterable[tuple[int, int]]) -> Layout:
    """Lay tiles over images of ``sizes`` (W,H), as (W,H) of each.

    Raises
    ------
    LotError
        If tiles in pixels meet images of several sizes, or are larger than the images; or if the overlap is
        more than half of a tile.
    """
    width, height = _one_size(tiles, sizes) if tiles.in_pixels else (1, 1)
    if tiles.side:
        return Layout(_of_side(tiles, height), _of_side(tiles, width))
    return Layout(_of_count(tiles, tiles.rows, height), _of_count(tiles, tiles.columns, width))


def _one_size(tiles: Tiles, sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The one size of all images; LotError if they have several."""
    count = Counter(sizes)
    if not count:
        raise LotError(f"{tiles}: where they lie depends on the size of the images. Give a folder of them.")
    if len(count) > 1:
        named = ", ".join(f"{width} x {height} ({n})" for (width, height), n in count.most_common(3))
        raise LotError(
            f"{tiles}: that needs images of one size, and these have {len(count)}: {named}. Give "
            "rows and columns, and the overlap as a share of a tile, such as --tiles 2x3 --overlap 0.25."
        )
    return next(iter(count))


def _of_count(tiles: Tiles, count: int, pixels: int) -> Axis:
    """So many tiles along a side of ``pixels``, which counts only where the overlap is in pixels."""
    if tiles.overlap >= 1:
        tile = (pixels + (count - 1) * tiles.overlap) / count
        share = tiles.overlap / tile if count > 1 else 0.0
        _require_half(tiles, share)
    else:
        share = tiles.overlap
    length = 1 / (count - (count - 1) * share)
    return _evenly(count, length)


def _of_side(tiles: Tiles, pixels: int) -> Axis:
    """The fewest tiles of a side in pixels that cover ``pixels`` with at least the overlap."""
    if tiles.side > pixels:
        raise LotError(f"{tiles}: larger than the images, which have a side of {pixels} pixels.")
    overlap = tiles.overlap if tiles.overlap >= 1 else tiles.overlap * tiles.side
    _require_half(tiles, overlap / tiles.side)
    left = pixels - tiles.side
    count = 1 + ceil_div(left, int(tiles.side - overlap))
    if count > MOST_TILES:
        raise LotError(f"{tiles}: {count} along {pixels} pixels, expected at most {MOST_TILES}.")
    return _evenly(count, tiles.side / pixels)


def _require_half(tiles: Tiles, share: float) -> None:
    if share > 1 / 2:
        raise LotError(f"{tiles}: the overlap is more than half of a tile.")


def _evenly(count: int, length: float) -> Axis:
    """Tiles of a length, from one end of the side to the other."""
    step = (1 - length) / (count - 1) if count > 1 else 0.0
    return Axis(tuple(k * step for k in range(count)), length)
