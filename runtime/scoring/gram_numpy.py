"""Pool one Gram for all degrees and take the largest cosines, with numpy alone.

Pooling is linear, so the Gram of pooled tokens is the Gram of the tokens themselves, summed over the
r x r neighborhood of the row's patch and over that of the column's: a box filter along four axes,
(h, w) of the row and (h', w') of the column, with nothing beyond the grid.  Each of the four sums is a
product with a band matrix of zeros and ones, since numpy is fastest at products.

Costs per element of the Gram 2*(Gh + Gw) multiply-adds for each degree above 1, against C of the
product itself, and five passes over memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Array, FloatArray
from .aggregate import band
from .nearest import OPPOSITE, far_apart


class NumpyFilter:
    """A ``GramFilter`` (protocols.py); holds the scratch memory of one worker."""

    name = "numpy"
    version = f"numpy {np.__version__}"
    note = ""

    def __init__(self, grid: tuple[int, int], degrees: Sequence[int], window: int | None = None) -> None:
        height, width = grid
        patches = height * width
        self._grid = grid
        self._bands = [(band(height, r), band(width, r)) if r > 1 else None for r in degrees]
        self._pooled, self._scratch = np.empty((2, patches, patches), np.float32)
        self._each = np.arange(patches)
        self._far = None if window is None else far_apart(grid, window)

    def maxima(
        self,
        gram: FloatArray,
        own: FloatArray,
        others: FloatArray,
        rows: FloatArray,
        columns: FloatArray,
        inside: tuple[Array, Array] | None = None,
    ) -> None:
        """As ``GramFilter`` says."""
        # Every product has a shape that the grid alone decides, never a block of images or a number of
        # threads: BLAS then sums in the same order, and the same pair gives the same bytes in every plan.
        for t, bands in enumerate(self._bands):
            cosines = self._pooled
            if bands is None:
                np.multiply(gram, own[t][:, None], out=cosines)
            else:
                self._pool(gram, *bands, own[t])
            np.multiply(cosines, others[t], out=cosines)
            self._exclude(cosines, inside)
            np.max(cosines, axis=0, out=columns[t])
            rows[t] = cosines[self._each, cosines.argmax(axis=1)]  # faster than max along short rows

    def _exclude(self, cosines: FloatArray, inside: tuple[Array, Array] | None) -> None:
        """Make the pairs of patches that are not to be compared the farthest."""
        if self._far is not None:
            cosines[self._far] = OPPOSITE
        if inside is not None:
            cosines[~inside[0]] = OPPOSITE
            cosines[:, ~inside[1]] = OPPOSITE

    def _pool(self, gram: FloatArray, tall: FloatArray, wide: FloatArray, own: FloatArray) -> None:
        """Sum ``gram`` over the neighborhoods of both patches, rows scaled by ``own`` (P,)."""
        height, width = self._grid
        patches = height * width
        a, b = self._pooled, self._scratch
        # Four sums, each a product along one axis of the Gram seen as (h, w, h', w'); two scratch arrays take
        # turns.  The row's scale rides on the second, which is a product per grid row anyway.
        over_h, over_all = (height, width * patches), (patches, height, width)
        np.matmul(tall, gram.reshape(over_h), out=b.reshape(over_h))
        scaled = wide * own.reshape(height, width, 1)
        np.matmul(scaled, b.reshape(height, width, patches), out=a.reshape(height, width, patches))
        np.matmul(a.reshape(-1, width), wide, out=b.reshape(-1, width))
        np.matmul(tall, b.reshape(over_all), out=a.reshape(over_all))
