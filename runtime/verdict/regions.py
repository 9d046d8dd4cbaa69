"""Regions of an image: where its map reaches a limit, at the image's own size.

A map is brought to the image's size as for the raw score, bilinearly with its corners on the image's, and the
pixels at or above the limit are joined to regions with their eight neighbors.  That is done in strips of
columns, so that an image of any size takes little memory; a strip's regions are joined to those of the one
before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..scoring.anomaly_map import HALF, interpolation
from ..types import Array, FloatArray
from .limits import UNIT

_STRIP = 1 << 20
"""Pixels of a map that exist at once, at 30 bytes each."""


@dataclass(frozen=True)
class Region:
    """A region of an image, in the image's own pixels; 0,0 is the upper left one.

    ``x, y, width, height`` is its box, ``area`` its pixels; ``peak`` the largest value, in distance, which
    lies at ``peak_x, peak_y``.  ``runs`` (R,2) are its pixels column by column: start and length, of the
    image's pixels counted down the columns, as in COCO's run-length encoding.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    peak_x: int
    peak_y: int
    centroid_x: float
    centroid_y: float
    runs: Array


@dataclass(frozen=True)
class SizedMap:
    """A map (h,w) of any size, as values of an image of ``size`` (H,W) that are made when they are needed."""

    values: Array
    size: tuple[int, int]

    def strips(self, least: float = -np.inf) -> Iterator[tuple[int, int, FloatArray]]:
        """Yield the values in strips of columns: where each begins, column and row, and its values (n,m).

        All pixels of at least ``least`` are in them, few of the others.  What is outside of a region of
        interest is at minus infinity.
        """
        if np.isnan(self.values).any():
            yield from self._strips_inside(least)
            return
        weights = [self._weights(axis) for axis in (0, 1)]
        top, bottom = self._reach(weights[0], self.values.max(axis=1) >= least)
        left, right = self._reach(weights[1], self.values.max(axis=0) >= least)
        if top == bottom:  # at this size no pixel takes a part of such a value
            return
        step = max(1, _STRIP // (bottom - top))
        rows = weights[0][top:bottom] @ self.values if weights[0] is not None else self.values[top:bottom]
        for start in range(left, right, step):
            end = min(start + step, right)
            strip = rows @ weights[1][start:end].T if weights[1] is not None else rows[:, start:end]
            yield start, top, np.asarray(strip, np.float32)

    def _strips_inside(self, least: float) -> Iterator[tuple[int, int, FloatArray]]:
        """``strips`` of a map with patches, or pixels, that are NaN (anomaly_map.upsample)."""
        inside = ~np.isnan(self.values)
        if self.values.shape == self.size:
            yield from SizedMap(np.where(inside, self.values, -np.inf), self.size).strips(least)
            return
        # From values of 0 outside, weights bring the others back to where they were: no value is larger.
        sums = SizedMap(np.where(inside, self.values, 0), self.size).strips()
        shares = SizedMap(inside.astype(np.float32), self.size).strips()
        for (left, top, values), (_, _, share) in zip(sums, shares, strict=True):
            known = share >= HALF
            yield left, top, np.where(known, values / np.where(known, share, 1), -np.inf).astype(np.float32)

    def highest(self) -> float:
        """Return the largest value at this size."""
        return max(float(strip.max()) for _, _, strip in self.strips())

    def _weights(self, axis: int) -> Array | None:
        """The matrix (pixels, values) of an axis; None for a map that has the image's size."""
        return (
            None
            if self.values.shape == self.size
            else interpolation(self.values.shape[axis], self.size[axis])
        )

    def _reach(self, weights: Array | None, chosen: Array) -> tuple[int, int]:
        """The first pixel of an axis, and the one after the last, that takes a part of a chosen value."""
        found = np.flatnonzero(chosen if weights is None else weights[:, chosen].any(axis=1))
        return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def find_regions(values: SizedMap, limit: float, least_area: int = 1) -> list[Region]:
    """Find the regions of a map that reach ``limit``, those with the highest peak first.

    Values are compared to the six decimals in which limits are written.  Regions of fewer than ``least_area``
    pixels are left out.
    """
    lowest = limit - UNIT / 2
    if float(np.nanmax(values.values)) < lowest:  # nor does any value between those of the map
        return []
    runs = _Runs()
    for left, top, strip in values.strips(lowest):
        runs.add(left, top, strip, strip >= lowest)
    found = [_region(part, values.size[0]) for part in runs.parts() if part["length"].sum() >= least_area]
    return sorted(found, key=lambda each: (-each.peak, each.peak_y, each.peak_x))


_RUN = np.dtype(
    [("x", np.int64), ("top", np.int64), ("length", np.int64), ("peak", np.float64), ("peak_y", np.int64)]
)
"""Pixels below each other in a column, with the largest value and where it is first."""


class _Runs:
    """Runs of pixels, each with the number of its part of an image; parts that touch are joined."""

    def __init__(self) -> None:
        self._runs = [np.empty(0, _RUN)]
        self._numbers = [np.empty(0, np.int64)]
        self._joined = [0]  # of each part, one that it is joined to, or itself; the first stands for none
        self._edge: Array | None = None  # numbers of the parts in the last column

    def add(self, left: int, top: int, strip: FloatArray, mask: Array) -> None:
        """Add the next strip (n,m), which begins at that column and row, and the pixels that count."""
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        first = len(self._joined) - 1
        self._joined += range(first + 1, first + count)
        numbers = np.where(mask, labels + first, 0)
        if self._edge is not None:
            self._join(numbers[:, 0], self._edge)
        self._edge = numbers[:, -1].copy()
        runs = _runs_of(np.ascontiguousarray(mask.T), np.ascontiguousarray(strip.T))
        self._numbers.append(numbers[runs["top"], runs["x"]])
        runs["x"] += left
        runs["top"] += top
        runs["peak_y"] += top
        self._runs.append(runs)

    def parts(self) -> list[Array]:
        """Return the runs of each part, by columns."""
        roots = np.array([self._root(number) for number in range(len(self._joined))])
        numbers = roots[np.concatenate(self._numbers)]
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        return [part for part in np.split(np.concatenate(self._runs)[order], cuts) if len(part)]

    def _join(self, column: Array, edge: Array) -> None:
        """Join the parts of two columns (n,) where they touch, also at a corner."""
        height = len(edge)
        for shift in (-1, 0, 1):
            mine = column[max(0, shift) : height + min(0, shift)]
            other = edge[max(0, -shift) : height + min(0, -shift)]
            both = (mine > 0) & (other > 0)
            for pair in set(zip(mine[both].tolist(), other[both].tolist(), strict=True)):
                one, two = map(self._root, pair)
                self._joined[max(one, two)] = min(one, two)

    def _root(self, number: int) -> int:
        while self._joined[number] != number:
            self._joined[number] = self._joined[self._joined[number]]
            number = self._joined[number]
        return number


def _runs_of(mask: Array, values: FloatArray) -> Array:
    """Return the runs of pixels that count, of columns (n,H)."""
    width, height = mask.shape
    padded = np.zeros((width, height + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    (x, top), (_, end) = np.nonzero(change == 1), np.nonzero(change == -1)
    runs = np.empty(len(x), _RUN)
    runs["x"], runs["top"], runs["length"] = x, top, end - top
    if len(runs):
        inside = values[mask]
        starts = np.cumsum(runs["length"]) - runs["length"]
        runs["peak"] = np.maximum.reduceat(inside, starts)
        owner = np.repeat(np.arange(len(runs)), runs["length"])
        highest = np.flatnonzero(inside == runs["peak"][owner])
        _, first = np.unique(owner[highest], return_index=True)
        runs["peak_y"] = top + highest[first] - starts
    return runs


def _region(runs: Array, height: int) -> Region:
    """Make a region of its runs, in an image of this height."""
    x, top, length = runs["x"], runs["top"], runs["length"]
    area, left, upper = int(length.sum()), int(x.min()), int(top.min())
    best = runs[np.lexsort((x, runs["peak_y"], -runs["peak"]))[0]]
    return Region(
        left,
        upper,
        int(x.max()) + 1 - left,
        int((top + length).max()) - upper,
        area,
        float(best["peak"]),
        int(best["x"]),
        int(best["peak_y"]),
        float((x * length).sum() / area),
        float((top * length + length * (length - 1) // 2).sum() / area),
        np.stack([x * height + top, length], axis=1),
    )
