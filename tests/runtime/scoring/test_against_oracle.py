"""Mutual scores against the plain-loop oracle, where golden files do not reach; see test_pixels.py too.

The golden files hold square grids, degrees 1, 3, 5 and the interval (0, 0.3).  Here are the rest: other
grids, degrees and intervals, unusual tokens, and properties that the algorithm has for every lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge import mutual_scores
from musc_edge.runtime.errors import LotError
from support import oracle

Array = npt.NDArray[Any]
Grid = tuple[int, int]
Interval = tuple[float, float]

DEFAULT_INTERVAL = (0.0, 0.3)
ODD_GRIDS = [(3, 7), (7, 3), (1, 6), (5, 1), (2, 2)]


def random_tokens(N: int, grid: Grid, C: int = 8, S: int = 1, seed: int = 0) -> Array:
    """Tokens (S,N,P,C) float32 that differ from each other by much more than 0.05 once normalised."""
    shape = (S, N, grid[0] * grid[1], C)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check_mutual(
    tokens: Array,
    grid: Grid,
    degrees: Sequence[int] = (1, 3, 5),
    interval: Interval = DEFAULT_INTERVAL,
    tolerance: float = 1e-5,
) -> Array:
    """Assert that the package agrees with the oracle; return the package's scores."""
    scores = mutual_scores(tokens, grid, degrees, interval)
    assert scores.dtype == np.float32
    expected = oracle.mutual_scores(tokens, grid, degrees, interval)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)
    return scores


# ---- mutual scores: grids, degrees, intervals, sizes -----------------------------------------


@pytest.mark.parametrize("grid", ODD_GRIDS)
def test_mutual_scores_match_on_grids_that_are_not_square(grid: Grid) -> None:
    check_mutual(random_tokens(7, grid, S=2), grid)


@pytest.mark.parametrize("grid", [(3, 7), (1, 6), (4, 4)])
@pytest.mark.parametrize("degrees", [(1,), (3,), (7,), (9,), (3, 7), (1, 9), (15,), (5, 101)])
def test_mutual_scores_match_for_other_degrees_also_wider_than_the_grid(
    grid: Grid, degrees: tuple[int, ...]
) -> None:
    check_mutual(random_tokens(6, grid, seed=1), grid, degrees)


@pytest.mark.parametrize(
    ("N", "interval"),
    [
        (11, (0.1, 0.5)),  # both ends on integers
        (11, (0.0, 1.0)),
        (11, (0.0, 0.3)),
        (11, (0.3, 0.7)),
        (11, (0.9, 1.0)),  # only the farthest image
        (11, (0.19, 0.21)),  # both ends rounded down
        (11, (0.55, 0.85)),
        (8, (0.15, 0.6)),
        (101, (0.28, 0.29)),  # 0.28 * 100 is above 28, 0.29 * 100 is below 29: int() takes 28 and 28
        (101, (0.28, 0.3)),
        (101, (0.57, 0.58)),
        (101, (0.56, 0.58)),
        (2, (0.0, 1.0)),  # one other image
        (3, (0.5, 1.0)),
        (5, (0.0, 0.3)),  # the smallest lot with the default interval
    ],
)
def test_mutual_scores_match_for_other_intervals(N: int, interval: Interval) -> None:
    grid = (1, 3) if N > 50 else (2, 3)
    tokens = random_tokens(N, grid, seed=2)
    if int(interval[0] * (N - 1)) == int(interval[1] * (N - 1)):
        with pytest.raises(LotError, match=str(N)):
            mutual_scores(tokens, grid, (3,), interval)
    else:
        check_mutual(tokens, grid, (3,), interval)


@pytest.mark.parametrize(
    ("N", "grid", "C"),
    [
        (60, (1, 2), 8),  # many images of few patches
        (40, (1, 1), 16),  # a single patch
        (5, (1, 1), 3),
        (5, (9, 11), 8),  # few images of many patches
        (7, (20, 30), 6),  # so many that the pairs of images need several matrix products
        (6, (3, 4), 1024),  # wide tokens
    ],
)
def test_mutual_scores_match_for_lots_of_any_shape(N: int, grid: Grid, C: int) -> None:
    check_mutual(random_tokens(N, grid, C, seed=3), grid, (3,))


@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_squares_match_where_patches_nearly_coincide(seed: int, degree: int) -> None:
    """Two channels leave little room: many distances are near 0, where the root magnifies rounding.

    The square of a distance is then what keeps its precision, to 8 units in the last place of 1; times what
    is lost where the tokens of a window nearly cancel: the rounding is theirs, the length that of their sum.
    """
    tokens, grid = random_tokens(6, (3, 4), C=2, seed=seed), (3, 4)
    nearest = mutual_scores(tokens, grid, (degree,))  # of six images: only one distance is averaged
    squares = nearest.astype(np.float64).ravel() ** 2
    images = [oracle.layer_norm(image.astype(np.float64)) for image in tokens[0]]
    sums = np.concatenate([oracle.aggregate(image, grid, degree) for image in images])
    lengths = [np.linalg.norm(image, axis=1, keepdims=True) for image in images]
    lost = np.concatenate([oracle.aggregate(length, grid, degree)[:, 0] for length in lengths])
    lost /= np.linalg.norm(sums, axis=1)
    units = oracle.normalise(sums)
    expected = ((units[:, None] - units) ** 2).sum(axis=2)
    own = np.kron(np.eye(6), np.ones((12, 12)))
    expected[own > 0] = np.inf
    assert (expected.min(axis=1) < 0.05**2).sum() > 10
    error = 8 * np.finfo(np.float32).eps * lost[:, None] * lost
    assert np.all(squares >= (expected - error).min(axis=1))
    assert np.all(squares <= (expected + error).min(axis=1))


def test_mutual_scores_are_averaged_over_many_layers() -> None:
    check_mutual(random_tokens(6, (2, 3), S=6, seed=4) * np.float32(3), (2, 3), (1, 3))


# ---- mutual scores: unusual tokens -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_mutual_scores_match_for_every_float_type(dtype: type[np.floating[Any]]) -> None:
    tokens = random_tokens(6, (3, 4), C=16, S=2, seed=5).astype(dtype)
    check_mutual(tokens, (3, 4))


def test_mutual_scores_match_for_half_precision_tokens_near_the_largest_value() -> None:
    tokens = (random_tokens(6, (3, 4), seed=6) * 12000).clip(-65000, 65000).astype(np.float16)
    check_mutual(tokens, (3, 4))


@pytest.mark.parametrize("mean", [1e2, -1e4, 1e5])
def test_a_huge_common_mean_does_not_cost_precision(mean: float) -> None:
    tokens = random_tokens(6, (3, 4), C=16, seed=7) + np.float32(mean)
    check_mutual(tokens, (3, 4))


def test_mutual_scores_match_where_a_few_channels_are_much_larger() -> None:
    tokens = random_tokens(6, (3, 4), C=32, seed=8)
    tokens[..., 5] = tokens[..., 5] * 3 + 60
    tokens[..., 9] *= 20
    scores = oracle.mutual_scores(tokens, (3, 4), (1,), DEFAULT_INTERVAL)
    assert scores.min() > 0.05
    check_mutual(tokens, (3, 4), (1,))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -37.3])
def test_a_constant_image_is_at_distance_1_from_every_other(
    value: float, dtype: type[np.floating[Any]]
) -> None:
    tokens = random_tokens(6, (3, 7), seed=9).astype(dtype)
    tokens[:, 2] = value
    scores = check_mutual(tokens, (3, 7))
    np.testing.assert_allclose(scores[2], 1, atol=1e-6)


def test_two_constant_images_are_at_distance_0_of_each_other() -> None:
    tokens = random_tokens(6, (3, 4), seed=10)
    tokens[:, 1], tokens[:, 4] = 0.7, -12.1
    scores = check_mutual(tokens, (3, 4))  # the interval holds the nearest image only
    assert scores[[1, 4]].max() == 0


@pytest.mark.parametrize("interval", [(0.0, 0.3), (0.0, 1.0), (0.4, 0.9)])
def test_mutual_scores_match_where_images_are_constant_in_some_layers(interval: Interval) -> None:
    tokens = random_tokens(8, (3, 4), S=3, seed=11)
    tokens[0, 3] = 1.3
    tokens[2, 3] = -0.1
    tokens[1, 5] = 0.0
    tokens[2, 6] = 5e3
    check_mutual(tokens, (3, 4), (1, 3), interval)


def test_a_lot_of_constant_images_scores_zero() -> None:
    tokens = np.empty((2, 7, 6, 8), np.float32)
    tokens[:] = np.linspace(-3, 9, 7, dtype=np.float32)[:, None, None]
    assert check_mutual(tokens, (2, 3)).max() == 0


@pytest.mark.parametrize("interval", [(0.0, 0.3), (0.5, 1.0)])
def test_mutual_scores_match_where_all_tokens_of_an_image_are_equal(interval: Interval) -> None:
    tokens = random_tokens(7, (3, 4), S=2, seed=12)
    tokens[:, 2] = tokens[:, 2, :1]  # one token, repeated: uniform, but not zero after centring
    tokens[1, 4] = tokens[1, 4, :1]
    check_mutual(tokens, (3, 4), (1, 3, 5), interval)


@pytest.mark.parametrize("interval", [(0.0, 0.3), (0.2, 0.8), (0.0, 1.0)])
def test_mutual_scores_match_where_single_patches_are_zero_after_centring(interval: Interval) -> None:
    rng = np.random.default_rng(13)
    half = rng.integers(-9, 10, size=(1, 7, 2, 64))
    zeros = np.zeros((1, 7, 2, 64))
    tokens = np.concatenate([half, -half, zeros], axis=2).astype(np.float32)  # every image's mean is 0
    tokens[:, 3:, 5] = -tokens[:, 3:, 0]  # three images keep both zero patches; the others keep one
    tokens[:, 3:, 4] = tokens[:, 3:, 0]
    tokens[:, 5:, 4:] = 0
    check_mutual(tokens, (2, 3), (1,), interval)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-2])
@pytest.mark.slow
def test_duplicates_come_out_close_to_zero_and_leave_the_others_exact(noise: float) -> None:
    tokens = random_tokens(11, (3, 4), C=32, S=2, seed=14)
    copies = [1, 6, 7, 9]  # each has three (near) duplicates, and the interval averages three images
    blur = noise * random_tokens(4, (3, 4), C=32, S=2, seed=15)
    tokens[:, copies] = tokens[:, [1]] + blur
    scores = mutual_scores(tokens, (3, 4))
    expected = oracle.mutual_scores(tokens, (3, 4), (1, 3, 5), DEFAULT_INTERVAL)
    assert expected[copies].max() < 0.05
    assert scores.min() >= 0
    np.testing.assert_allclose(scores[copies], expected[copies], rtol=0, atol=2e-3)
    others = np.setdiff1d(np.arange(11), copies)
    np.testing.assert_allclose(scores[others], expected[others], rtol=0, atol=1e-5)


# ---- mutual scores: properties ---------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_permuting_the_lot_permutes_the_scores(seed: int) -> None:
    tokens = random_tokens(12, (3, 5), S=2, seed=seed)
    order = np.random.default_rng(seed).permutation(12)
    scores = mutual_scores(tokens, (3, 5))
    permuted = mutual_scores(tokens[:, order], (3, 5))
    np.testing.assert_allclose(permuted, scores[order], rtol=0, atol=1e-6)


def test_adding_a_constant_to_an_image_changes_nothing() -> None:
    tokens = random_tokens(8, (3, 5), S=2, seed=16)
    offsets = np.linspace(-20, 20, 16, dtype=np.float32).reshape(2, 8, 1, 1)
    moved = mutual_scores(tokens + offsets, (3, 5))
    np.testing.assert_allclose(moved, mutual_scores(tokens, (3, 5)), rtol=0, atol=1e-5)


def test_scaling_an_image_by_a_positive_factor_changes_nothing() -> None:
    tokens = random_tokens(8, (3, 5), S=2, seed=17)
    factors = np.geomspace(1e-3, 1e4, 16, dtype=np.float32).reshape(2, 8, 1, 1)
    scaled = mutual_scores(tokens * factors, (3, 5))
    np.testing.assert_allclose(scaled, mutual_scores(tokens, (3, 5)), rtol=0, atol=1e-5)


def test_layer_normalised_tokens_score_as_raw_ones() -> None:
    tokens = random_tokens(6, (3, 4), seed=18) * np.float32(4) + np.float32(2)
    normalised = np.stack([oracle.layer_norm(image.astype(np.float64)) for image in tokens[0]])[None]
    np.testing.assert_allclose(
        mutual_scores(normalised.astype(np.float32), (3, 4)), mutual_scores(tokens, (3, 4)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("degrees", [(5, 3, 1), (3, 1, 5), [5, 1, 3]])
def test_the_order_of_degrees_is_irrelevant(degrees: Sequence[int]) -> None:
    tokens = random_tokens(6, (3, 5), S=2, seed=19)
    expected = mutual_scores(tokens, (3, 5), (1, 3, 5))
    np.testing.assert_allclose(mutual_scores(tokens, (3, 5), degrees), expected, rtol=0, atol=1e-6)


def test_several_degrees_and_layers_give_the_mean_of_each_alone() -> None:
    tokens = random_tokens(6, (3, 5), S=2, seed=20)
    alone = [mutual_scores(tokens[[s]], (3, 5), (r,)) for s in (0, 1) for r in (1, 3, 7)]
    together = mutual_scores(tokens, (3, 5), (1, 3, 7))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=0, atol=1e-6)


def test_degree_1_ignores_where_a_patch_lies() -> None:
    tokens = random_tokens(6, (3, 4), seed=21)
    order = np.random.default_rng(21).permutation(12)
    shuffled = mutual_scores(tokens[:, :, order], (3, 4), (1,))
    np.testing.assert_allclose(shuffled, mutual_scores(tokens, (3, 4), (1,))[:, order], rtol=0, atol=1e-6)


def test_transposing_the_grid_transposes_the_maps() -> None:
    tokens = random_tokens(6, (3, 5), seed=22)
    turned = tokens.reshape(1, 6, 3, 5, 8).swapaxes(2, 3).reshape(1, 6, 15, 8)
    scores = mutual_scores(tokens, (3, 5)).reshape(6, 3, 5)
    np.testing.assert_allclose(
        mutual_scores(turned, (5, 3)).reshape(6, 5, 3), scores.swapaxes(1, 2), rtol=0, atol=1e-6
    )


def test_the_tokens_of_the_caller_are_not_changed() -> None:
    tokens = random_tokens(6, (3, 4), seed=23)
    before = tokens.copy()
    mutual_scores(tokens, (3, 4))
    np.testing.assert_array_equal(tokens, before)


def test_tokens_need_not_be_contiguous() -> None:
    tokens = random_tokens(6, (3, 4), C=16, S=2, seed=24)
    view = tokens[::-1, ::-1, :, ::2]
    assert not view.flags.c_contiguous
    check_mutual(view, (3, 4))


# ---- mutual scores: what is refused ----------------------------------------------------------


@pytest.mark.parametrize("N", [0, 1, 2, 3, 4])
def test_a_lot_below_5_images_is_refused_with_both_numbers(N: int) -> None:
    with pytest.raises(LotError, match=rf"\b{N}\b.*\b5\b"):
        mutual_scores(random_tokens(N, (2, 3)), (2, 3))


@pytest.mark.parametrize("degrees", [(2,), (1, 4), (0,), (-1,), (-3, 1), ()])
def test_degrees_that_are_not_positive_and_odd_are_refused(degrees: tuple[int, ...]) -> None:
    with pytest.raises(LotError, match="degree"):
        mutual_scores(random_tokens(6, (2, 3)), (2, 3), degrees)


@pytest.mark.parametrize("interval", [(0.3, 0.3), (0.5, 0.2), (1.0, 0.0), (-0.2, 0.3), (0.0, 1.2)])
def test_an_interval_that_is_empty_or_outside_0_to_1_is_refused(interval: Interval) -> None:
    with pytest.raises(LotError, match="interval"):
        mutual_scores(random_tokens(11, (2, 3)), (2, 3), (1,), interval)


@pytest.mark.parametrize("interval", [(0.31, 0.39), (0.0, 0.09), (0.91, 0.99)])
def test_an_interval_between_two_neighboring_distances_is_refused(interval: Interval) -> None:
    with pytest.raises(LotError, match="11"):
        mutual_scores(random_tokens(11, (2, 3)), (2, 3), (1,), interval)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((1, 6, 6, 8), (2, 2)),
        ((1, 6, 6, 8), (6, 2)),
        ((6, 6, 8), (2, 3)),
        ((1, 6, 2, 3, 8), (2, 3)),
        ((1, 6, 7, 8), (2, 3)),  # the CLS token was not dropped
        ((1, 6, 6, 8), (-2, -3)),
        ((1, 6, 0, 8), (0, 3)),  # no patches
        ((0, 6, 6, 8), (2, 3)),  # no layers
        ((1, 6, 6, 0), (2, 3)),  # no channels
    ],
)
def test_tokens_that_do_not_fit_the_grid_or_are_empty_are_refused(shape: tuple[int, ...], grid: Grid) -> None:
    with pytest.raises(LotError):
        mutual_scores(np.ones(shape, np.float32), grid)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tokens_that_are_not_finite_are_refused(value: float) -> None:
    tokens = random_tokens(6, (2, 3))
    tokens[0, 5, 3, 2] = value
    with pytest.raises(LotError, match="finite"):
        mutual_scores(tokens, (2, 3))
