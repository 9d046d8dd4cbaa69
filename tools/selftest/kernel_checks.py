"""Each kernel on any GPU against plain numpy in double precision.

Every check draws its input anew from a seed, and returns its largest error; WrongNumberError says what is
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...kernels import launches
from ...kernels.blocks import from_blocks, to_blocks
from ...kernels.gpu import Array, DeviceArray, Gpu, Stream
from ...runtime.scoring.burn_out import burn_out_mean, first_gap
from ...runtime.scoring.nearest import count_neighbors, far_apart

Doubles = npt.NDArray[np.float64]
HALF_STEP = 2.0**-11
"""Half a unit in the last place of a half, relative."""


class WrongNumberError(Exception):
    """A result is farther from what it must be than rounding explains."""


def require(right: object, said: str) -> None:
    """Raise WrongNumberError with what is ``said`` unless something is ``right``."""
    if not right:
        raise WrongNumberError(said)


@dataclass
class Bench:
    """A GPU with a stream, and arrays that are freed together."""

    gpu: Gpu
    stream: Stream
    arrays: list[DeviceArray]

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        self.arrays.append(self.gpu.empty(shape, dtype))
        return self.arrays[-1]

    def put(self, values: Array) -> DeviceArray:
        array = self.empty(values.shape, values.dtype)
        self.gpu.upload(array, values, self.stream)
        return array

    def get(self, array: DeviceArray) -> Array:
        return self.gpu.download(array, self.stream)


@contextmanager
def bench(gpu: Gpu) -> Iterator[Bench]:
    """A bench, whose arrays are freed at the end."""
    found = Bench(gpu, gpu.stream(), [])
    try:
        yield found
    finally:
        for array in found.arrays:
            gpu.free(array)


# ---- one kernel ------------------------------------------------------------------------------------


def check_pool(
    gpu: Gpu, images: int, grid: tuple[int, int], width: int, degree: int, dtype: type, seed: int
) -> float:
    """centre_* and pool_*: rows within rounding of those in double precision; squares of the rounded rows."""
    rng = np.random.default_rng(seed)
    patches, pitch = grid[0] * grid[1], launches.pitch_of(width)
    tokens: Array = (rng.standard_normal((images, patches, width)) * 3 + 5).astype(dtype)
    shift = np.zeros(pitch, np.float32)
    shift[:width] = rng.standard_normal(width) / width**0.5 / 2
    with bench(gpu) as b:
        on_device, centres = b.put(tokens), b.empty((images, 4), np.float32)
        rows = b.empty(launches.feature_shape(images, patches, width), np.uint16)
        squares = b.empty((images, patches), np.float32)
        launches.centre(gpu, on_device, centres, b.stream)
        launches.pool(gpu, on_device, centres, b.put(shift), rows, squares, grid, degree, b.stream)
        found = from_blocks(b.get(rows).view(np.float16), patches).astype(np.float64)
        norms = b.get(squares)
    expected = pooled(tokens.astype(np.float64), grid, degree) - shift[:width]
    require((found[..., width:] == 0).all(), "columns behind the width are not zero")
    error = float(np.abs(found[..., :width] - expected).max())
    require(error <= HALF_STEP * np.abs(expected).max() + 3e-6, f"a row is off by {error:.2e}")
    require(
        np.allclose(norms, (found**2).sum(-1), rtol=1e-5, atol=0), "a square is off by more than 1e-5 of it"
    )
    return error


def pooled(tokens: Doubles, grid: tuple[int, int], degree: int) -> Doubles:
    """Unit rows (n,P,C): sums over the neighborhood of tokens without their image's mean."""
    images, patches, width = tokens.shape
    plane = (tokens - tokens.mean((1, 2), keepdims=True)).reshape(images, *grid, width)
    sums = np.zeros_like(plane)
    reach = degree // 2
    for h in range(grid[0]):
        for w in range(grid[1]):
            window = plane[:, max(h - reach, 0) : h + reach + 1, max(w - reach, 0) : w + reach + 1]
            sums[:, h, w] = window.sum((1, 2))
    rows = sums.reshape(images, patches, width)
    unit: Doubles = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit


def check_column_mean(gpu: Gpu, rows: int, pitch: int, seed: int) -> float:
    """column_mean: the mean over all rows."""
    features = np.random.default_rng(seed).standard_normal((1, rows, pitch)).astype(np.float16)
    with bench(gpu) as b:
        shift = b.empty((pitch,), np.float32)
        on_device = b.put(to_blocks(features).view(np.uint16))
        launches.column_mean(gpu, on_device, rows, shift, b.stream)
        found = b.get(shift)
    error = float(np.abs(found - features[0].astype(np.float64).mean(0)).max())
    require(error < 1e-5, f"a mean is off by {error:.2e}")
    return error


def check_gram_min(gpu: Gpu, images: int, patches: int, pitch: int, seed: int) -> float:
    """gram_min over all pairs, one of them one way only, and a row that is not written."""
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((images, patches, pitch)) / pitch**0.5).astype(np.float16)
    features[-1, 0] = features[0, -1]  # a duplicate is at distance zero
    exact = features.astype(np.float64)
    squares = (exact**2).sum(-1)
    pairs = [(a, b) for a in range(images) for b in range(a + 1, images)]
    table = np.array([(a, b, 2 * k, 2 * k + 1) for k, (a, b) in enumerate(pairs)], np.int32)
    table[-1, 3] = -1
    with bench(gpu) as b:
        distances = b.empty((2 * len(pairs), patches), np.uint32)
        gpu.fill(distances, launches.INFINITY_BITS, b.stream)
        launches.gram_min(
            gpu,
            b.put(to_blocks(features).view(np.uint16)),
            b.put(squares.astype(np.float32)),
            b.put(table),
            distances,
            b.stream,
        )
        found = b.get(distances).view(np.float32)
    require(np.isinf(found[-1]).all(), "a row that was not wanted was written")
    error = 0.0
    for k, (i, j) in enumerate(pairs):
        d = np.maximum(squares[i][:, None] + squares[j] - 2 * exact[i] @ exact[j].T, 0)
        error = max(error, float(np.abs(found[2 * k] - d.min(1)).max()))
        if k + 1 < len(pairs):
            error = max(error, float(np.abs(found[2 * k + 1] - d.min(0)).max()))
    require(error < 1e-5, f"a squared distance is off by {error:.2e}")
    return error


def check_pool_int8(
    gpu: Gpu, images: int, grid: tuple[int, int], width: int, degree: int, dtype: type, seed: int
) -> float:
    """pool_*_int8: rows within half a step of those in double precision; squares of the rounded rows."""
    rng = np.random.default_rng(seed)
    patches = grid[0] * grid[1]
    tokens: Array = (rng.standard_normal((images, patches, width)) * 3 + 5).astype(dtype)
    shift = (rng.standard_normal(width) / width**0.5 / 2).astype(np.float32)
    with bench(gpu) as b:
        on_device, centres = b.put(tokens), b.empty((images, 4), np.float32)
        rows = b.empty(launches.feature_shape(images, patches, width, 1), np.int8)
        squares, scales = b.empty((images, patches), np.float32), b.empty((images, patches), np.float32)
        launches.centre(gpu, on_device, centres, b.stream)
        made = rows, squares, scales
        launches.pool_int8(gpu, on_device, centres, b.put(shift), made, grid, degree, b.stream)
        found, norms = from_blocks(b.get(rows), patches).astype(np.int64), b.get(squares)
        steps = b.get(scales)
    expected = pooled(tokens.astype(np.float64), grid, degree) - shift
    largest = np.abs(expected).max(-1)
    require(np.allclose(127 * steps, largest, rtol=1e-4, atol=0), "a scale is not of the largest value")
    require((found[..., width:] == 0).all(), "columns behind the width are not zero")
    error = float(np.abs(found[..., :width] * steps[..., None].astype(np.float64) - expected).max())
    require(error <= 0.51 / 127 * largest.max(), f"a row is off by {error:.2e}")
    exact = (found**2).sum(-1)
    require(np.array_equal(norms, steps * steps * exact.astype(np.float32)), "a square is not its row's")
    return error


def check_gram_min_int8(gpu: Gpu, images: int, patches: int, width: int, seed: int) -> float:
    """gram_min_int8 over all pairs, to the last bit; a duplicate is at distance zero."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-127, 128, (images, patches, launches.pitch_of(width, 1))).astype(np.int8)
    scales = rng.uniform(0.001, 0.002, (images, patches)).astype(np.float32)
    features[-1, 0], scales[-1, 0] = features[0, -1], scales[0, -1]
    squares = scales * scales * (features.astype(np.int64) ** 2).sum(-1).astype(np.float32)
    pairs = [(a, b) for a in range(images) for b in range(a + 1, images)]
    table = np.array([(a, b, 2 * k, 2 * k + 1) for k, (a, b) in enumerate(pairs)], np.int32)
    with bench(gpu) as b:
        distances = b.empty((2 * len(pairs), patches), np.uint32)
        gpu.fill(distances, launches.INFINITY_BITS, b.stream)
        rows = b.put(to_blocks(features)), b.put(squares), b.put(scales)
        launches.gram_min_int8(gpu, rows, b.put(table), distances, b.stream)
        found = b.get(distances).view(np.float32)
    for k, (i, j) in enumerate(pairs):
        # Whole numbers below 2^53 are exact in doubles, whose product is by far the faster one.
        products = features[i].astype(np.float64) @ features[j].astype(np.float64).T
        twice = 2 * (scales[i][:, None] * scales[j]) * products.astype(np.float32)
        of_i, of_j = (
            (squares[j] - twice).min(1) + squares[i],
            (squares[i][:, None] - twice).min(0) + squares[j],
        )
        require(np.array_equal(found[2 * k], np.maximum(of_i, 0)), f"distances of pair {k} are not exact")
        require(np.array_equal(found[2 * k + 1], np.maximum(of_j, 0)), f"distances of pair {k} are not exact")
    require(found[2 * pairs.index((0, images - 1)), -1] == 0, "a duplicate is not at distance zero")
    return 0.0


def check_gram_min_near(gpu: Gpu, grid: tuple[int, int], window: int, seed: int) -> float:
    """gram_min within a window, in halves and in int8: of small whole numbers, which neither rounds."""
    near, patches = launches.Near.of(grid, window), grid[0] * grid[1]
    rows = np.zeros((2, patches, 128), np.int8)
    rows[:, :, :16] = np.random.default_rng(seed).integers(-9, 10, (2, patches, 16))
    squares = (rows.astype(np.float32) ** 2).sum(axis=2)
    table = np.array([(0, 1, 0, 1)], np.int32)
    with bench(gpu) as b:
        distances = [b.empty((2, patches), np.uint32) for _ in range(2)]
        for array in distances:
            gpu.fill(array, launches.INFINITY_BITS, b.stream)
        halves = b.put(to_blocks(rows.astype(np.float16)).view(np.uint16))
        launches.gram_min(gpu, halves, b.put(squares), b.put(table), distances[0], b.stream, near)
        made = b.put(to_blocks(rows)), b.put(squares), b.put(np.ones_like(squares))
        launches.gram_min_int8(gpu, made, b.put(table), distances[1], b.stream, near)
        found = [b.get(array).view(np.float32) for array in distances]
    products = rows[0].astype(np.float64) @ rows[1].astype(np.float64).T
    apart = squares[0][:, None] + squares[1] - 2 * products
    apart[far_apart(grid, window)] = np.inf
    expected = np.stack([apart.min(axis=1), apart.min(axis=0)])
    for got in found:
        require(np.array_equal(got, expected), "distances within a window are not exact")
    return 0.0


def check_interval_mean(
    gpu: Gpu, images: int, judges: int, patches: int, start: int, stop: int, seed: int
) -> float:
    """interval_mean, with many equal distances among them."""
    rng = np.random.default_rng(seed)
    squares = rng.choice(rng.random(max(judges // 2, 1)), (images, judges, patches)).astype(np.float32)
    with bench(gpu) as b:
        scores = b.empty((images, patches), np.float32)
        launches.interval_mean(gpu, b.put(squares.view(np.uint32)), scores, start, stop, b.stream)
        found = b.get(scores)
    expected = np.sort(np.sqrt(squares.astype(np.float64)), axis=1)[:, start:stop].mean(1)
    error = float(np.abs(found - expected).max())
    require(error < 2e-7, f"a mean is off by {error:.2e}")
    return error


def check_burn_out_mean(
    gpu: Gpu, images: int, judges: int, patches: int, seed: int, *, near: bool = False
) -> float:
    """burn_out_mean, or with ``near`` burn_out_mean_near, against the CPU's, on distances with gaps."""
    rng = np.random.default_rng(seed)
    squares = 1 + 0.1 * rng.gamma(2, 0.2, (images, judges, patches))
    squares[rng.random(squares.shape) < 0.2] *= 0.5
    squares, stop = squares.astype(np.float32), int(0.3 * judges)
    if near:
        alone = rng.random(squares.shape) < rng.random((images, 1, patches))
        squares[alone] = np.uint32(launches.FAR_BITS).view(np.float32)
    with bench(gpu) as b:
        scores, later = (b.empty((images, patches), np.float32) for _ in range(2))
        distances = b.put(squares.view(np.uint32))
        if near:
            launches.burn_out_mean_near(gpu, distances, scores, later, stop, b.stream)
        else:
            window = judges, first_gap(judges), stop
            launches.burn_out_mean(gpu, distances, scores, later, window, b.stream)
        found, began_later = b.get(scores), b.get(later)
    columns = np.sqrt(np.moveaxis(squares, 1, 0).reshape(judges, -1))
    neighbors = count_neighbors(columns) if near else None
    expected, expected_later = burn_out_mean(columns, stop, neighbors)
    require(np.array_equal(began_later.ravel(), expected_later), "intervals begin elsewhere than on the CPU")
    error = float(np.abs(found.ravel() - expected).max())
    require(error < 2e-7, f"a mean is off by {error:.2e}")
    return error


def check_exclude_patches(gpu: Gpu, images: int, patches: int, seed: int) -> float:
    """exclude_patches, which makes some squares infinite and leaves the others."""
    rng = np.random.default_rng(seed)
    squares = rng.random((images, patches), np.float32)
    inside = rng.choice(np.array([0, 1, 255], np.uint8), (images, patches))
    with bench(gpu) as b:
        found = b.put(squares)
        launches.exclude_patches(gpu, found, b.put(inside), b.stream)
        expected = np.where(inside, squares, np.float32(np.inf))
        require(np.array_equal(b.get(found), expected), "other patches were excluded")
    return 0.0


def check_gather_rows(gpu: Gpu, images: int, patches: int, width: int, dtype: type, seed: int) -> float:
    """gather_rows, which copies, some of them twice."""
    rng = np.random.default_rng(seed)
    tokens: Array = rng.standard_normal((images, patches, width)).astype(dtype)
    places = rng.integers(0, patches, 9).astype(np.int32)
    with bench(gpu) as b:
        rows = b.empty((images, len(places), width), dtype)
        launches.gather_rows(gpu, b.put(tokens), b.put(places), rows, b.stream)
        found = b.get(rows)
    require(np.array_equal(found, tokens[:, places]), "other patches' tokens were copied")
    return 0.0


def check_kernels(gpu: Gpu, *, large: bool, seed: int = 0) -> dict[str, float]:
    """Every kernel at awkward sizes, and with ``large`` at those of ViT-L too; the largest errors."""
    errors: dict[str, float] = {}
    for grid, width in [((3, 5), 40), ((1, 1), 3), ((7, 2), 33)] + [
        ((37, 37), 1024),
        ((16, 16), 384),
    ] * large:
        for degree in (1, 3, 5):
            for dtype in (np.float16, np.float32):
                name = f"pool_{np.dtype(dtype).name} {grid[0]}x{grid[1]} C={width} r={degree}"
                errors[name] = check_pool(gpu, 2, grid, width, degree, dtype, seed)
                errors[f"{name} int8"] = check_pool_int8(gpu, 2, grid, width, degree, dtype, seed)
    for rows, pitch in [(1, 64), (100, 192)] + [(8 * 1369, 1024)] * large:
        errors[f"column_mean {rows}x{pitch}"] = check_column_mean(gpu, rows, pitch, seed)
    sizes = [(3, 1, 64), (2, 7, 64), (2, 8, 192), (2, 127, 64), (2, 128, 128), (3, 129, 192), (2, 385, 320)]
    for images, patches, pitch in sizes + [(5, 1369, 1024), (9, 256, 384), (3, 1025, 448)] * large:
        errors[f"gram_min N={images} P={patches} C={pitch}"] = check_gram_min(
            gpu, images, patches, pitch, seed
        )
        name = f"gram_min N={images} P={patches} C={pitch} int8"
        errors[name] = check_gram_min_int8(gpu, images, patches, pitch, seed)
    for grid, window in [((4, 5), 0), ((18, 16), 2)] + [((37, 37), 3)] * large:
        errors[f"gram_min_near {grid[0]}x{grid[1]} W={window}"] = check_gram_min_near(gpu, grid, window, seed)
    for judges, start, stop in [(1, 0, 1), (9, 0, 3), (10, 2, 7), (7, 6, 7)] + [
        (199, 0, 59),
        (199, 20, 150),
    ] * large:
        patches = 1369 if large else 130
        name = f"interval_mean K={judges} [{start},{stop})"
        errors[name] = check_interval_mean(gpu, 2, judges, patches, start, stop, seed)
    for judges in [10, 61] + [199] * large:
        patches = 1369 if large else 130
        for kernel, near in (("burn_out_mean", False), ("burn_out_mean_near", True)):
            errors[f"{kernel} K={judges}"] = check_burn_out_mean(gpu, 2, judges, patches, seed, near=near)
    for patches in [1, 129] + [1369] * large:
        errors[f"exclude_patches P={patches}"] = check_exclude_patches(gpu, 3, patches, seed)
    for patches, width in [(1, 1), (35, 33)] + [(1369, 1024)] * large:
        for dtype in (np.float16, np.float32):
            name = f"gather_rows_{np.dtype(dtype).name} P={patches} C={width}"
            errors[name] = check_gather_rows(gpu, 3, patches, width, dtype, seed)
    return errors
