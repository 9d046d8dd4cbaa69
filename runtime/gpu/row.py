"""MSM for a single image (paper, section 3.3) on a GPU: the twin of the CPU's rows (scoring/row.py).

The rows in half precision of a bank of whole images stay on the device, for all layers and degrees.  Those of
the image that is scored are made behind them, compared with each image of the bank, and averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ...kernels import launches
from ...kernels.gpu import DeviceArray, Gpu
from ...kernels.precisions import HALF
from ...kernels.thread import GpuThread
from ..errors import device_errors
from ..scoring.method import Method
from ..scoring.nearest import mark_excluded
from ..scoring.row import require_finite
from ..types import Array, FloatArray
from .average import average
from .plan import SAMPLES
from .rows import row_bytes as image_bytes
from .schedule import NOT_WANTED


def row_bytes(shape: tuple[int, int, int, int], degrees: int, results: int = 1) -> int:
    """Return the device memory that a bank with tokens of ``shape`` (S,M,P,C) takes, in bytes.

    ``results`` is how many numbers are measured of a patch (``Method.results``).
    """
    layers, images, patches, width = shape
    # Of each row: features, its square, and a distance or a result.
    rows = layers * degrees * (images + 1) * (image_bytes(patches, width, HALF) + 4 * patches)
    more = layers * degrees * (results - 1) * patches * 4
    return rows + more + (images + layers) * patches * width * 4


class _Rows(NamedTuple):
    """What ``pool`` reads and writes of some images: a row of each array for each image."""

    tokens: DeviceArray
    centres: DeviceArray
    features: DeviceArray
    squares: DeviceArray

    def part(self, start: int, stop: int) -> _Rows:
        """Return the images ``start`` to ``stop``."""
        return _Rows(*(array.rows(start, stop) for array in self))


class DeviceRow:
    """Scores one image after the other against a bank of whole images; a context manager.

    Parameters
    ----------
    method : degrees and interval.
    device : the GPU, which must be entered.
    shape : (S,M,P,C) of the bank's tokens.
    layer : gives the tokens (M,P,C) of a layer of the bank, float32; called once for each.
    inside : (M,P) bool, which patches of the bank may be the nearest; None for all.

    Raises
    ------
    DeviceError
        If the bank does not fit on the device.
    LotError
        If the bank has too few images for the interval.
    """

    def __init__(
        self,
        method: Method,
        device: GpuThread,
        shape: tuple[int, int, int, int],
        layer: Callable[[int], FloatArray],
        inside: Array | None = None,
    ) -> None:
        self._method, self._device, self._shape = method, device, shape
        self._window = method.window(shape[1])
        self._near = launches.Near.of(method.grid, method.near)
        self._layer, self._inside = layer, inside
        self._allocated: list[DeviceArray] = []

    @property
    def version(self) -> str:
        """The compiled kernels and the kind of GPU, which the last bits of the scores depend on."""
        return self._device.run(lambda gpu: f"cuda {gpu.arch} {gpu.module}")

    def __enter__(self) -> DeviceRow:
        try:
            with device_errors():
                self._device.run(self._load)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._device.run(self._free)

    @device_errors()
    def score(self, tokens: Sequence[Array], inside: Array | None = None) -> FloatArray:
        """As ``ImageScorer`` (scoring/row.py) says."""
        require_finite(tokens)
        image = np.stack([np.asarray(layer, np.float32) for layer in tokens])
        by_degree = self._device.run(lambda gpu: self._score(gpu, image))
        # Degrees and layers are averaged as for a lot.
        average: FloatArray = by_degree.mean(axis=1, dtype=np.float64).mean(axis=0).astype(np.float32)
        return mark_excluded(average, inside).reshape(self._method.grid)

    def _load(self, gpu: Gpu) -> None:
        """Make the rows of the bank; called in the GPU's thread."""
        layers, images, patches, width = self._shape
        degrees = len(self._method.degrees)
        self._stream = gpu.stream()
        shape = launches.feature_shape(images + 1, patches, width)
        self._features = self._empty(gpu, (layers * degrees, *shape), np.uint16)
        self._squares = self._empty(gpu, (layers * degrees, images + 1, patches), np.float32)
        self._shifts = self._empty(gpu, (layers * degrees, launches.pitch_of(width)), np.float32)
        self._image = self._empty(gpu, (layers, 1, patches, width), np.float32)
        self._centres = self._empty(gpu, (images, 4), np.float32)
        self._distances = self._empty(gpu, (layers * degrees, images, patches), np.uint32)
        self._results = self._empty(gpu, (self._method.results, layers * degrees, patches), np.float32)
        self._pairs = self._empty(gpu, (images, 4), np.int32)
        # The image lies behind the bank.  It alone is scored: what a bank image finds in it is not wanted.
        order = np.arange(images, dtype=np.int32)
        pairs = np.stack([np.full_like(order, images), order, order, np.full_like(order, NOT_WANTED)], axis=1)
        gpu.upload(self._pairs, pairs, self._stream)
        self._there = None if self._inside is None else self._empty(gpu, (images, patches), np.uint8)
        if self._inside is not None and self._there is not None:
            gpu.upload(self._there, self._inside.astype(np.uint8), self._stream)
        tokens = gpu.empty((images, patches, width), np.float32)
        try:
            for number in range(layers):
                gpu.upload(tokens, self._layer(number), self._stream)
                launches.centre(gpu, tokens, self._centres, self._stream)
                for t, degree in enumerate(self._method.degrees):
                    self._pool_bank(gpu, tokens, number * degrees + t, degree)
                # Uploading may begin while what was queued before still reads the tokens of the last layer.
                gpu.download(self._centres, self._stream)
        finally:
            gpu.free(tokens)

    def _pool_bank(self, gpu: Gpu, tokens: DeviceArray, row: int, degree: int) -> None:
        """Make the rows of the bank for one layer and degree, about the mean of some of its images."""
        images = self._shape[1]
        some = min(SAMPLES, images)
        shift, features, squares = (a.item(row) for a in (self._shifts, self._features, self._squares))
        gpu.fill(shift, 0, self._stream)
        rows = _Rows(tokens, self._centres, features, squares)
        self._pool(gpu, rows.part(0, some), shift, degree)
        launches.column_mean(gpu, features.rows(0, some), self._shape[2], shift, self._stream)
        self._pool(gpu, rows.part(0, images), shift, degree)
        if self._there is not None:
            launches.exclude_patches(gpu, squares.rows(0, images), self._there, self._stream)

    def _pool(self, gpu: Gpu, rows: _Rows, shift: DeviceArray, degree: int) -> None:
        tokens, centres, features, squares = rows
        grid = self._method.grid
        launches.pool(gpu, tokens, centres, shift, features, squares, grid, degree, self._stream)

    def _score(self, gpu: Gpu, image: FloatArray) -> FloatArray:
        """Return the scores (S,R,P) of the image with ``image`` tokens (S,P,C); in the GPU's thread."""
        layers, images, patches, width = self._shape
        degrees = self._method.degrees
        gpu.upload(self._image, image.reshape(layers, 1, patches, width), self._stream)
        gpu.fill(self._distances, launches.farthest_bits(self._near), self._stream)
        centres = self._centres.rows(0, 1)
        for number in range(layers):
            tokens = self._image.item(number)
            launches.centre(gpu, tokens, centres, self._stream)
            for t, degree in enumerate(degrees):
                row = number * len(degrees) + t
                features, squares = self._features.item(row), self._squares.item(row)
                own = [array.rows(images, images + 1) for array in (features, squares)]
                self._pool(gpu, _Rows(tokens, centres, *own), self._shifts.item(row), degree)
                distances = self._distances.item(row)
                launches.gram_min(gpu, features, squares, self._pairs, distances, self._stream, self._near)
        results = [self._results.item(k) for k in range(self._method.results)]
        average(gpu, self._distances, results, self._window, self._stream)
        scores: FloatArray = gpu.download(results[0], self._stream)
        return scores.reshape(layers, len(degrees), patches)

    def _empty(self, gpu: Gpu, shape: tuple[int, ...], dtype: type) -> DeviceArray:
        array = gpu.empty(shape, dtype)
        self._allocated.append(array)
        return array

    def _free(self, gpu: Gpu) -> None:
        while self._allocated:
            gpu.free(self._allocated.pop())
