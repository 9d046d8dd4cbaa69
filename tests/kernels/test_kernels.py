"""Each kernel by itself, launched by launches.py on the emulated GPU, against plain float64.

Every result is asked for with late and early copies and two orders of the warps, and is the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from musc_edge.kernels import launches
from musc_edge.kernels.blocks import from_blocks, to_blocks
from musc_edge.kernels.cuda_source import HOPPER
from musc_edge.kernels.errors import KernelError
from musc_edge.kernels.gpu import DeviceArray, Gpu, Launch
from musc_edge.runtime.scoring.burn_out import burn_out_mean, first_gap
from support import oracle
from support.emulated_gpu import build_library
from support.kernel_bench import SEEDS, Array, Bench, Grid, bench, nearest

HALF_ROUNDING = 2.0**-11


@pytest.fixture
def run(kernel_library: Path) -> Run:
    """Runs work on GPUs of all seeds; the results, which are the same."""
    return partial(run_on_all, kernel_library, "sm_00")


Work = Callable[[Bench], tuple[Array, ...]]
Run = Callable[[Work], tuple[Array, ...]]


def run_on_all(library: Path, arch: str, work: Work) -> tuple[Array, ...]:
    results = []
    for seed in SEEDS:
        with bench(library, seed, arch) as device:
            results.append(work(device))
    for result in results[1:]:
        assert [array.tobytes() for array in result] == [array.tobytes() for array in results[0]]
    return results[0]


def random_tokens(n: int, patches: int, width: int, dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(width) + 0.7 * rng.standard_normal((patches, width))
    return (common + 0.5 * rng.standard_normal((n, patches, width))).astype(dtype)


# ---- centre, pool ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("patches", "width"), [(1, 1), (6, 5), (35, 64)])
def test_centre(run: Run, patches: int, width: int, dtype: str) -> None:
    tokens = random_tokens(4, patches, width, dtype)
    tokens[1] = 0.1
    tokens[2] += np.asarray(1000, dtype)
    (centres,) = run(lambda device: (device.centre(tokens),))
    values = tokens.astype(np.float64)
    mean = values.mean(axis=(1, 2))
    np.testing.assert_allclose(centres[:, 0].astype(np.float64) + centres[:, 1], mean, rtol=1e-12, atol=1e-14)
    largest = np.abs(values - mean[:, None, None]).max(axis=(1, 2)) * centres[:, 2]
    assert np.all((largest < 1.0001) & ((largest >= 0.5) | (largest < 1e-12)))
    np.testing.assert_array_equal(np.frexp(centres[:, 2])[0], 0.5)  # powers of two


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("grid", "width", "degree"),
    [
        ((1, 1), 1, 1),
        ((3, 3), 33, 1),
        ((4, 4), 8, 3),
        ((3, 7), 31, 5),
        ((7, 2), 130, 3),
        ((1, 6), 40, 7),
        ((2, 3), 5, 9),
        ((5, 3), 257, 3),
        ((3, 4), 12, 999),
    ],
)
def test_pool(run: Run, grid: Grid, width: int, degree: int, dtype: str) -> None:
    tokens = random_tokens(2, grid[0] * grid[1], width, dtype, seed=width)
    pitch = launches.pitch_of(width)
    shift = np.zeros(pitch, np.float32)
    shift[:width] = np.random.default_rng(1).uniform(-0.2, 0.2, width)
    features, squares = run(lambda device: device.pool(tokens, grid, degree, shift))
    for image in range(2):
        normed = oracle.layer_norm(tokens[image].astype(np.float64))
        rows = oracle.normalise(oracle.aggregate(normed, grid, degree)) - shift[:width]
        got = features[image].astype(np.float64)
        np.testing.assert_allclose(got[:, :width], rows, rtol=1.01 * HALF_ROUNDING, atol=3e-6)
        assert not got[:, width:].any()
        np.testing.assert_allclose(squares[image], (got**2).sum(axis=1), rtol=1e-6)


def test_pool_leaves_no_direction_to_what_has_no_content(run: Run) -> None:
    tokens = random_tokens(3, 6, 40, "float32")
    tokens[1] = 7.25  # constant: all is gone with the mean
    shift = np.linspace(-0.1, 0.1, 64, dtype=np.float32)
    features, _ = run(lambda device: device.pool(tokens, (2, 3), 3, shift))
    np.testing.assert_array_equal(features[1, :, :40], np.tile(-shift[:40].astype(np.float16), (6, 1)))


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1.0, 1e30, 1.6e38, 3e38])
def test_pool_does_not_depend_on_the_size_of_tokens(run: Run, scale: float) -> None:
    tokens = np.sign(random_tokens(2, 6, 24, "float32")) * np.float32(scale)
    expected = oracle.normalise(
        oracle.aggregate(oracle.layer_norm(np.sign(tokens[0]).astype(np.float64)), (2, 3), 3)
    )
    features, _ = run(lambda device: device.pool(tokens, (2, 3), 3))
    np.testing.assert_allclose(features[0, :, :24], expected, rtol=1.01 * HALF_ROUNDING, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("grid", "width", "degree"), [((1, 1), 1, 1), ((3, 7), 31, 5), ((7, 2), 130, 3), ((5, 3), 257, 1)]
)
def test_pool_int8(run: Run, grid: Grid, width: int, degree: int, dtype: str) -> None:
    """The rows of half precision, in steps of 1/127 of their largest value; squares are of integers."""
    tokens = random_tokens(2, grid[0] * grid[1], width, dtype, seed=width)
    shift = np.random.default_rng(1).uniform(-0.2, 0.2, width).astype(np.float32)
    features, squares, scales = run(lambda device: device.pool_int8(tokens, grid, degree, shift))
    for image in range(2):
        normed = oracle.layer_norm(tokens[image].astype(np.float64))
        rows = oracle.normalise(oracle.aggregate(normed, grid, degree)) - shift
        np.testing.assert_allclose(scales[image], np.abs(rows).max(axis=1) / 127, rtol=1e-5)
        steps = rows / scales[image][:, None].astype(np.float64)
        np.testing.assert_allclose(features[image, :, :width], steps, rtol=0, atol=0.502)
        assert np.abs(features[image]).max(axis=1).tolist() == [127] * len(rows)
        assert not features[image, :, width:].any()
        exact = (features[image].astype(np.int32) ** 2).sum(axis=1).astype(np.float32)
        np.testing.assert_array_equal(squares[image], scales[image] * scales[image] * exact)


def test_pool_int8_leaves_nothing_of_rows_that_are_the_shift(run: Run) -> None:
    tokens = np.full((1, 4, 40), 7.25, np.float32)  # constant: all is gone with the mean
    features, squares, scales = run(lambda device: device.pool_int8(tokens, (2, 2), 3))
    assert not features.any()
    assert not squares.any()
    assert not scales.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_centres_tell_what_is_not_finite(run: Run, value: float) -> None:
    tokens = random_tokens(3, 4, 9, "float16")
    tokens[1, 3, 8] = value
    (centres,) = run(lambda device: (device.centre(tokens),))
    assert np.isfinite(centres).all(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize(("rows", "pitch"), [(1, 64), (31, 128), (33, 64), (100, 192)])
def test_column_mean(run: Run, rows: int, pitch: int) -> None:
    features = np.random.default_rng(rows).uniform(-1, 1, (1, rows, pitch)).astype(np.float16)
    (shift,) = run(lambda device: (device.column_mean(features),))
    np.testing.assert_allclose(shift, features[0].astype(np.float64).mean(axis=0), atol=2e-7)


# ---- gram_min --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_library(host_compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels as they are compiled for GPUs with much shared memory."""
    return build_library(tmp_path_factory.mktemp("wide") / "libmusc_cpu.so", "-DWIDE_STEP")


@pytest.fixture(params=["sm_86", pytest.param("sm_90", marks=pytest.mark.long), HOPPER])
def compared(request: pytest.FixtureRequest) -> Run:
    """Runs work as ``run`` does, by steps of either width, and by the products of warpgroups."""
    arch = request.param
    library = request.getfixturevalue("wide_library" if arch == "sm_90" else "kernel_library")
    return partial(run_on_all, library, arch)


def features_of(images: int, patches: int, width: int, seed: int) -> tuple[Array, Array]:
    """Rows of halves with zeros behind the width, and their squares."""
    features = np.zeros((images, patches, launches.pitch_of(width)), np.float16)
    features[:, :, :width] = np.random.default_rng(seed).uniform(-0.3, 0.3, (images, patches, width))
    squares = (features.astype(np.float64) ** 2).sum(axis=2)
    return features, squares.astype(np.float32)


@pytest.mark.parametrize(
    ("patches", "width"), [(1, 1), (2, 32), (9, 97), (31, 33), (64, 160), (127, 20), (128, 32), (129, 65)]
)
def test_gram_min(compared: Run, patches: int, width: int) -> None:
    features, squares = features_of(3, patches, width, seed=patches)
    listed = list(combinations_with_replacement(range(3), 2))
    pairs = np.array([(a, b, 2 * i, 2 * i + 1) for i, (a, b) in enumerate(listed)], np.int32)
    (distances,) = compared(lambda device: (device.gram_min(features, squares, pairs, 12),))
    rows = features.astype(np.float64)
    for i, (a, b) in enumerate(listed):
        tolerance = 1e-6 * (1 + float(squares.max()))
        np.testing.assert_allclose(distances[2 * i], nearest(rows[a], rows[b]), rtol=0, atol=tolerance)
        np.testing.assert_allclose(distances[2 * i + 1], nearest(rows[b], rows[a]), rtol=0, atol=tolerance)


def test_gram_min_of_more_tiles_than_a_band_has(kernel_library: Path) -> None:
    patches = 9 * 128 + 1
    features, squares = features_of(2, patches, 32, seed=3)
    with bench(kernel_library, 7) as device:
        distances = device.gram_min(features, squares, np.array([[1, 0, 0, 1]], np.int32), 2)
    rows = features.astype(np.float64)
    products = squares[1][:, None].astype(np.float64) + squares[0] - 2 * rows[1] @ rows[0].T
    np.testing.assert_allclose(distances[0], products.min(axis=1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(distances[1], products.min(axis=0), rtol=0, atol=1e-5)


def test_rows_that_are_not_wanted_are_not_written(compared: Run) -> None:
    features, squares = features_of(3, 130, 8, seed=4)
    pairs = np.array([(0, 1, 1, -1), (2, 0, -1, 3), (1, 2, -1, -1)], np.int32)
    (distances,) = compared(lambda device: (device.gram_min(features, squares, pairs, 5),))
    rows = features.astype(np.float64)
    np.testing.assert_allclose(distances[1], nearest(rows[0], rows[1]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(distances[3], nearest(rows[0], rows[2]), rtol=0, atol=1e-5)
    assert np.isinf(distances[[0, 2, 4]]).all()


def test_equal_patches_are_at_distance_zero(compared: Run) -> None:
    features, squares = features_of(2, 40, 384, seed=5)
    features[1] = features[0][::-1]
    squares[1] = squares[0][::-1]
    pairs = np.array([(0, 1, 0, 1)], np.int32)
    (distances,) = compared(lambda device: (device.gram_min(features, squares, pairs, 2),))
    assert distances.max() < 1e-5
    assert distances.min() >= 0


def int8_rows_of(images: int, patches: int, width: int, seed: int) -> tuple[Array, Array, Array]:
    """Rows of integers with zeros behind the width, their squares as ``pool_int8`` makes them, scales."""
    rng = np.random.default_rng(seed)
    features = np.zeros((images, patches, launches.pitch_of(width, 1)), np.int8)
    features[:, :, :width] = rng.integers(-127, 128, (images, patches, width))
    scales = rng.uniform(0.001, 0.002, (images, patches)).astype(np.float32)
    exact = (features.astype(np.int32) ** 2).sum(axis=2).astype(np.float32)
    return features, scales * scales * exact, scales


def nearest_int8(rows: tuple[Array, Array, Array], a: int, b: int) -> Array:
    """Squared distances (P,) of image a's patches to the nearest of image b's, in the kernel's own steps."""
    features, squares, scales = rows
    products = features[a].astype(np.int32) @ features[b].astype(np.int32).T
    scaled = (scales[a][:, None] * scales[b]) * products.astype(np.float32)
    found: Array = np.maximum((squares[b] - 2 * scaled).min(axis=1) + squares[a], 0)
    return found


@pytest.mark.parametrize(("patches", "width"), [(1, 1), (9, 97), (64, 320), (127, 20), (129, 129), (5, 1500)])
def test_gram_min_int8(compared: Run, patches: int, width: int) -> None:
    """To the last bit: products of integers have no rounding, and what follows has but one order."""
    rows = int8_rows_of(3, patches, width, seed=patches)
    listed = list(combinations_with_replacement(range(3), 2))
    pairs = np.array([(a, b, 2 * i, 2 * i + 1) for i, (a, b) in enumerate(listed)], np.int32)
    (distances,) = compared(lambda device: (device.gram_min_int8(rows, pairs, 12),))
    for i, (a, b) in enumerate(listed):
        np.testing.assert_array_equal(distances[2 * i], nearest_int8(rows, a, b))
        np.testing.assert_array_equal(distances[2 * i + 1], nearest_int8(rows, b, a))


def test_gram_min_int8_is_the_same_from_both_sides(run: Run) -> None:
    """Pairs across panels are compared twice: as (a, b), and as (b, a)."""
    rows = int8_rows_of(2, 140, 70, seed=1)
    pairs = np.array([(0, 1, 0, 1), (1, 0, 3, 2)], np.int32)
    (distances,) = run(lambda device: (device.gram_min_int8(rows, pairs, 4),))
    np.testing.assert_array_equal(distances[:2], distances[2:])


def test_equal_patches_in_int8_are_at_distance_zero(compared: Run) -> None:
    features, squares, scales = int8_rows_of(2, 140, 384, seed=5)
    features[1], squares[1], scales[1] = features[0][::-1], squares[0][::-1], scales[0][::-1]
    pairs = np.array([(0, 1, 0, 1)], np.int32)
    (distances,) = compared(lambda device: (device.gram_min_int8((features, squares, scales), pairs, 2),))
    assert not distances.any()


# ---- near ------------------------------------------------------------------------------------


def nearest_within(near: launches.Near, rows: Array, others: Array) -> Array:
    """Squared distances (P,) to the nearest patch of an image within the window."""
    place = np.stack(np.divmod(np.arange(len(rows)), near.across))
    steps = np.abs(place[:, :, None] - place[:, None]).max(axis=0)
    apart = ((rows[:, None] - others) ** 2).sum(axis=2)
    found: Array = np.where(steps <= near.reach, apart, np.inf).min(axis=1)
    return found


@pytest.mark.parametrize(
    ("grid", "window"), [((1, 1), 0), ((4, 5), 0), ((5, 7), 1), ((12, 11), 2), ((18, 16), 2), ((2, 150), 9)]
)
def test_gram_min_near(compared: Run, grid: Grid, window: int) -> None:
    """In halves and in int8; tiles that no pair of a window lies in are left out."""
    patches = grid[0] * grid[1]
    near = launches.Near.of(grid, window)
    assert near is not None
    rng = np.random.default_rng(patches)
    rows = np.zeros((2, patches, 128), np.int8)
    rows[:, :, :16] = rng.integers(-9, 10, (2, patches, 16))
    squares = (rows.astype(np.float32) ** 2).sum(axis=2)
    pairs = np.array([(0, 1, 0, 3), (1, 1, 1, -1)], np.int32)
    features, scales = rows.astype(np.float16), np.ones_like(squares)

    def work(device: Bench) -> tuple[Array, ...]:
        by_halves = device.gram_min(features, squares, pairs, 4, near)
        return by_halves, device.gram_min_int8((rows, squares, scales), pairs, 4, near)

    exact = rows[:, :, :16].astype(np.float64)
    for distances in compared(work):
        np.testing.assert_array_equal(distances[0], nearest_within(near, exact[0], exact[1]))
        np.testing.assert_array_equal(distances[3], nearest_within(near, exact[1], exact[0]))
        assert not distances[1].any()
        assert np.isinf(distances[2]).all()


def test_a_window_over_the_grid_is_no_wider_than_it() -> None:
    assert launches.Near.of((3, 5), 10**9) == (5, 5)
    assert launches.Near.of((3, 5), None) is None


# ---- interval_mean ---------------------------------------------------------------------------


def by_sorting(squared: Array, start: int, stop: int) -> Array:
    roots = np.sort(np.sqrt(squared), axis=1).astype(np.float64)
    mean: Array = roots[:, start:stop].mean(axis=1)
    return mean


@pytest.mark.parametrize(
    ("judges", "patches", "start", "stop"),
    [
        (4, 1, 0, 1),
        (5, 3, 0, 5),
        (7, 130, 2, 5),
        (19, 128, 18, 19),
        (40, 5, 0, 12),
        (40, 5, 12, 40),
        (333, 9, 0, 99),
        (333, 9, 100, 101),
    ],
)
@pytest.mark.parametrize("kind", ["random", "ties", "zeros", "equal"])
def test_interval_mean(run: Run, judges: int, patches: int, start: int, stop: int, kind: str) -> None:
    rng = np.random.default_rng(judges)
    squared = rng.uniform(0, 4, (2, judges, patches)).astype(np.float32)
    if kind == "ties":
        squared = np.ceil(squared)
    if kind == "zeros":
        squared[rng.uniform(size=squared.shape) < 0.5] = 0
    if kind == "equal":
        squared[:] = np.float32(0.3)
    (scores,) = run(lambda device: (device.interval_mean(squared, start, stop),))
    np.testing.assert_allclose(scores, by_sorting(squared, start, stop), rtol=6.1e-8, atol=0)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 4), (2, 3)])
def test_interval_mean_knows_the_whole_range_of_floats(run: Run, start: int, stop: int) -> None:
    values = np.array([np.inf, 1e-45, 3.4e38, 0, 1e-38, np.inf], np.float32)
    squared = np.stack([np.random.default_rng(i).permutation(values) for i in range(20)], axis=1)[None]
    (scores,) = run(lambda device: (device.interval_mean(squared, start, stop),))
    np.testing.assert_allclose(scores, by_sorting(squared, start, stop), rtol=6.1e-8, atol=0)


# ---- burn_out_mean ---------------------------------------------------------------------------


def burnt(squared: Array, stop: int) -> tuple[Array, Array]:
    """Means and whether the interval began later (n,P) of squared distances (n,K,P), by the oracle."""
    mean, later = np.empty((2, squared.shape[0], squared.shape[2]))
    for place in np.ndindex(mean.shape):
        column = np.sort(np.sqrt(squared[place[0], :, place[1]])).astype(np.float64)
        start = oracle.burnt(column.tolist(), stop)
        mean[place], later[place] = column[start : start + stop].mean(), start > 0
    return mean, later


@pytest.mark.parametrize(
    ("judges", "patches"), [(4, 3), (5, 1), (10, 40), (11, 130), (40, 64), (61, 20), (300, 33)]
)
@pytest.mark.parametrize("kind", ["random", "gaps", "ties", "zeros", "equal"])
def test_burn_out_mean(run: Run, judges: int, patches: int, kind: str) -> None:
    rng = np.random.default_rng(judges)
    squared = rng.gamma(2, 0.2, (2, judges, patches)).astype(np.float32)
    if kind == "gaps":
        squared = (1 + 0.1 * squared) * np.where(rng.uniform(size=squared.shape) < 0.2, np.float32(0.5), 1)
    if kind == "ties":
        squared = (np.ceil(squared * 10) / 10).astype(np.float32)
    if kind == "zeros":
        squared[rng.uniform(size=squared.shape) < 0.5] = 0
    if kind == "equal":
        squared[:] = np.float32(0.3)
    stop = int(0.3 * judges)
    scores, later = run(lambda device: device.burn_out_mean(squared, judges, first_gap(judges), stop))
    expected = burnt(squared, stop)
    np.testing.assert_allclose(scores, expected[0], rtol=6.1e-8, atol=0)
    np.testing.assert_array_equal(later, expected[1])
    cpu = burn_out_mean(np.sqrt(np.moveaxis(squared, 1, 0).reshape(judges, -1)), stop)
    np.testing.assert_array_equal(later.ravel(), cpu[1])
    np.testing.assert_allclose(scores.ravel(), cpu[0], rtol=6.1e-8, atol=0)


def test_burn_out_mean_leaves_out_judges_without_a_distance(run: Run) -> None:
    """An image with fewer judges than others has infinite distances in the places of those it lacks."""
    squared = np.random.default_rng(3).gamma(2, 0.2, (2, 40, 70)).astype(np.float32)
    squared[:, :5] *= np.float32(0.1)
    fewer = np.concatenate([squared, np.full((2, 9, 70), np.inf, np.float32)], axis=1)
    fewer = np.random.default_rng(4).permutation(fewer, axis=1)
    whole = run(lambda device: device.burn_out_mean(squared, 40, 4, 12))
    found = run(lambda device: device.burn_out_mean(fewer, 40, 4, 12))
    assert [array.tobytes() for array in found] == [array.tobytes() for array in whole]


def test_burn_out_mean_ends_where_no_distance_is_finite(run: Run) -> None:
    """As in a lot with tokens that are not finite, which is refused only afterwards."""
    squared = np.full((1, 20, 3), np.inf, np.float32)
    squared[0, :4, 1] = 0.5
    scores, later = run(lambda device: device.burn_out_mean(squared, 20, 2, 6))
    assert np.isinf(scores).all()
    assert not later[0, [0, 2]].any()


# ---- blocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("patches", "dtype"), [(1, "int8"), (8, "float16"), (19, "float16"), (130, "int8")])
def test_rows_in_blocks(patches: int, dtype: str) -> None:
    """Every value where blocks.cuh says it lies, and back again."""
    rows = np.random.default_rng(0).integers(1, 100, (2, patches, 256)).astype(dtype)
    blocks = to_blocks(rows)
    step, chunk = 128 // rows.itemsize, 16 // rows.itemsize
    assert blocks.shape == launches.feature_shape(2, patches, 256, rows.itemsize)
    for image, row, column in np.random.default_rng(1).integers(0, rows.shape, (300, 3)).tolist():
        place = column % step // chunk ^ row % 8
        found = blocks[image, column // step, row // 8, row % 8, place * chunk + column % chunk]
        assert found == rows[image, row, column]
    assert np.count_nonzero(blocks) == rows.size
    np.testing.assert_array_equal(from_blocks(blocks, patches), rows)


# ---- launches --------------------------------------------------------------------------------


class Listening:
    """A Hopper GPU with 132 multiprocessors, as far as it notes what it is asked to launch."""

    compiled_for, multiprocessors = HOPPER, 132

    def launch(self, launch: Launch, arguments: tuple[DeviceArray | np.int32, ...], stream: int) -> None:
        self.launched, self.sizes = launch, [int(a) for a in arguments if isinstance(a, np.int32)]


@pytest.mark.parametrize(
    ("patches", "pairs", "kernel", "ctas"),
    [
        (1369, 1000, "gram_min_128", 132),  # 11 * 128 columns, and 8 * 192 would be more
        (256, 1, "gram_min_128", 2),
        (576, 4, "gram_min_192", 36),  # 3 tiles of 256 rows, 3 of 192 columns
        (1, 3, "gram_min_128", 3),
    ],
)
def test_tiles_of_hopper(patches: int, pairs: int, kernel: str, ctas: int) -> None:
    """A CTA for each multiprocessor or tile, whose ring fits into 227 KB of shared memory."""
    gpu = Listening()
    halves, floats, ints = (np.dtype(name) for name in ("uint16", "float32", "int32"))
    features = DeviceArray(0, launches.feature_shape(2, patches, 100), halves)
    squares, distances = DeviceArray(0, (2, patches), floats), DeviceArray(0, (2 * pairs, patches), ints)
    launches.gram_min(cast(Gpu, gpu), features, squares, DeviceArray(0, (pairs, 4), ints), distances, 0)
    assert (gpu.launched.kernel, gpu.launched.grid) == (kernel, (ctas, 1, 1))
    assert gpu.launched.shared == 4 * ((256 + int(kernel[-3:])) * 128 + 16) <= 227 * 1024
    assert gpu.sizes == [patches, 128, pairs]


def test_tokens_wider_than_a_cta_holds_are_refused() -> None:
    assert launches.pitch_of(12284) == 12288
    for itemsize in (1, 2):
        with pytest.raises(KernelError, match="tokens of width 12285: the kernels take at most 12284"):
            launches.feature_shape(1, 1, 12285, itemsize)


def test_one_launch_takes_as_many_pairs_as_a_grid_has_blocks() -> None:
    assert launches.most_pairs(128) == 2**31 - 2**16
    assert launches.most_pairs(1369) == (2**31 - 2**16) // 121


def test_rows_of_an_array_share_its_memory() -> None:
    array = DeviceArray(1000, (5, 3, 2), np.dtype(np.float32))
    assert array.rows(2, 4) == DeviceArray(1000 + 2 * 24, (2, 3, 2), np.dtype(np.float32))
    with pytest.raises(IndexError, match="rows 3 to 6 of 5"):
        array.rows(3, 6)


# ---- exclude_patches -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 43), (2, 128)])
def test_exclude_patches(run: Run, shape: Grid) -> None:
    rng = np.random.default_rng(0)
    squares, inside = rng.uniform(0, 2, shape).astype(np.float32), rng.random(shape) < 0.5
    (found,) = run(lambda device: (device.exclude_patches(squares, inside),))
    np.testing.assert_array_equal(found, np.where(inside, squares, np.inf))


# ---- gather_rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("patches", "width"), [(1, 1), (9, 33), (35, 300)])
def test_gather_rows(run: Run, patches: int, width: int, dtype: str) -> None:
    tokens = random_tokens(3, patches, width, dtype)
    places = np.array([patches - 1, 0, patches // 2], np.int32)
    (rows,) = run(lambda device: (device.gather_rows(tokens, places),))
    np.testing.assert_array_equal(rows, tokens[:, places])


# ---- peaks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "rounds"), [(256, 1), (512, 3)])
def test_peak_products_does_the_work_that_is_counted(run: Run, threads: int, rounds: int) -> None:
    """Ones times ones: each of 4 sums in each of 8 chains grows by 16, a dot product of 16 terms."""
    sums, flop = run(lambda device: device.peak_products(threads, rounds))
    np.testing.assert_array_equal(sums, np.full(threads, 8 * 4 * 16 * rounds, np.float32))
    assert flop == 2 * sums.sum()


@pytest.mark.parametrize("size", [4, 1024, 4 * 256 * 5 + 4])
def test_peak_copy(run: Run, size: int) -> None:
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    (copied,) = run(lambda device: (device.peak_copy(values),))
    np.testing.assert_array_equal(copied, values)
