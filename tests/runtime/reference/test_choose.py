"""Images and patches that cover the rest, by a plain loop and by what k-center guarantees."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from musc_edge.runtime.reference.choose import cover, held_out, nearest_others
from musc_edge.runtime.types import Array, FloatArray


def unit_points(count: int, seed: int = 0, width: int = 5) -> FloatArray:
    points = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    unit: FloatArray = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def radius(points: Array, chosen: Array) -> float:
    """Distance of the point that is farthest from its nearest chosen one."""
    return float(max(min(np.linalg.norm(p - points[i]) for i in chosen) for p in points))


def test_the_farthest_point_comes_next() -> None:
    points = unit_points(30)
    mean = points.mean(axis=0)
    chosen = [max(range(30), key=lambda i: float(points[i] @ mean))]
    while len(chosen) < 8:
        away = [min(float(np.linalg.norm(p - points[i])) for i in chosen) for p in points]
        chosen.append(int(np.argmax(away)))
        assert set(cover(points, len(chosen))) == set(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_no_choice_covers_twice_as_well(seed: int) -> None:
    points = unit_points(11, seed)
    best = min(radius(points, np.array(some)) for some in combinations(range(11), 3))
    assert radius(points, cover(points, 3)) <= 2 * best + 1e-6


@pytest.mark.parametrize("count", [1, 4, 9, 20])
def test_equal_points_are_taken_once_each(count: int) -> None:
    points = np.repeat(unit_points(3), 3, axis=0)
    chosen = cover(points, count)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(count, 9)


def test_points_without_content_can_be_chosen() -> None:
    assert list(cover(np.zeros((4, 3), np.float32), 2)) == [0, 1]


def test_as_many_as_asked_for_are_held_out_and_always_the_same() -> None:
    drawn = held_out(40, 0.3)
    assert len(drawn) == len(set(drawn)) == 12
    np.testing.assert_array_equal(drawn, held_out(40, 0.3))
    assert not np.array_equal(drawn, np.arange(12))
    assert len(held_out(40, 0)) == 0
    assert list(held_out(5, 1)) == [0, 1, 2, 3, 4]


def test_the_nearest_other_is_no_image_itself() -> None:
    points = unit_points(7)
    others = [np.delete(points, i, axis=0) for i in range(7)]
    expected = [np.linalg.norm(q - p, axis=1).min() for p, q in zip(points, others, strict=True)]
    np.testing.assert_allclose(nearest_others(points), expected, atol=1e-6)
