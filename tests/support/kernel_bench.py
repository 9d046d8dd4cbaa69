"""What the tests of the kernels share: kernels run on arrays, and the nearest patch in plain float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musc_edge.kernels import launches
from musc_edge.kernels.blocks import from_blocks, to_blocks
from musc_edge.kernels.gpu import DeviceArray
from support.emulated_gpu import EmulatedGpu

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Grid = tuple[int, int]
SEEDS = 0, 1, 6, 7
"""Late and early copies, each with the warps in order and in a random one."""
INFINITY = np.uint32(launches.INFINITY_BITS)


class Bench:
    """A GPU with one stream, on which launches.py is called with arrays."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self.gpu, self.stream = gpu, gpu.stream()

    def put(self, values: Array) -> DeviceArray:
        array = self.gpu.empty(values.shape, values.dtype)
        self.gpu.upload(array, values, self.stream)
        return array

    def get(self, array: DeviceArray) -> Array:
        return self.gpu.download(array, self.stream)

    def centre(self, tokens: Array) -> Array:
        centres = self.gpu.empty((len(tokens), 4), np.float32)
        launches.centre(self.gpu, self.put(tokens), centres, self.stream)
        return self.get(centres)

    def pool(self, tokens: Array, grid: Grid, degree: int, shift: Array | None = None) -> tuple[Array, Array]:
        """Rows (n,P,pitch) in half precision and squares (n,P) of tokens (n,P,C), centred."""
        images, patches, width = tokens.shape
        pitch = launches.pitch_of(width)
        features = self.gpu.empty(launches.feature_shape(images, patches, width), np.uint16)
        squares = self.gpu.empty((images, patches), np.float32)
        on_device, centres = self.put(tokens), self.gpu.empty((images, 4), np.float32)
        common = self.put(np.zeros(pitch, np.float32) if shift is None else shift)
        launches.centre(self.gpu, on_device, centres, self.stream)
        launches.pool(
            self.gpu, on_device, centres, common, features, squares, grid, degree, self.stream
        )  # fmt: skip
        return from_blocks(self.get(features).view(np.float16), patches), self.get(squares)

    def pool_int8(
        self, tokens: Array, grid: Grid, degree: int, shift: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Features (n,P,pitch) in int8, squares and scales (n,P) of tokens (n,P,C), centred."""
        images, patches, width = tokens.shape
        on_device, centres = self.put(tokens), self.gpu.empty((images, 4), np.float32)
        common = self.put(np.zeros(width, np.float32) if shift is None else shift)
        launches.centre(self.gpu, on_device, centres, self.stream)
        made = self.gpu.empty(launches.feature_shape(images, patches, width, 1), np.int8)
        squares, scales = (self.gpu.empty((images, patches), np.float32) for _ in range(2))
        rows = made, squares, scales
        launches.pool_int8(self.gpu, on_device, centres, common, rows, grid, degree, self.stream)
        return from_blocks(self.get(made), patches), self.get(squares), self.get(scales)

    def column_mean(self, features: Array) -> Array:
        shift = self.gpu.empty(features.shape[2:], np.float32)
        on_device = self.put(to_blocks(features).view(np.uint16))
        launches.column_mean(self.gpu, on_device, features.shape[1], shift, self.stream)
        return self.get(shift)

    def gram_min(
        self, features: Array, squares: Array, pairs: Array, rows: int, near: launches.Near | None = None
    ) -> Array:
        """Squared distances (rows,P), infinite where no pair has any."""
        distances = self.gpu.empty((rows, features.shape[1]), np.uint32)
        self.gpu.fill(distances, launches.INFINITY_BITS, self.stream)
        blocks = self.put(to_blocks(features).view(np.uint16))
        on_device = blocks, self.put(squares), self.put(pairs)
        launches.gram_min(self.gpu, *on_device, distances, self.stream, near)
        return self.get(distances).view(np.float32)

    def gram_min_int8(
        self, rows: tuple[Array, Array, Array], pairs: Array, count: int, near: launches.Near | None = None
    ) -> Array:
        """Squared distances (count,P) of features, squares and scales, infinite where no pair has any."""
        distances = self.gpu.empty((count, rows[0].shape[1]), np.uint32)
        self.gpu.fill(distances, launches.INFINITY_BITS, self.stream)
        on_device = self.put(to_blocks(rows[0])), self.put(rows[1]), self.put(rows[2])
        launches.gram_min_int8(self.gpu, on_device, self.put(pairs), distances, self.stream, near)
        return self.get(distances).view(np.float32)

    def interval_mean(self, squared: Array, start: int, stop: int) -> Array:
        """Scores (n,P) from squared distances (n,K,P)."""
        scores = self.gpu.empty((squared.shape[0], squared.shape[2]), np.float32)
        launches.interval_mean(self.gpu, self.put(squared.view(np.uint32)), scores, start, stop, self.stream)
        return self.get(scores)

    def burn_out_mean(self, squared: Array, found: int, first: int, stop: int) -> tuple[Array, Array]:
        """Scores and whether the interval began later (n,P) from squared distances (n,K,P)."""
        scores, later = (self.gpu.empty((len(squared), squared.shape[2]), np.float32) for _ in range(2))
        distances, window = self.put(squared.view(np.uint32)), (found, first, stop)
        launches.burn_out_mean(self.gpu, distances, scores, later, window, self.stream)
        return self.get(scores), self.get(later)

    def exclude_patches(self, squares: Array, inside: Array) -> Array:
        there = self.put(squares)
        launches.exclude_patches(self.gpu, there, self.put(inside.astype(np.uint8)), self.stream)
        return self.get(there)

    def gather_rows(self, tokens: Array, places: Array) -> Array:
        rows = self.gpu.empty((len(tokens), len(places), tokens.shape[2]), tokens.dtype)
        launches.gather_rows(self.gpu, self.put(tokens), self.put(places), rows, self.stream)
        return self.get(rows)

    def peak_products(self, threads: int, rounds: int) -> tuple[Array, Array]:
        """Sums of each thread, and the FLOP."""
        sums = self.gpu.empty((threads,), np.float32)
        flop = launches.peak_products(self.gpu, sums, rounds, self.stream)
        return self.get(sums), np.array(flop)

    def peak_copy(self, values: Array) -> Array:
        target = self.gpu.empty(values.shape, values.dtype)
        launches.peak_copy(self.gpu, self.put(values), target, self.stream)
        return self.get(target)


@contextmanager
def bench(library: Path, seed: int = 0, arch: str = "sm_00") -> Iterator[Bench]:
    with EmulatedGpu(library, seed, arch=arch) as gpu:
        yield Bench(gpu)
        for address in list(gpu._memory):
            gpu._release(address)


def nearest(rows: Floats, others: Floats) -> Floats:
    """Squared distance (P,) of each of ``rows`` (P,C) to the nearest of ``others``, by differences."""
    return np.array([((others - row) ** 2).sum(axis=1).min() for row in rows])
