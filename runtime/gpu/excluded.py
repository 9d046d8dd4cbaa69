"""Patches outside of a region of interest, on a GPU: with an infinite square none is ever the nearest."""

from __future__ import annotations

import numpy as np

from ...kernels.gpu import DeviceArray, Gpu, Stream
from ...kernels.launches import INFINITY_BITS
from ..types import Array


def exclude(gpu: Gpu, squares: DeviceArray, inside: Array, stream: Stream) -> None:
    """Make the ``squares`` (n,P) of all patches that are not ``inside`` (n,P) infinite.

    gram_min adds the squares of both patches to their product: the distance to an excluded patch is infinite.
    Patches that follow each other are filled at once: of a rectangle, one run for each row of the grid.
    """
    changes = np.diff(np.concatenate([[False], ~inside.ravel(), [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        address = squares.address + start * squares.dtype.itemsize
        gpu.fill(DeviceArray(address, (stop - start,), squares.dtype), INFINITY_BITS, stream)
