"""The rows of patches that are compared on the GPU, in half precision or in int8, and the kernels of each."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np

from ...kernels import launches
from ...kernels.gpu import DeviceArray, Gpu, Stream
from ...kernels.precisions import INT8


def row_bytes(patches: int, width: int, precision: str) -> int:
    """Return the bytes of an image's rows with what belongs to them: squares, and in int8 scales."""
    itemsize, floats = (1, 2) if precision == INT8 else (2, 1)
    return prod(launches.feature_shape(1, patches, width, itemsize)) * itemsize + patches * 4 * floats


class Rows(NamedTuple):
    """Rows of some images: ``features`` in blocks, their ``squares`` (n,P), in int8 ``scales`` (n,P)."""

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
        shape = launches.feature_shape(images, patches, width, 1 if of_int8 else 2)
        features = empty(shape, np.int8 if of_int8 else np.uint16)
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

    def compare(
        self,
        gpu: Gpu,
        pairs: DeviceArray,
        distances: DeviceArray,
        stream: Stream,
        near: launches.Near | None = None,
    ) -> None:
        """Queue the comparison of ``pairs`` (count,4) of images, into ``distances`` (rows,P)."""
        features, squares, scales = self
        if scales is None:
            launches.gram_min(gpu, features, squares, pairs, distances, stream, near)
        else:
            launches.gram_min_int8(gpu, (features, squares, scales), pairs, distances, stream, near)
