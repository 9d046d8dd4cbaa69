"""What half precision costs: never more than twice what it costs a plain form of the same arithmetic.

The plain form rounds the rows, less their common mean, to halves in numpy and takes all sums in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import oracle
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


def by_kernels(device: Bench, tokens: Array, degree: int, *, shifted: bool) -> Floats:
    """The same by pool, column_mean and gram_min."""
    shift = None
    if shifted:
        features, _ = device.pool(tokens, GRID, degree)
        shift = device.column_mean(features)
    features, squares = device.pool(tokens, GRID, degree, shift)
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    rows = {pair: i for i, pair in enumerate((a, b) for a in range(4) for b in range(4) if a != b)}
    listed = np.array([(a, b, rows[a, b], rows[b, a]) for a, b in pairs], np.int32)
    return np.sqrt(device.gram_min(features, squares, listed, 12).astype(np.float64))


def plainly(rows: list[Floats], *, shifted: bool) -> Floats:
    """The same with rows rounded to halves, and all else in float64."""
    mean = np.mean(rows, axis=(0, 1)) if shifted else 0
    return distances([(row - mean).astype(np.float16).astype(np.float64) for row in rows])


KINDS = "common", "duplicates", "near duplicates", "huge mean", "outlier channels", "largest halves", "1e30"


@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_is_at_most_twice_that_of_plain_half_precision(
    kernel_library: Path, kind: str, degree: int
) -> None:
    tokens = lot(kind)
    rows = rows_of(tokens, degree)
    exact = distances(rows)
    with bench(kernel_library) as device:
        ours = by_kernels(device, tokens, degree, shifted=True)
    # Float sums of squares around 1 are right to some 1e-7: that is the root's square where d is near 0.
    assert np.all(
        np.abs(ours**2 - exact**2) < 2 * np.abs(plainly(rows, shifted=True) ** 2 - exact**2).max() + 5e-7
    )
    far = exact > 0.05
    assert far.any() or kind == "near duplicates"
    error, plain = (np.abs(d - exact)[far].max(initial=0) for d in (ours, plainly(rows, shifted=True)))
    assert error <= 2 * plain + 2e-6


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


def test_duplicates_are_at_distance_zero(kernel_library: Path) -> None:
    tokens = lot("duplicates")
    with bench(kernel_library) as device:
        found = by_kernels(device, tokens, 1, shifted=True)
    assert found[0].max() < 7e-4  # 0 to 1, 2 to 3
    assert found[8].max() < 7e-4
