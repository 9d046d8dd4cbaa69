"""Put the maps of an image's tiles together to the map of the whole image.

The whole map has cells as large as a tile's patches (``Layout.grid``).  A cell takes the value that a tile's
map has at its centre, between the patches linearly.  Where tiles overlap, each counts the more the farther
the cell lies inside it; the weights of a cell add up to one, so that an even lot has an even map.  Tiles that
lie side by side, or overlap by whole patches, keep the scores of their patches as they are.
"""

from __future__ import annotations

import numpy as np

from ..tiling import Axis, Layout
from ..types import Array, FloatArray

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
        side_by_side = tiles[:, :, i].swapaxes(1, 2).reshape(down.shape[1], across.shape[1])
        whole[i] = down @ side_by_side.astype(np.float64) @ across.T
    return whole


def weights(axis: Axis, patches: int) -> Array:
    """Weights (cells, tiles * patches) that make the cells along one side of the patches of its tiles."""
    cells = axis.cells(patches)
    centres = (np.arange(cells) + 0.5) / cells
    inside = (centres[:, None] - np.array(axis.starts)) / axis.length  # of each tile, 0 to 1
    depth = np.minimum(inside, 1 - inside)
    share = np.where(depth > -_LEAST, np.maximum(depth, _LEAST), 0)
    share /= share.sum(axis=1, keepdims=True)
    # Rounded, so that a cell on a patch takes that patch's value and nothing of its neighbor's.
    place = np.clip(np.round(inside * patches - 0.5, 9), 0, patches - 1)
    between = np.maximum(1 - np.abs(place[:, :, None] - np.arange(patches)), 0)  # (cells, tiles, patches)
    return np.asarray((share[:, :, None] * between).reshape(cells, -1))
