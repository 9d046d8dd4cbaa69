"""Blocks of centred tokens that are in memory while images are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..._numbers import ceil_div
from ..types import FloatArray


class TokenBlocks:
    """Memory for a few blocks of images: the two sides of a comparison.

    Parameters
    ----------
    images : N, images of the lot.
    block : images in a block.
    held : number of blocks that there is room for; all of them if there are fewer.
    shape : (P, C) of an image's tokens.

    Attributes
    ----------
    room : ndarray of shape (rows, P, C), float32; the caller fills the rows that ``make_room_for`` names.
    """

    def __init__(self, images: int, block: int, held: int, shape: tuple[int, int]) -> None:
        self._images, self._block = images, block
        self.room: FloatArray = np.empty((min(held, ceil_div(images, block)) * block, *shape), np.float32)
        self._first_row: dict[int, int] = {}

    def tokens(self, block: int) -> FloatArray:
        """Return the tokens (n,P,C) of a block that is held."""
        start = self._first_row[block]
        return self.room[start : start + self._block]

    def make_room_for(self, blocks: Sequence[int]) -> list[tuple[int, int]]:
        """Hold ``blocks`` and drop others that are in their way; returns the rows that are to be filled.

        Blocks that are held already stay where they are, so that each is read as rarely as the room allows.

        Returns
        -------
        For each image that is not there yet, its place on the circle and its row in ``room``.
        """
        self._first_row = {block: row for block, row in self._first_row.items() if block in blocks}
        taken = set(self._first_row.values())
        free = iter([row for row in range(0, len(self.room), self._block) if row not in taken])
        missing = []
        for block in blocks:
            if block not in self._first_row:
                self._first_row[block] = row = next(free)
                start, stop = block * self._block, min((block + 1) * self._block, self._images)
                missing += [(place, row + place - start) for place in range(start, stop)]
        return missing
