"""The arithmetic of the GPU's kernels (pool.cuh, pool_int8.cuh, gram.cuh) in plain numpy, for whole lots.

Rows are rounded as the kernels round them, and all sums taken in float32 by BLAS: those of half precision in
another order than a GPU's, those of int8 exactly, as long as they stay below 2^24 (a width of 1,040).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from musc_edge.kernels.precisions import INT8
from musc_edge.runtime.gpu.plan import SAMPLES
from musc_edge.runtime.types import Array, FloatArray


class Rounded(NamedTuple):
    """Rows (n,P,C) as numbers that a product takes, their squares (n,P), and their scales (n,P)."""

    values: FloatArray
    squares: FloatArray
    scales: FloatArray


def unit_rows(tokens: Array, grid: tuple[int, int], degree: int) -> FloatArray:
    """Rows (n,P,C) of tokens (n,P,C): less their image's mean, pooled, of length 1."""
    images, patches, width = tokens.shape
    plane = tokens.astype(np.float32) - tokens.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
    reach = degree // 2
    padded = np.pad(plane.reshape(images, *grid, width), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    sums = np.zeros((images, *grid, width), np.float32)
    for h in range(degree):
        for w in range(degree):
            sums += padded[:, h : h + grid[0], w : w + grid[1]]
    rows = sums.reshape(images, patches, width)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: FloatArray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def rounded(rows: FloatArray, precision: str) -> Rounded:
    """Rows less their common part, in half precision or in int8."""
    places = np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(int)
    common = rows[places].astype(np.float16).mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    left = rows - common
    if precision != INT8:
        halves = left.astype(np.float16).astype(np.float32)
        return Rounded(halves, (halves * halves).sum(axis=-1), np.ones(left.shape[:2], np.float32))
    largest = np.abs(left).max(axis=-1)
    steps = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    values, scales = np.rint(left * steps[..., None]), largest / np.float32(127)
    return Rounded(values, scales * scales * (values * values).sum(axis=-1), scales)


def pair_distances(rows: Rounded, a: int, b: int) -> tuple[FloatArray, FloatArray]:
    """Distances (P,) from image a's patches to the nearest of image b's, and back."""
    gram = rows.values[a] @ rows.values[b].T
    gram *= 2 * rows.scales[a][:, None] * rows.scales[b]
    there = (rows.squares[b] - gram).min(axis=1) + rows.squares[a]
    back = (rows.squares[a][:, None] - gram).min(axis=0) + rows.squares[b]
    return np.sqrt(np.maximum(there, 0)), np.sqrt(np.maximum(back, 0))


def all_distances(
    tokens: Array, grid: tuple[int, int], degrees: tuple[int, ...], precision: str
) -> FloatArray:
    """Distances (N,N,S,R,P) of tokens (S,N,P,C), as a pool keeps them; the diagonal has no meaning."""
    layers, images, patches, _ = tokens.shape
    found = np.zeros((images, images, layers, len(degrees), patches), np.float32)
    for layer in range(layers):
        for number, degree in enumerate(degrees):
            rows = rounded(unit_rows(tokens[layer], grid, degree), precision)
            for a in range(images):
                for b in range(a + 1, images):
                    there, back = pair_distances(rows, a, b)
                    found[a, b, layer, number], found[b, a, layer, number] = there, back
    return found
