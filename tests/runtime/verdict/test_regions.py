"""Regions: by hand, against labels of the whole image at once, and in strips of any width."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from musc_edge import upsample
from musc_edge.runtime.types import Array
from musc_edge.runtime.verdict import regions
from musc_edge.runtime.verdict.regions import Region, SizedMap, find_regions


def mask_of(found: list[Region], size: tuple[int, int]) -> Array:
    """The pixels of all regions (H,W), numbered from 1."""
    flat = np.zeros(size[0] * size[1], int)
    for number, region in enumerate(found, 1):
        for start, length in region.runs:
            flat[start : start + length] = number
    return flat.reshape(size[1], size[0]).T


def test_by_hand() -> None:
    """Two regions of a map at the image's own size; pixels that touch at a corner are one."""
    values = np.zeros((4, 6), np.float32)
    values[0, 1], values[1, 2], values[2, 2] = 0.5, 0.7, 0.7
    values[3, 5] = 0.9
    first, second = find_regions(SizedMap(values, (4, 6)), 0.5)
    assert (first.x, first.y, first.width, first.height, first.area) == (5, 3, 1, 1, 1)
    assert (round(first.peak, 6), first.peak_x, first.peak_y) == (0.9, 5, 3)
    assert (second.x, second.y, second.width, second.height, second.area) == (1, 0, 2, 3, 3)
    assert (second.peak_x, second.peak_y) == (2, 1)  # the upper one of equal values
    assert [second.centroid_x, second.centroid_y] == pytest.approx([5 / 3, 1])
    assert second.runs.tolist() == [[4, 1], [9, 2]]
    assert find_regions(SizedMap(values, (4, 6)), 0.91) == []
    assert [region.area for region in find_regions(SizedMap(values, (4, 6)), 0.5, least_area=2)] == [3]


def test_values_are_compared_as_they_are_written() -> None:
    """A raw score of 0.1234567 is written as 0.123457, which its own map must reach."""
    values = np.full((2, 2), 0.1234567, np.float32)
    assert find_regions(SizedMap(values, (2, 2)), 0.123457)[0].area == 4
    assert find_regions(SizedMap(values, (2, 2)), 0.123458) == []


def same(found: list[Region], values: Array, limit: float) -> None:
    """Compare regions with the labels and statistics of OpenCV over the whole image."""
    mask = (values >= limit).astype(np.uint8)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    numbers = mask_of(found, values.shape)
    assert len(found) == count - 1
    assert ((numbers > 0) == (mask > 0)).all()
    for number, region in enumerate(found, 1):
        label = labels[region.peak_y, region.peak_x]
        assert ((numbers == number) == (labels == label)).all()
        assert stats[label].tolist() == [region.x, region.y, region.width, region.height, region.area]
        assert [region.centroid_x, region.centroid_y] == pytest.approx(centroids[label].tolist())
        assert region.peak == values[labels == label].max() == values[region.peak_y, region.peak_x]
    assert [region.peak for region in found] == sorted((each.peak for each in found), reverse=True)


def noise(seed: int, shape: tuple[int, int]) -> Array:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("strip", [1, 40, 200, 1 << 20])
@pytest.mark.parametrize("limit", [0.35, 0.6, 0.9, 0.0])
def test_strips_of_any_width_give_the_regions_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, strip: int, limit: float
) -> None:
    monkeypatch.setattr(regions, "_STRIP", strip)
    values = noise(0, (40, 31))
    same(find_regions(SizedMap(values, (40, 31)), limit), values, limit)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "spiral": lambda y, x: np.sin(np.hypot(y, x) / 2 + np.arctan2(y, x)),
    "comb": lambda y, x: np.where((x % 2 == 0) | (y > 18), 1.0, 0.0),
    "checkerboard": lambda y, x: ((y + x) % 2).astype(float),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_wind_across_strips(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    monkeypatch.setattr(regions, "_STRIP", 120)
    y, x = np.mgrid[-20:20, -25:25].astype(float)
    values = SHAPES[shape](y, x).astype(np.float32)
    same(find_regions(SizedMap(values, values.shape), 0.5), values, 0.5)


@pytest.mark.parametrize("size", [(30, 50), (7, 5), (200, 3), (1, 1), (16, 16)])
def test_a_grid_is_brought_to_the_images_size(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    monkeypatch.setattr(regions, "_STRIP", 100)
    grid = noise(3, (16, 16))
    values = SizedMap(grid, size)
    whole = upsample(grid[None], size)[0]
    assert values.highest() == pytest.approx(whole.max())
    np.testing.assert_allclose(
        np.concatenate([strip for _, _, strip in values.strips()], axis=1), whole, rtol=1e-6
    )
    limit = float(np.quantile(whole, 0.8)) - 1e-4  # on no value
    assert (mask_of(find_regions(values, limit), size) > 0).tolist() == (whole >= limit).tolist()
