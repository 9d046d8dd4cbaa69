"""Put the maps of an image's tiles together to the map of the whole image.

The whole map has cells as large as a tile's patches (``Layout.grid``).  A cell takes the value that a tile's
map has at its centre, between the patches linearly.  Where tiles overlap, each counts the more the farther
the cell lies inside it; the weights of a cell add up to one, so that an even lot has an even map.  Tiles that
lie side by side, or overlap by whole patches, keep the scores of their patches as they are.

A patch outside of a region of interest, NaN, takes no part.  A tile has a cell if at least half of what it
would add there is of patches with a score, or if the cell is the nearest to such a patch, so that none is
lost.  A cell is made of the tiles that have it, and NaN where none has.
"""

from __future__ import annotations

import numpy as np

from ..tiling import Axis, Layout
from ..types import Array, FloatArray
from .anomaly_map import HALF

_LEAST = 1e-9
"""Weight of a tile whose edge runs through the centre of a cell: the only one there, if none overlaps."""


def stitch(maps: Array, layout: Layout) -> FloatArray:
    """Return the maps (N,GH,GW) of whole images from those of their tiles.

    Parameters
    ----------
    maps : (T,N,Gh,Gw), in the order of ``layout.positions``.
    """
    _, images, height, width = maps.shape
    down, across = weights(layout.down, height), weights(layout.across, width)
    tiles = maps.reshape(len(layout.down.starts), len(layout.across.starts), images, height, width)
    whole = np.empty((images, len(down), len(across)), np.float32)
    for i in range(images):
        if np.isnan(tiles[:, :, i]).any():
            whole[i] = _stitch_inside(tiles[:, :, i], layout)
            continue
        side_by_side = tiles[:, :, i].swapaxes(1, 2).reshape(down.shape[1], across.shape[1])
        whole[i] = down @ side_by_side.astype(np.float64) @ across.T
    return whole


def weights(axis: Axis, patches: int) -> Array:
    """Weights (cells, tiles * patches) that make the cells along one side of the patches of its tiles."""
    share, between = _share_and_between(axis, patches)
    return np.asarray((share[:, :, None] * between).reshape(len(share), -1))


def _share_and_between(axis: Axis, patches: int) -> tuple[Array, Array]:
    """Return the share of each tile in a cell (cells,tiles), and of its patches (cells,tiles,patches)."""
    cells = axis.cells(patches)
    centres = (np.arange(cells) + 0.5) / cells
    inside = (centres[:, None] - np.array(axis.starts)) / axis.length  # of each tile, 0 to 1
    depth = np.minimum(inside, 1 - inside)
    share = np.where(depth > -_LEAST, np.maximum(depth, _LEAST), 0)
    share /= share.sum(axis=1, keepdims=True)
    # Rounded, so that a cell on a patch takes that patch's value and nothing of its neighbor's.
    place = np.clip(np.round(inside * patches - 0.5, 9), 0, patches - 1)
    between = np.maximum(1 - np.abs(place[:, :, None] - np.arange(patches)), 0)  # (cells, tiles, patches)
    return share, between


def _stitch_inside(tiles: Array, layout: Layout) -> FloatArray:
    """Return the map (GH,GW) of an image from its tiles (Tr,Tc,Gh,Gw), some of whose patches are NaN."""
    shares_down, between_down = _share_and_between(layout.down, tiles.shape[2])
    shares_across, between_across = _share_and_between(layout.across, tiles.shape[3])
    total = np.zeros((len(shares_down), len(shares_across)))
    weights = np.zeros_like(total)
    for row, column in layout.positions:
        inside = ~np.isnan(tiles[row, column])
        ours = np.ix_(shares_down[:, row] > 0, shares_across[:, column] > 0)
        share = np.outer(shares_down[:, row], shares_across[:, column])[ours]
        down, across = between_down[ours[0][:, 0], row], between_across[ours[1][0], column]
        values = down @ np.where(inside, tiles[row, column], 0).astype(np.float64) @ across.T
        there = down @ inside.astype(np.float64) @ across.T
        has = (there >= HALF - _LEAST) | (_nearest(down) @ inside @ _nearest(across).T & (there > 0))
        weights[ours] += np.where(has, share, 0)
        total[ours] += share * np.divide(values, there, out=np.zeros_like(values), where=has)
    return np.divide(total, weights, out=np.full_like(total, np.nan), where=weights > 0).astype(np.float32)


def _nearest(between: Array) -> Array:
    """Return which cell (cells,patches) bool is the nearest to each patch."""
    nearest: Array = np.arange(len(between))[:, None] == between.argmax(axis=0)
    return nearest
