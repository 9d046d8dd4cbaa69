"""What half precision and int8 cost: never more than twice what they cost a plain form of the arithmetic.

The plain form rounds the rows, less their common mean, in numpy and takes all sums in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musc_edge.kernels.precisions import HALF, INT8, PRECISIONS
from support import oracle
from support.gpu_arithmetic import all_distances
from support.kernel_bench import Array, Bench, Floats, Grid, bench, nearest

GRID: Grid = (4, 5)
WIDTH = 96


def lot(kind: str) -> Array:
    """Tokens (4,P,C) of images that share most of what they show."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(WIDTH) + 0.3 * rng.standard_normal((20, WIDTH))
    tokens = (common + 0.1 * rng.standard_normal((4, 20, WIDTH))).astype(np.float32)
    if kind == "duplicates":
        tokens[1], tokens[3] = tokens[0], tokens[2][::-1]
    if kind == "near duplicates":
        tokens[1:] = tokens[0] + 1e-3 * rng.standard_normal((3, 20, WIDTH))
    if kind == "huge mean":
        tokens += 3000
    if kind == "outlier channels":
        tokens[..., [5, 40]] *= 60
        tokens[..., 7] += 90
    if kind == "largest halves":
        tokens = (tokens * 9000).clip(-65504, 65504).astype(np.float16)
    if kind == "1e30":
        tokens *= np.float32(1e30)
    return tokens


def rows_of(tokens: Array, degree: int) -> list[Floats]:
    """Unit rows (P,C) of each image, in float64."""
    images = tokens.astype(np.float64) / np.abs(tokens).max()
    return [
        oracle.normalise(oracle.aggregate(image - image.mean(), GRID, degree)) for image in images
    ]  # without layer_norm's epsilon, which counts at other scales


def distances(rows: list[Floats]) -> Floats:
    """Distances (12,P) of each image's patches to the nearest of each other image's."""
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    squares: Floats = np.array([nearest(rows[a], rows[b]) for a, b in pairs])
    return np.sqrt(squares)


def by_kernels(device: Bench, tokens: Array, degree: int, *, shifted: bool, precision: str = HALF) -> Floats:
    """The same by pool, column_mean and gram_min, or those of int8."""
    shift = None
    if shifted:
        features, _ = device.pool(tokens, GRID, degree)
        shift = device.column_mean(features)
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    rows = {pair: i for i, pair in enumerate((a, b) for a in range(4) for b in range(4) if a != b)}
    listed = np.array([(a, b, rows[a, b], rows[b, a]) for a, b in pairs], np.int32)
    if precision == INT8:
        squared = device.gram_min_int8(device.pool_int8(tokens, GRID, degree, shift), listed, 12)
    else:
        squared = device.gram_min(*device.pool(tokens, GRID, degree, shift), listed, 12)
    return np.sqrt(squared.astype(np.float64))


def plainly(rows: list[Floats], *, shifted: bool, precision: str = HALF) -> Floats:
    """The same with rows rounded to halves or in 127 steps, and all else in float64."""
    mean = np.mean(rows, axis=(0, 1)) if shifted else 0
    return distances([_rounded(row - mean, precision) for row in rows])


def _rounded(rows: Floats, precision: str) -> Floats:
    if precision == HALF:
        return rows.astype(np.float16).astype(np.float64)
    steps = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, 1e-300)
    whole: Floats = np.rint(rows / steps) * steps
    return whole


KINDS = "common", "duplicates", "near duplicates", "huge mean", "outlier channels", "largest halves", "1e30"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_is_at_most_twice_that_of_a_plain_form(
    kernel_library: Path, kind: str, degree: int, precision: str
) -> None:
    tokens = lot(kind)
    rows = rows_of(tokens, degree)
    exact = distances(rows)
    plain = plainly(rows, shifted=True, precision=precision)
    with bench(kernel_library) as device:
        ours = by_kernels(device, tokens, degree, shifted=True, precision=precision)
    # Float sums of squares around 1 are right to some 1e-7: that is the root's square where d is near 0.
    assert np.all(np.abs(ours**2 - exact**2) < 2 * np.abs(plain**2 - exact**2).max() + 5e-7)
    far = exact > 0.05
    assert far.any() or kind == "near duplicates"
    error, of_plain = (np.abs(d - exact)[far].max(initial=0) for d in (ours, plain))
    assert error <= 2 * of_plain + 2e-6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_numpy_s_form_of_the_kernels_is_theirs(kernel_library: Path, precision: str) -> None:
    """What gpu_precision.py measures by: off by no more than a tenth of the precision's own error."""
    tokens = lot("common")
    exact = distances(rows_of(tokens, 3))
    with bench(kernel_library) as device:
        ours = by_kernels(device, tokens, 3, shifted=True, precision=precision)
    found = all_distances(tokens[None], GRID, (3,), precision)[~np.eye(4, dtype=bool)][:, 0, 0]
    assert np.abs(found - ours).max() < np.abs(ours - exact).max() / 10


@pytest.mark.parametrize("degree", [1, 3])
def test_the_shift_is_worth_its_trouble(kernel_library: Path, degree: int) -> None:
    tokens = lot("common")
    rows = rows_of(tokens, degree)
    exact = distances(rows)
    with bench(kernel_library) as device:
        with_shift, without = (
            np.abs(by_kernels(device, tokens, degree, shifted=shifted) - exact).max()
            for shifted in (True, False)
        )
    assert with_shift < without / 2
    assert (
        without > 0.5 * np.abs(plainly(rows, shifted=False) - exact).max()
    )  # and no more is gained by chance


@pytest.mark.parametrize(("precision", "most"), [(HALF, 7e-4), (INT8, 0)])
def test_duplicates_are_at_distance_zero(kernel_library: Path, precision: str, most: float) -> None:
    tokens = lot("duplicates")
    with bench(kernel_library) as device:
        found = by_kernels(device, tokens, 1, shifted=True, precision=precision)
    assert found[0].max() <= most  # 0 to 1, 2 to 3
    assert found[8].max() <= most
