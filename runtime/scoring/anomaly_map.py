"""Upsample mutual scores from the grid to pixels, and take one raw score per image (paper, section 3.1).

The grid is interpolated bilinearly with its corners on the image's corners (align_corners), and the
raw score of an image is the maximum of its pixel map, not of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import lru_cache, partial

import numpy as np
from threadpoolctl import threadpool_limits

from ..errors import LotError
from ..parallel import in_order
from ..types import Array, FloatArray, Manifest

_ROWS = 256
_AT_ONCE = 64_000_000  # bytes
HALF = 0.5
"""Share of a pixel's weights that belongs to patches with a score, from which on it has a value."""


def upsample(maps: Array, size: tuple[int, int]) -> FloatArray:
    """Bring maps from the patch grid to pixels (paper, section 3.1).

    Bilinear, with the corners of the grid on the corners of the image.  Patches that are NaN, since they are
    outside of a region of interest, take no part: the pixels around one are those of its neighbors, and NaN
    where more than half of their weights belong to such patches.

    Parameters
    ----------
    maps : ndarray of shape (N, Gh, Gw)
    size : (H, W)
        In pixels.

    Returns
    -------
    ndarray of shape (N, H, W), float32

    Raises
    ------
    LotError
        If ``maps`` has another number of axes, or ``size`` is not positive.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or min(size) < 1:
        raise LotError(
            f"maps of shape {maps.shape} to size {size}: expected (N, Gh, Gw) and a positive size."
        )
    outside = np.isnan(maps)
    if outside.any():
        return _upsample_inside(maps, ~outside, size)
    pixels = np.empty((len(maps), *size), np.float32)
    for top, strips in _strips(maps, size):
        pixels[:, top : top + _ROWS] = strips
    return pixels


def _strips(maps: Array, size: tuple[int, int]) -> Iterator[tuple[int, Array]]:
    """Yield the maps in pixels strip by strip, so that no whole one exists in float64: top, (N,rows,W)."""
    rows, columns = (interpolation(cells, pixels) for cells, pixels in zip(maps.shape[1:], size, strict=True))
    half = rows @ maps.astype(np.float64)  # (N,H,Gw)
    for top in range(0, size[0], _ROWS):
        yield top, half[:, top : top + _ROWS] @ columns.T


def map_size(shape: Sequence[int], manifest: Manifest) -> tuple[int, int]:
    """Return height and width in pixels at which raw scores are taken from maps of ``shape`` (N,Gh,Gw).

    That is the model's size, and of images that are cut into tiles as many pixels for each patch.
    """
    height, width = (
        side * cells // patches
        for side, cells, patches in zip(manifest.preprocess.size, shape[1:], manifest.grid, strict=True)
    )
    return height, width


def raw_scores(maps: Array, size: tuple[int, int], threads: int = 1) -> Array:
    """Return the maximum of each pixel map, (N,) float64, by at most so many ``threads``.

    Pixels outside of a region, NaN, are left out; a map of nothing else has no maximum: NaN.

    Raises
    ------
    DeviceError
        If a thread cannot be started.
    """
    if len(maps) == 1:
        return np.array([_peak(maps[0], size)])
    each = 8 * size[1] * (_ROWS + size[0])  # bytes of a strip, and of the columns that it is made of
    threads = max(1, min(threads, _AT_ONCE // each))
    # The products are small: threads of BLAS would take twenty times as long to share one.
    each_peak = in_order(maps, partial(_peak, size=size), threads, 2 * threads, "maps")
    with threadpool_limits(1, "blas"), closing(each_peak) as peaks:
        return np.array([peak for _, peak in peaks], np.float64)


def _peak(grid: Array, size: tuple[int, int]) -> float:
    """Return the maximum of a map in pixels, as float32, without making the map if no patch is outside."""
    if np.isnan(grid).any():
        return float(np.fmax.reduce(upsample(grid[None], size), axis=None))
    return float(np.float32(max(strip.max() for _, strip in _strips(grid[None], size))))


def _upsample_inside(maps: Array, inside: Array, size: tuple[int, int]) -> FloatArray:
    """``upsample`` where only the patches ``inside`` (N,Gh,Gw) count."""
    values = upsample(np.where(inside, maps, 0), size)
    weights = upsample(inside.astype(np.float32), size)
    values[weights < HALF] = np.nan
    return np.divide(values, weights, out=values, where=weights >= HALF)


def to_grid(pixels: Array, grid: tuple[int, int]) -> FloatArray:
    """Return the map on the grid (Gh,Gw) whose upsampling comes nearest to ``pixels`` (H,W): its inverse.

    Where a part is outside of a region, NaN, the pixels at the patches' places are taken.
    """
    if np.isnan(pixels).any():
        places = [
            np.linspace(0, side - 1, cells).round().astype(int)
            for cells, side in zip(grid, pixels.shape, strict=True)
        ]
        return np.asarray(pixels[np.ix_(*places)], np.float32)
    rows, columns = (_inverse(*pair) for pair in zip(grid, pixels.shape, strict=True))
    return np.asarray(rows @ pixels.astype(np.float64) @ columns.T, np.float32)


@lru_cache(16)
def _inverse(cells: int, pixels: int) -> Array:
    """The least-squares inverse (cells, pixels) of the interpolation matrix."""
    return np.linalg.pinv(interpolation(cells, pixels))


def interpolation(cells: int, pixels: int) -> Array:
    """Linear interpolation matrix (pixels, cells) with align_corners: at most two weights in a row."""
    position = np.linspace(0.0, cells - 1, pixels) if pixels > 1 else np.zeros(1)
    # The last pixel lies on the last cell: it takes the interval before it, with weight 1 at its end.
    low = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    weights = np.zeros((pixels, cells))
    pixel = np.arange(pixels)
    weights[pixel, low] = 1.0 - (position - low)
    # Added, not set: with a single cell both weights belong to it.
    weights[pixel, np.minimum(low + 1, cells - 1)] += position - low
    return weights
