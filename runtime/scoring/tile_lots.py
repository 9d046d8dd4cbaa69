"""Which tiles of a lot's images are compared with each other: those at one position, or those of all places.

With a region of interest a tile takes part if it has a patch inside; the others neither score nor are a
neighbor.  Where too few are left for the interval, none of a lot's tiles is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._files import shown
from ..._numbers import counted
from ..errors import LotError
from ..settings import RESIDUAL
from ..types import Array, LotImage
from .interval import smallest_lot
from .method import Method
from .protocols import Groups

_NAMED = 3


@dataclass(frozen=True, eq=False)
class TileLot:
    """Tiles of ``images`` images that are compared with each other.

    Attributes
    ----------
    part : number of this lot among those of a layout.
    positions : numbers of the positions at which they lie.
    images : images of the lot that is cut, N.
    rows : (n,) those that take part, of all N tiles at the first position, then of those at the next.
    inside : (n,P) bool, their patches that take part; None for all.
    """

    part: int
    positions: Array
    images: int
    rows: Array
    inside: Array | None = None

    @property
    def image(self) -> Array:
        """The image (n,) of each tile."""
        image: Array = self.rows % self.images
        return image

    @property
    def position(self) -> Array:
        """The position (n,) of each tile."""
        position: Array = self.positions[self.rows // self.images]
        return position

    def apart(self, copies: Groups) -> list[list[int]]:
        """Return the tiles that do not judge each other, by their place among those that take part.

        They are those of images that are ``copies``, and of one image where it has several.
        """
        return [group for group in self._groups(copies) if len(group) > 1]

    def _groups(self, copies: Groups) -> list[list[int]]:
        """Return ``apart``, with groups of none and of one: those of the ``copies`` come first."""
        groups = [list(group) for group in copies]
        if len(self.positions) > 1:
            alone = set(range(self.images)).difference(*groups)
            groups += [[image] for image in sorted(alone)]
        return [np.flatnonzero(np.isin(self.image, group)).tolist() for group in groups]

    def can_be_apart(self, method: Method, copies: Groups) -> list[bool]:
        """Return of each group of ``copies`` whether enough other tiles are left to judge its own."""
        groups = self._groups(copies)
        found = iter(method.can_be_apart(len(self.rows), [group for group in groups if group]))
        return [not group or next(found) for group in groups[: len(copies)]]

    def enough(self, method: Method) -> bool:
        """Whether the tiles are enough for the method, each without those of its own image."""
        tiles = len(self.rows)
        if smallest_lot(method.interval, tiles) > tiles:
            return False
        try:
            method.judges(tiles)
        except LotError:
            return False
        return method.by == RESIDUAL or all(method.can_be_apart(tiles, self.apart(())))


def tile_lots(images: int, positions: int, *, free: bool, inside: Array | None = None) -> list[TileLot]:
    """Return the lots of tiles of so many images: one for each position, or where they are ``free`` one.

    ``inside`` (N,T*P) are the patches that take part, one tile of an image after the other; None for all.
    """
    numbers = np.arange(positions)
    parts = [numbers] if free else list(numbers[:, None])
    lots = []
    for part, those in enumerate(parts):
        rows = np.arange(images * len(those))
        if inside is None:
            lots.append(TileLot(part, those, images, rows))
            continue
        patches = inside.reshape(images, positions, -1)[:, those].swapaxes(0, 1).reshape(len(rows), -1)
        rows = np.flatnonzero(patches.any(axis=1))
        lots.append(TileLot(part, those, images, rows, patches[rows]))
    return lots


def require_enough_tiles(
    lots: Sequence[TileLot], method: Method, images: Sequence[LotImage]
) -> tuple[list[TileLot], tuple[str, ...]]:
    """Return the lots with tiles enough to score, and a warning if others have some.

    Raises
    ------
    LotError
        If nothing is left of an image.
    """
    scored = [lot for lot in lots if lot.enough(method)]
    few = [lot for lot in lots if len(lot.rows) and lot not in scored]
    left = set(np.concatenate([lot.image for lot in scored]).tolist()) if scored else set()
    if lost := [image for row, image in enumerate(images) if row not in left]:
        first = ", ".join(shown(image.name) for image in lost[:_NAMED])
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        raise LotError(
            f"nothing can be scored of {first}{more}: too few other images have a patch in the region within "
            f"the same tile, and {_least(method)} are needed. Widen the region, or take fewer tiles."
        )
    if not few:
        return scored, ()
    return scored, (
        f"nothing is scored at {counted(len(few), 'tile position')} of {len(lots)}, where at most "
        f"{counted(max(len(lot.rows) for lot in few), 'image')} have a patch in the region and "
        f"{_least(method)} are needed",
    )


def require_judges(lots: Sequence[TileLot], method: Method) -> None:
    """Raise LotError if a group is so small that too few of it are tiles of other images."""
    group = method.group_size
    for lot in lots:
        tiles = len(lot.rows)
        if group is None or method.by == RESIDUAL or group >= tiles - 1:
            continue
        if not all(method.can_be_apart(tiles, lot.apart(()))):
            enough = _least(method) - 1 + len(lot.positions) - 1
            raise LotError(
                f"a group size of {group} is too small for tiles that are compared with those of any place: "
                f"those of its own image, up to {len(lot.positions) - 1} of a tile's group, do not judge it, "
                f"and the interval {method.interval} needs at least {_least(method) - 1} others. Choose a "
                f"group size of {enough} or more, or none."
            )


def _least(method: Method) -> int:
    return smallest_lot(method.interval)
