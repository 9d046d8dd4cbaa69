"""Launch each kernel with the geometry that its source expects (kernels/*.cuh).

Letters: n images, P = Gh*Gw patches, C token width, K judges.  Features, in halves or int8, lie in blocks
(blocks.cuh): their arrays have the shape that ``feature_shape`` says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._numbers import ceil_div
from .cuda_source import HOPPER
from .errors import KernelError
from .gpu import FREE_SHARED, DeviceArray, Gpu, Launch, Stream

INFINITY_BITS = 0x7F800000  # of a float32
FAR_BITS = 0x40800000
"""Of 4, the square of the largest distance of two unit vectors: what a patch has that has no neighbor."""
_STEP_BYTES, _GROUP = 128, 8  # a block of features
_WIDE_STEP = {"sm_90", HOPPER, "sm_100", "sm_103", "sm_110"}  # as in gram.cuh
_HOPPER_ROWS, _HOPPER_COLUMNS, _HOPPER_RING = 256, (128, 192), 4  # of gram_hopper.cuh
_HOPPER_COLUMNS_NEAR = (128,)  # of near.cuh
_TILE = 128
_PEAK_THREADS, _PEAK_CHAINS = 256, 8
_TWO_ONES = 0x3C003C00  # two halves of 1.0
_MOST_BLOCKS = 2**31 - 2**16
"""Of the first axis of a grid.  A CTA of gram_hopper.cuh counts tiles on by the size of the grid: so a little
below 2^31, where the last sum stays too."""
MOST_IMAGES = 65535
"""Images of one launch whose grid has them as its second axis: pool, gather_rows, and both means."""
_WIDEST = FREE_SHARED // 4 - 4  # pool keeps a row of floats, and one for each of 4 warps, in shared memory


def farthest_bits(near: Near | None) -> int:
    """Return what distances hold before anything is compared: those of a patch without a neighbor."""
    return FAR_BITS if near else INFINITY_BITS


class Near(NamedTuple):
    """A window: of a grid of ``across`` patches a row, rows and columns differ by at most ``reach``."""

    across: int
    reach: int

    @classmethod
    def of(cls, grid: tuple[int, int], window: int | None) -> Near | None:
        """Return a window of so many patches on a grid, at most as wide as that; None for none."""
        return None if window is None else cls(grid[1], min(window, max(grid)))


def pitch_of(width: int, itemsize: int = 2) -> int:
    """Return the values from one row of features to the next, halves or of ``itemsize`` bytes.

    Raises
    ------
    KernelError
        If tokens of ``width`` are too wide.
    """
    if width > _WIDEST:
        raise KernelError(f"tokens of width {width}: the kernels take at most {_WIDEST}. Use --scorer numpy.")
    return ceil_div(width * itemsize, _STEP_BYTES) * _STEP_BYTES // itemsize


def feature_shape(images: int, patches: int, width: int, itemsize: int = 2) -> tuple[int, ...]:
    """Return the shape of an array of features in blocks; ``itemsize`` and errors as for ``pitch_of``."""
    step = _STEP_BYTES // itemsize
    return images, pitch_of(width, itemsize) // step, ceil_div(patches, _GROUP), _GROUP, step


def centre(gpu: Gpu, tokens: DeviceArray, centres: DeviceArray, stream: Stream) -> None:
    """Compute mean and scale of each image: ``centres`` (n,4) float32 from ``tokens`` (n,P,C)."""
    images, patches, width = tokens.shape
    # Shared memory: 16 bytes, a sum and two extremes, for each of 32 warps.
    launch = Launch(f"centre_{_kind(tokens)}", (images, 1, 1), (1024, 1, 1), 32 * 16)
    gpu.launch(launch, (tokens, centres, np.int32(patches), np.int32(width)), stream)


def pool(
    gpu: Gpu,
    tokens: DeviceArray,
    centres: DeviceArray,
    shift: DeviceArray,
    features: DeviceArray,
    squares: DeviceArray,
    grid: tuple[int, int],
    degree: int,
    stream: Stream,
) -> None:
    """Compute ``features`` in half precision and their ``squares`` (n,P) from ``tokens`` (n,P,C)."""
    inputs, rows = (tokens, centres, shift), (features, squares)
    _pool(gpu, f"pool_{_kind(tokens)}", inputs, rows, grid, degree, stream)


def pool_int8(
    gpu: Gpu,
    tokens: DeviceArray,
    centres: DeviceArray,
    shift: DeviceArray,
    rows: tuple[DeviceArray, DeviceArray, DeviceArray],
    grid: tuple[int, int],
    degree: int,
    stream: Stream,
) -> None:
    """Compute rows in int8 from ``tokens`` (n,P,C): features, squares (n,P) and scales (n,P)."""
    inputs = tokens, centres, shift
    _pool(gpu, f"pool_{_kind(tokens)}_int8", inputs, rows, grid, degree, stream)


def _pool(
    gpu: Gpu,
    kernel: str,
    inputs: tuple[DeviceArray, ...],
    rows: tuple[DeviceArray, ...],
    grid: tuple[int, int],
    degree: int,
    stream: Stream,
) -> None:
    images, patches, width = inputs[0].shape
    launch = Launch(kernel, (patches, images, 1), (128, 1, 1), (width + 4) * 4)
    reach = min(degree // 2, max(grid))  # a wider window would hold no more patches
    sizes = *grid, width, _pitch(rows[0]), reach
    gpu.launch(launch, (*inputs, *rows, *(np.int32(size) for size in sizes)), stream)


def column_mean(gpu: Gpu, features: DeviceArray, patches: int, shift: DeviceArray, stream: Stream) -> None:
    """Compute ``shift`` (pitch), the mean of the rows of ``features``, P of each image."""
    images, (pitch,) = features.shape[0], shift.shape
    # A CTA for 32 columns; 32 parts of the rows are summed side by side and then added in shared memory.
    launch = Launch("column_mean", (pitch // 32, 1, 1), (32, 32, 1), 32 * 32 * 4)
    sizes = images, patches, pitch
    gpu.launch(launch, (features, shift, *(np.int32(size) for size in sizes)), stream)


def most_pairs(patches: int) -> int:
    """Return the number of pairs that one launch of ``gram_min`` can take."""
    return _MOST_BLOCKS // _tiles(patches)


def gram_min(
    gpu: Gpu,
    features: DeviceArray,
    squares: DeviceArray,
    pairs: DeviceArray,
    distances: DeviceArray,
    stream: Stream,
    near: Near | None = None,
) -> None:
    """Compare ``pairs`` (count,4): squared distances to the nearest patch, into ``distances`` (rows,P).

    Of patches ``near`` each other alone, if it is given.
    """
    if gpu.compiled_for == HOPPER:
        count, patches, pitch = pairs.shape[0], squares.shape[1], _pitch(features)
        launch = _gram_min_hopper(patches, count, gpu.multiprocessors, near)
        arrays, sizes = (features, squares, pairs, distances), (patches, pitch, count, *(near or ()))
        gpu.launch(launch, (*arrays, *(np.int32(size) for size in sizes)), stream)
    else:
        _compare(gpu, "gram_min", (features, squares), pairs, distances, stream, near)


def gram_min_int8(
    gpu: Gpu,
    rows: tuple[DeviceArray, DeviceArray, DeviceArray],
    pairs: DeviceArray,
    distances: DeviceArray,
    stream: Stream,
    near: Near | None = None,
) -> None:
    """Compare as ``gram_min``, of rows that ``pool_int8`` made."""
    _compare(gpu, "gram_min_int8", rows, pairs, distances, stream, near)


def _compare(
    gpu: Gpu,
    kernel: str,
    rows: tuple[DeviceArray, ...],
    pairs: DeviceArray,
    distances: DeviceArray,
    stream: Stream,
    near: Near | None,
) -> None:
    features, squares = rows[:2]
    patches = squares.shape[1]
    sizes = patches, _pitch(features), *(near or ())
    # One axis for pairs and tiles together: the other two axes of a grid end at 65,535.
    blocks = pairs.shape[0] * _tiles(patches)
    kernel, shared = f"{kernel}_near" if near else kernel, _gram_shared(gpu.compiled_for)
    launch = Launch(kernel, (blocks, 1, 1), (256, 1, 1), shared)
    gpu.launch(launch, (*rows, pairs, distances, *(np.int32(size) for size in sizes)), stream)


def interval_mean(
    gpu: Gpu, distances: DeviceArray, scores: DeviceArray, start: int, stop: int, stream: Stream
) -> None:
    """Average the sorted roots of ``distances`` (n,K,P), ``start`` to ``stop``, into ``scores`` (n,P)."""
    images, judge_count, patches = distances.shape
    launch = Launch("interval_mean", (ceil_div(patches, 128), images, 1), (128, 1, 1))
    numbers = judge_count, patches, start, stop
    gpu.launch(launch, (distances, scores, *(np.int32(number) for number in numbers)), stream)


def burn_out_mean(
    gpu: Gpu,
    distances: DeviceArray,
    scores: DeviceArray,
    later: DeviceArray,
    window: tuple[int, int, int],
    stream: Stream,
) -> None:
    """Average as ``interval_mean``, where an interval may begin later; ``later`` (n,P) is 1 where it does.

    ``window`` holds the number of distances that count, of how many on a gap is looked for, and how many are
    averaged.
    """
    images, judge_count, patches = distances.shape
    launch = Launch("burn_out_mean", (ceil_div(patches, 128), images, 1), (128, 1, 1))
    numbers = judge_count, patches, *window
    gpu.launch(launch, (distances, scores, later, *(np.int32(number) for number in numbers)), stream)


def burn_out_mean_near(
    gpu: Gpu, distances: DeviceArray, scores: DeviceArray, later: DeviceArray, stop: int, stream: Stream
) -> None:
    """Average ``stop`` as ``burn_out_mean``, where distances of FAR_BITS and more do not count."""
    images, judge_count, patches = distances.shape
    launch = Launch("burn_out_mean_near", (ceil_div(patches, 128), images, 1), (128, 1, 1))
    numbers = judge_count, patches, stop
    gpu.launch(launch, (distances, scores, later, *(np.int32(number) for number in numbers)), stream)


def exclude_patches(gpu: Gpu, squares: DeviceArray, inside: DeviceArray, stream: Stream) -> None:
    """Make the ``squares`` (n,P) infinite where ``inside`` (n,P), uint8, is 0."""
    count = squares.nbytes // squares.dtype.itemsize
    launch = Launch("exclude_patches", (ceil_div(count, 128), 1, 1), (128, 1, 1))
    gpu.launch(launch, (squares, inside, np.int32(count)), stream)


def gather_rows(
    gpu: Gpu, tokens: DeviceArray, places: DeviceArray, rows: DeviceArray, stream: Stream
) -> None:
    """Copy tokens (n,P,C) of the patches ``places`` (K,) int32 alone, into ``rows`` (n,K,C)."""
    images, patches, width = tokens.shape
    (count,) = places.shape
    launch = Launch("gather_rows", (count, images, 1), (128, 1, 1))
    halves = width * tokens.dtype.itemsize // 2
    gpu.launch(launch, (tokens, places, rows, *map(np.int32, (patches, count, halves))), stream)


def peak_products(gpu: Gpu, sums: DeviceArray, rounds: int, stream: Stream) -> int:
    """Multiply ones in registers, a thread for each of ``sums`` (a multiple of 256); returns the FLOP."""
    launch = Launch("peak_products", (sums.shape[0] // _PEAK_THREADS, 1, 1), (_PEAK_THREADS, 1, 1))
    gpu.launch(launch, (sums, np.int32(rounds), np.int32(_TWO_ONES)), stream)
    return sums.shape[0] // 32 * rounds * _PEAK_CHAINS * 2 * 16 * 8 * 16


def peak_copy(gpu: Gpu, source: DeviceArray, target: DeviceArray, stream: Stream) -> None:
    """Copy ``source`` to ``target``, of as many bytes, a multiple of 16."""
    count = source.nbytes // 16
    launch = Launch("peak_copy", (ceil_div(count, _PEAK_THREADS), 1, 1), (_PEAK_THREADS, 1, 1))
    gpu.launch(launch, (source, target, np.int32(count)), stream)


def _gram_shared(arch: str) -> int:
    """Return the shared memory of ``gram_min``: 3 stages, 2 sides of a tile, a step of its rows."""
    step = 64 if arch in _WIDE_STEP else 32
    return 3 * 2 * _TILE * step * 2


def _gram_min_hopper(patches: int, count: int, multiprocessors: int, near: Near | None) -> Launch:
    """Return the launch whose tiles cover an image of ``patches`` with the least left over."""
    widths, kernel = (_HOPPER_COLUMNS_NEAR, "gram_min_near") if near else (_HOPPER_COLUMNS, "gram_min")
    columns = min(widths, key=lambda columns: ceil_div(patches, columns) * columns)
    tiles = ceil_div(patches, _HOPPER_ROWS) * ceil_div(patches, columns) * count
    # Stages of a step of the rows on both sides, and two barriers for each.
    shared = _HOPPER_RING * ((_HOPPER_ROWS + columns) * _STEP_BYTES + 16)
    return Launch(f"{kernel}_{columns}", (min(tiles, multiprocessors), 1, 1), (384, 1, 1), shared)


def _pitch(features: DeviceArray) -> int:
    return features.shape[1] * features.shape[4]


def _tiles(patches: int) -> int:
    return (ceil_div(patches, _TILE)) ** 2  # of one pair


def _kind(tokens: DeviceArray) -> str:
    return "half" if tokens.dtype == np.float16 else "float"
