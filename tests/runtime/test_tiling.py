"""Where tiles lie: they cover the image, evenly, and what cannot be laid is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.tiling import Tiles, layout_of


def test_rows_and_columns_are_shares_of_an_image_of_any_size() -> None:
    layout = layout_of(Tiles(2, 3), [(600, 400), (90, 80)])
    assert layout.positions == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert layout.box((1, 2), (600, 400)) == pytest.approx((400, 200, 600, 400))
    assert layout.box((0, 1), (90, 80)) == pytest.approx((30, 0, 60, 40))
    assert layout.grid((16, 16)) == (32, 48)


@pytest.mark.parametrize("overlap", [0.25, 64])
def test_neighbors_share_the_overlap(overlap: float) -> None:
    layout = layout_of(Tiles(1, 3, overlap=overlap), [(640, 100)])
    boxes = [layout.box(position, (640, 100)) for position in layout.positions]
    assert boxes[0][0] == 0
    assert boxes[-1][2] == pytest.approx(640)
    wanted = overlap if overlap >= 1 else overlap * (boxes[0][2] - boxes[0][0])
    for left, right in pairwise(boxes):
        assert left[2] - right[0] == pytest.approx(wanted)


def test_square_tiles_of_a_side_cover_an_image_with_as_few_as_it_takes() -> None:
    layout = layout_of(Tiles(side=500, overlap=50), [(1944, 1100)] * 3)
    boxes = [layout.box(position, (1944, 1100)) for position in layout.positions]
    assert {(round(b[2] - b[0], 6), round(b[3] - b[1], 6)) for b in boxes} == {(500, 500)}
    assert len(layout.across.starts) == 5  # four of 500 with 50 over each other are 1,850 pixels
    assert len(layout.down.starts) == 3
    assert max(b[2] for b in boxes) == pytest.approx(1944)


def test_one_tile_is_the_image() -> None:
    assert layout_of(Tiles(1, 1, overlap=0.5), []).box((0, 0), (7, 5)) == (0, 0, 7, 5)
    assert layout_of(Tiles(side=40), [(40, 40)]).positions == [(0, 0)]


@pytest.mark.parametrize(
    ("tiles", "sizes", "message"),
    [
        (Tiles(side=500), [(900, 900), (900, 901)], "images of one size, and these have 2"),
        (Tiles(2, 2, overlap=9), [(900, 900), (900, 901)], "images of one size"),
        (Tiles(side=500), [], "Give a folder of them"),
        (Tiles(side=500), [(900, 400)], "larger than the images, which have a side of 400"),
        (Tiles(4, 4, overlap=90), [(100, 100)], "more than half of a tile"),
        (Tiles(side=500, overlap=300), [(900, 900)], "more than half of a tile"),
        (Tiles(side=2), [(900, 900)], "450 along 900 pixels, expected at most 64"),
    ],
)
def test_what_cannot_be_laid_is_refused(tiles: Tiles, sizes: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(LotError, match=message):
        layout_of(tiles, sizes)


@pytest.mark.parametrize(
    "values", [(), (2,), (2, 2, 100), (65, 1), (-1, -1), (2, 2, 0, 0.6), (2, 2, 0, 1.5), (2, 2, 0, -1)]
)
def test_tiles_that_mean_nothing_are_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(LotError, match="expected"):
        Tiles(*values)
