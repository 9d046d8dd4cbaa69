"""The minimum spanning tree of many points (Borůvka), without the distances of all pairs in one place.

Each point's nearest few are found block by block of points, in the time of N*N products.  In each round every
part of the tree but the largest is joined with what lies nearest to it.  Most points have a neighbor outside
of their part among their few; the others are compared with all points once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..types import Array
from .blocks import ByBlocks, here, row_blocks

_FEW = 16
"""Nearest points of each that are remembered."""


class Link(NamedTuple):
    """A link of the tree between points ``a`` and ``b``."""

    length: float
    a: int
    b: int


def spanning_tree(points: Array, by_blocks: ByBlocks = here) -> list[Link]:
    """Return the N-1 links of the minimum spanning tree of some points (N,D), in no order."""
    points = points.astype(np.float64)
    found = list(by_blocks(nearest, row_blocks(len(points)), points))
    near = np.concatenate([columns for columns, _ in found])
    lengths = np.concatenate([each for _, each in found])
    part = np.arange(len(points))  # the first point of the part of the tree that each is in
    links: list[Link] = []
    while len(links) < len(points) - 1:
        for link in _shortest(points, part, near, lengths):
            if part[link.a] != part[link.b]:  # as long as another, or within rounding, it may close a ring
                links.append(link)
                part[part == part[link.b]] = part[link.a]
    return links


def nearest(rows: range, points: Array) -> tuple[Array, Array]:
    """Return the nearest other points of some, nearest first: their numbers (n,K) and distances (n,K)."""
    squared = _squared(np.arange(rows.start, rows.stop), points)
    few = min(_FEW, len(points) - 1)
    columns = np.argpartition(squared, few - 1, axis=1)[:, :few] if few else np.empty((len(rows), 0), int)
    values = np.take_along_axis(squared, columns, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    lengths = np.sqrt(np.take_along_axis(values, order, axis=1))
    return np.take_along_axis(columns, order, axis=1), lengths


def _shortest(points: Array, part: Array, near: Array, lengths: Array) -> list[Link]:
    """Return the shortest link out of each part but the largest, the shortest of all first."""
    rows = np.arange(len(points))
    outside = part[near] != part[:, None]
    first = outside.argmax(axis=1)
    has = outside[rows, first]
    length = np.where(has, lengths[rows, first], np.inf)
    to = near[rows, first]
    best = np.full(len(points), np.inf)  # of each part
    np.minimum.at(best, part, length)
    largest = int(np.bincount(part).argmax())
    # What such a point has outside of its part is no nearer than the farthest of its few.
    unknown = np.flatnonzero(~has & (lengths[:, -1] < best[part]) & (part != largest))
    for some, to_outside, distance in _outside(points, part, unknown):
        length[some], to[some] = distance, to_outside
    order = np.lexsort((rows, length))
    order = order[(part[order] != largest) & np.isfinite(length[order])]
    _, firsts = np.unique(part[order], return_index=True)
    return [Link(float(length[a]), int(a), int(to[a])) for a in order[np.sort(firsts)]]


def _outside(points: Array, part: Array, rows: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Yield some of ``rows`` at once, the nearest points outside of their parts, and the distances."""
    for block in row_blocks(len(rows)):
        some = rows[block.start : block.stop]
        squared = _squared(some, points)
        squared[part[some][:, None] == part] = np.inf
        to = squared.argmin(axis=1)
        yield some, to, np.sqrt(squared[np.arange(len(some)), to])


def _squared(rows: Array, points: Array) -> Array:
    """Squared distances (n,N) of some points to all, infinite to themselves."""
    squares = np.einsum("nd,nd->n", points, points)
    squared = np.maximum(squares[rows, None] + squares - 2 * (points[rows] @ points.T), 0)
    squared[np.arange(len(rows)), rows] = np.inf
    return np.asarray(squared)
