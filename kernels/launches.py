"""How each kernel is launched: shapes in, geometry as its source says (kernels/*.cuh).

Letters: n images, P = Gh*Gw patches, C token width, K judges; pitch is C, filled up to a multiple of 32.
"""

from __future__ import annotations

import numpy as np

from .._numbers import ceil_div
from .errors import KernelError
from .gpu import DeviceArray, Gpu, Launch, Stream

INFINITY_BITS = 0x7F800000
PITCH = 32
_TILE, _GRAM_SHARED = 128, 3 * 2 * 128 * 64
_MOST_SHARED = 48 * 1024
_MOST_BLOCKS = 2**31 - 1
MOST_IMAGES = 65535
"""Images of one launch of ``pool`` or ``interval_mean``: the second axis of a grid."""
_WIDEST = _MOST_SHARED // 4 - 4


def pitch_of(width: int) -> int:
    """Halves from one row of features to the next; KernelError for tokens wider than a CTA can hold."""
    if width > _WIDEST:
        raise KernelError(f"tokens of width {width}: the kernels take at most {_WIDEST}. Use --scorer numpy.")
    return ceil_div(width, PITCH) * PITCH


def centre(gpu: Gpu, tokens: DeviceArray, centres: DeviceArray, stream: Stream) -> None:
    """Mean and scale of each image: ``centres`` (n,4) float32 from ``tokens`` (n,P,C)."""
    images, patches, width = tokens.shape
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
    """Rows in half precision: ``features`` (n,P,pitch), ``squares`` (n,P) from ``tokens`` (n,P,C)."""
    images, patches, width = tokens.shape
    launch = Launch(f"pool_{_kind(tokens)}", (patches, images, 1), (128, 1, 1), (width + 4) * 4)
    reach = min(degree // 2, max(grid))  # a wider window holds no more
    sizes = *grid, width, features.shape[2], reach
    gpu.launch(
        launch, (tokens, centres, shift, features, squares, *(np.int32(size) for size in sizes)), stream
    )


def column_mean(gpu: Gpu, features: DeviceArray, shift: DeviceArray, stream: Stream) -> None:
    """``shift`` (pitch): the mean of all rows of ``features`` (n,P,pitch)."""
    images, patches, pitch = features.shape
    launch = Launch("column_mean", (pitch // 32, 1, 1), (32, 32, 1), 32 * 32 * 4)
    gpu.launch(launch, (features, shift, np.int32(images * patches), np.int32(pitch)), stream)


def most_pairs(patches: int) -> int:
    """Pairs that one launch of ``gram_min`` can take."""
    return _MOST_BLOCKS // _tiles(patches)


def gram_min(
    gpu: Gpu,
    features: DeviceArray,
    squares: DeviceArray,
    pairs: DeviceArray,
    distances: DeviceArray,
    stream: Stream,
) -> None:
    """Squared distances to the nearest patch, into ``distances`` (rows,P), for ``pairs`` (count,4)."""
    _, patches, pitch = features.shape
    blocks = pairs.shape[0] * _tiles(patches)
    launch = Launch("gram_min", (blocks, 1, 1), (256, 1, 1), _GRAM_SHARED)
    gpu.launch(launch, (features, squares, pairs, distances, np.int32(patches), np.int32(pitch)), stream)


def interval_mean(
    gpu: Gpu, distances: DeviceArray, scores: DeviceArray, start: int, stop: int, stream: Stream
) -> None:
    """Mutual scores (n,P): mean of the sorted roots of ``distances`` (n,K,P) from ``start`` to ``stop``."""
    images, judge_count, patches = distances.shape
    launch = Launch("interval_mean", (ceil_div(patches, 128), images, 1), (128, 1, 1))
    numbers = judge_count, patches, start, stop
    gpu.launch(launch, (distances, scores, *(np.int32(number) for number in numbers)), stream)


def _tiles(patches: int) -> int:
    return (ceil_div(patches, _TILE)) ** 2  # of one pair


def _kind(tokens: DeviceArray) -> str:
    return "half" if tokens.dtype == np.float16 else "float"
