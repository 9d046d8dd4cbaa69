"""Maps of tiles become one map: no seams, patches keep their scores, and each cell takes what lies there."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.stitch import stitch
from musc_edge.runtime.tiling import Tiles, layout_of

SIZE = 1944, 1100
LAYOUTS = [
    Tiles(2, 3),
    Tiles(3, 2, overlap=0.25),
    Tiles(2, 2, overlap=0.31),
    Tiles(2, 2, overlap=0.5),
    Tiles(1, 1),
    Tiles(2, 4, overlap=37),
    Tiles(side=500),
    Tiles(side=501, overlap=77),
]


@pytest.mark.parametrize("tiles", LAYOUTS, ids=str)
def test_an_even_lot_has_an_even_map(tiles: Tiles) -> None:
    layout = layout_of(tiles, [SIZE])
    value = np.float32(0.7123)
    maps = np.full((len(layout.positions), 2, 7, 5), value)
    assert (stitch(maps, layout) == value).all()


def test_tiles_side_by_side_keep_the_scores_of_their_patches() -> None:
    layout = layout_of(Tiles(2, 3), [])
    maps = np.random.default_rng(0).random((6, 4, 5, 7), np.float32)
    whole = stitch(maps, layout)
    for number, (row, column) in enumerate(layout.positions):
        there = whole[:, row * 5 : (row + 1) * 5, column * 7 : (column + 1) * 7]
        np.testing.assert_array_equal(there, maps[number])


@pytest.mark.parametrize("tiles", LAYOUTS, ids=str)
def test_a_slope_over_the_image_goes_on_over_all_seams(tiles: Tiles) -> None:
    """Where each patch's score is the place of its centre, so is each cell's, but at the image's edges."""
    layout = layout_of(tiles, [SIZE])
    patches = 8
    maps = np.empty((len(layout.positions), 1, patches, patches), np.float32)
    for number, position in enumerate(layout.positions):
        left, _, right, _ = layout.box(position, (1, 1))
        maps[number] = left + (np.arange(patches) + 0.5) / patches * (right - left)
    whole = stitch(maps, layout)[0]
    cells = whole.shape[1]
    centres = (np.arange(cells) + 0.5) / cells
    patch = layout.across.length / patches
    np.testing.assert_allclose(whole, np.broadcast_to(centres, whole.shape), atol=patch / 2 * 1.01)


def test_by_hand_with_an_overlap_of_half_a_tile() -> None:
    """Two tiles of four patches on six cells: in the middle two, the weights change from one to the other."""
    layout = layout_of(Tiles(1, 2, overlap=0.5), [])
    maps = np.array([[[[1, 1, 1, 1]]], [[[0, 0, 0, 0]]]], np.float32)
    np.testing.assert_allclose(stitch(maps, layout)[0, 0], [1, 1, 0.75, 0.25, 0, 0], atol=1e-7)


def test_the_highest_score_of_any_tile_is_the_raw_score() -> None:
    layout = layout_of(Tiles(2, 2), [])
    maps = np.random.default_rng(1).random((4, 3, 4, 4), np.float32)
    np.testing.assert_allclose(
        raw_scores(stitch(maps, layout), (8 * 14, 8 * 14)), maps.max(axis=(0, 2, 3)), atol=0.02
    )
