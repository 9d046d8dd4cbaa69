"""Maps in pixels and rescored values against the plain-loop oracle, where the golden files do not reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge import rescore, upsample
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.anomaly_map import to_grid
from support import oracle

Array = npt.NDArray[Any]
Grid = tuple[int, int]


def random_cls(N: int, D: int = 16, seed: int = 0) -> Array:
    """Unit rows (N,D) float32, no two alike, on one side of the origin as CLS embeddings are."""
    cls = np.random.default_rng(seed).normal(size=(N, D)) + 0.5
    return np.asarray(cls / np.linalg.norm(cls, axis=1, keepdims=True), np.float32)


def random_scores(N: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + 1000).uniform(0.3, 0.9, N).astype(np.float32)


# ---- upsampling ------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 7), (1, 6), (5, 1), (1, 1), (4, 4), (37, 37)])
@pytest.mark.parametrize("size", [(16, 28), (1, 1), (1, 9), (9, 1), (2, 3), (3, 2), (5, 5), (37, 41)])
def test_upsampled_maps_match_at_every_size_also_below_the_grid(grid: Grid, size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).uniform(0, 2, (3, *grid)).astype(np.float32)
    pixels = upsample(maps, size)
    assert pixels.shape == (3, *size)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, oracle.upsample(maps, size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_upsampled_maps_match_for_every_float_type(dtype: type[np.floating[Any]]) -> None:
    maps = np.random.default_rng(1).uniform(0, 2, (2, 3, 5)).astype(dtype)
    np.testing.assert_allclose(upsample(maps, (20, 33)), oracle.upsample(maps, (20, 33)), rtol=0, atol=1e-5)


def test_upsampling_keeps_the_corners_and_invents_no_extremes() -> None:
    maps = np.random.default_rng(2).uniform(0, 2, (4, 3, 7)).astype(np.float32)
    pixels = upsample(maps, (50, 64))
    np.testing.assert_allclose(pixels[:, ::49, ::63], maps[:, ::2, ::6], rtol=0, atol=1e-6)
    assert (pixels.max(axis=(1, 2)) <= maps.max(axis=(1, 2)) + 1e-6).all()
    assert (pixels.min(axis=(1, 2)) >= maps.min(axis=(1, 2)) - 1e-6).all()


def test_upsampling_to_the_size_of_the_grid_is_the_identity() -> None:
    maps = np.random.default_rng(3).uniform(0, 2, (4, 3, 7)).astype(np.float32)
    np.testing.assert_allclose(upsample(maps, (3, 7)), maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_a_size_that_is_not_positive_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(LotError):
        upsample(np.ones((2, 3, 3), np.float32), size)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3, 1)])
def test_maps_with_another_number_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LotError):
        upsample(np.ones(shape, np.float32), (8, 8))


def test_a_pixel_has_a_value_where_half_of_its_weights_belong_to_patches_with_a_score() -> None:
    maps = np.array([[[0.5, np.nan, np.nan, 0.25]]], np.float32)
    np.testing.assert_array_equal(upsample(maps, (1, 7)), [[[0.5, 0.5, np.nan, np.nan, np.nan, 0.25, 0.25]]])


@pytest.mark.parametrize("outside", [[], [(0, 0)], [(2, 3), (1, 1)]])
def test_a_map_on_the_grid_is_found_again_in_its_pixels(outside: list[tuple[int, int]]) -> None:
    maps = np.random.default_rng(8).uniform(0, 2, (1, 3, 4)).astype(np.float32)
    for row, column in outside:
        maps[0, row, column] = np.nan
    pixels = upsample(maps, (9, 16))[0]  # every fourth row and every fifth column lies on patches
    np.testing.assert_allclose(to_grid(pixels, (3, 4)), maps[0], rtol=0, atol=1e-6)


# ---- rescoring -------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbors", [(1, 2, 3), (1, 8, 9), (1,), (2,), (3, 2), (5,), (1, 20)])
@pytest.mark.parametrize("N", [5, 12, 40])
def test_rescored_values_match_also_where_k_exceeds_the_lot(N: int, neighbors: tuple[int, ...]) -> None:
    scores, cls = random_scores(N), random_cls(N)
    expected = oracle.rescore(scores, cls, neighbors)
    np.testing.assert_allclose(rescore(scores, cls, neighbors), expected, rtol=0, atol=1e-5)


def test_rescored_values_match_for_a_large_lot() -> None:
    scores, cls = random_scores(600, seed=1), random_cls(600, D=64, seed=1)
    expected = oracle.rescore(scores, cls, (1, 2, 3))
    np.testing.assert_allclose(rescore(scores, cls), expected, rtol=0, atol=1e-5)


def test_a_k_beyond_the_lot_takes_the_whole_lot() -> None:
    scores, cls = random_scores(4, seed=2), random_cls(4, seed=2)
    np.testing.assert_array_equal(rescore(scores, cls, (4,)), rescore(scores, cls, (9,)))


def test_rescored_values_match_with_negative_similarities_of_positive_sum() -> None:
    angles = np.deg2rad([0, 60, 100, 130, 185, 250, 310])
    cls = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    neighbors = (1, 3, 4)
    kept = -np.sort(-(cls @ cls.T), axis=1)[:, :4]
    assert kept.min() < -0.1
    assert kept.cumsum(axis=1).min() > 0.2
    scores = random_scores(7, seed=3)
    expected = oracle.rescore(scores, cls, neighbors)
    np.testing.assert_allclose(rescore(scores, cls, neighbors), expected, rtol=0, atol=1e-5)


def test_rescored_values_match_for_cls_embeddings_that_are_not_normalised() -> None:
    scores = random_scores(12, seed=4)
    cls = random_cls(12, seed=4) * np.linspace(0.5, 3, 12, dtype=np.float32)[:, None]
    expected = oracle.rescore(scores, cls, (1, 2, 3))
    np.testing.assert_allclose(rescore(scores, cls), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("N", [1, 2, 7])
@pytest.mark.parametrize("value", [0.0, 0.1, 3.7])
def test_constant_scores_also_of_a_single_image_become_zeros(N: int, value: float) -> None:
    rescored = rescore(np.full(N, value, np.float32), random_cls(N))
    np.testing.assert_array_equal(rescored, np.zeros(N))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rescoring_with_k_1_is_min_max_scaling(seed: int) -> None:
    scores = random_scores(15, seed)
    expected = (scores - scores.min()) / np.ptp(scores)
    np.testing.assert_allclose(rescore(scores, random_cls(15, seed=seed), (1,)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("neighbors", [(1,), (1, 2, 3), (1, 8, 9)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rescored_values_lie_between_0_and_1(seed: int, neighbors: tuple[int, ...]) -> None:
    rescored = rescore(random_scores(20, seed), np.abs(random_cls(20, seed=seed)), neighbors)
    assert rescored.min() >= 0
    assert rescored.max() <= 1 + 1e-6


def test_permuting_the_lot_permutes_the_rescored_values() -> None:
    scores, cls = random_scores(20, seed=5), random_cls(20, seed=5)
    order = np.random.default_rng(5).permutation(20)
    permuted = rescore(scores[order], cls[order])
    np.testing.assert_allclose(permuted, rescore(scores, cls)[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("factor", "offset"), [(1e-3, 0.0), (7.0, -2.0), (1.0, 100.0)])
def test_rescored_values_do_not_depend_on_the_scale_of_the_scores(factor: float, offset: float) -> None:
    scores, cls = random_scores(20, seed=6).astype(np.float64), random_cls(20, seed=6)
    np.testing.assert_allclose(
        rescore(factor * scores + offset, cls), rescore(scores, cls), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("neighbors", [(), (0,), (1, -2)])
def test_window_sizes_below_1_are_refused(neighbors: tuple[int, ...]) -> None:
    with pytest.raises(LotError, match="neighbors"):
        rescore(random_scores(6), random_cls(6), neighbors)


@pytest.mark.parametrize(
    ("scores", "cls"),
    [
        (random_scores(6), random_cls(5)),
        (random_scores(6)[:, None], random_cls(6)),
        (np.array(0.5), random_cls(1)),
        (random_scores(6), random_cls(6)[0]),
        (random_scores(0), random_cls(0)),
        (np.array([0.1, np.nan, 0.3]), random_cls(3)),
        (np.array([0.1, 0.2, 0.3]), np.full((3, 4), np.inf)),
    ],
)
def test_scores_and_cls_embeddings_that_do_not_fit_or_are_not_finite_are_refused(
    scores: Array, cls: Array
) -> None:
    with pytest.raises(LotError):
        rescore(scores, cls)
