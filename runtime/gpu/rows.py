"""The rows of patches that are compared on the GPU, in half precision or in int8, and the kernels of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...kernels import launches
from ...kernels.gpu import DeviceArray, Gpu, Stream
from ...kernels.precisions import INT8


def pitch_of(width: int, precision: str) -> int:
    """Return the values from one row to the next; KernelError for tokens that are too wide."""
    return launches.int8_pitch_of(width) if precision == INT8 else launches.pitch_of(width)


def row_bytes(width: int, precision: str) -> int:
    """Return the bytes of a patch's row with what belongs to it: its square, and in int8 its scale."""
    values = pitch_of(width, precision)
    return values + 4 + 4 if precision == INT8 else 2 * values + 4


class Rows(NamedTuple):
    """Rows of some images: ``features`` (n,P,pitch), their ``squares`` (n,P), in int8 ``scales`` (n,P)."""

    features: DeviceArray
    squares: DeviceArray
    scales: DeviceArray | None

    @classmethod
    def allocate(
        cls,
        empty: Callable[[tuple[int, ...], type], DeviceArray],
        images: int,
        patches: int,
        width: int,
        precision: str,
    ) -> Rows:
        """Make the arrays by ``empty(shape, dtype)``, without values."""
        of_int8 = precision == INT8
        features = empty((images, patches, pitch_of(width, precision)), np.int8 if of_int8 else np.uint16)
        squares = empty((images, patches), np.float32)
        return cls(features, squares, empty((images, patches), np.float32) if of_int8 else None)

    def part(self, start: int, stop: int) -> Rows:
        """Return the images ``start`` to ``stop``."""
        features, squares = (array.rows(start, stop) for array in self[:2])
        return Rows(features, squares, self.scales and self.scales.rows(start, stop))

    def pool(
        self,
        gpu: Gpu,
        tokens: DeviceArray,
        centres: DeviceArray,
        shift: DeviceArray,
        grid: tuple[int, int],
        degree: int,
        stream: Stream,
    ) -> None:
        """Queue making the rows of ``tokens`` (n,P,C), pooled over ``degree`` and less the ``shift``."""
        features, squares, scales = self
        if scales is None:
            launches.pool(gpu, tokens, centres, shift, features, squares, grid, degree, stream)
        else:
            rows = features, squares, scales
            launches.pool_int8(gpu, tokens, centres, shift, rows, grid, degree, stream)

    def compare(self, gpu: Gpu, pairs: DeviceArray, distances: DeviceArray, stream: Stream) -> None:
        """Queue the comparison of ``pairs`` (count,4) of images, into ``distances`` (rows,P)."""
        features, squares, scales = self
        if scales is None:
            launches.gram_min(gpu, features, squares, pairs, distances, stream)
        else:
            launches.gram_min_int8(gpu, (features, squares, scales), pairs, distances, stream)
