"""Find the images of a lot that are copies of each other: the same shot, saved once more or changed a little.

Copies judge each other, so that a defect on them looks normal.  Parts in a fixture all look alike and are
no copies, so no fixed distance will do: an image's copies are those of its nearest images that lie apart from
all the others, by a gap, and far nearer than the others usually are.  Where one and the same surface is taken
over and over, some happen to lie almost alike: whether they are one shot is then told by their pixels
(``same_shot``).  How often that is right was measured on real images and planted copies (docs/copies.md).

Images are compared by the tokens of the shallowest layer, each patch with the patch at its own place: these
say how the surface looks in detail, where CLS embeddings say what is in the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..types import Array, FeatureStore, FloatArray
from .blocks import ByBlocks, here, row_blocks

NEAR = 0.25
"""Largest share of the median distance from an image to the others at which one can be its copy."""

GAP = 3.0
"""Smallest ratio of the distances to the nearest image that is no copy and to the farthest that is one."""

APART = 1 / 3
"""Largest share of the lot's usual distance to the nearest other image at which two can be copies."""

SAME = 1e-7
"""Distance up to which images are copies whatever the others are: that of equal pixels is rounding alone."""

Confirm = Callable[[int, int, tuple[Sequence[int], Sequence[int]]], bool]
"""Whether two rows are one shot, by the rows of some others near to each (``same_shot.SameShot``)."""

_OTHERS = 5  # of those
_MOST = 32  # nearest images among which the gap is looked for
_PLACES, _WIDTH, _SEED = 64, 16, 0  # patches of an image and numbers for each
_READ = 16_000_000  # bytes of tokens that are read at once, at least one image's


def find_copies(
    store: FeatureStore,
    confirm: Confirm | None = None,
    by_blocks: ByBlocks = here,
    sketches: FloatArray | None = None,
) -> list[tuple[int, ...]]:
    """Return the groups of copies in a lot: row numbers, in order; most lots have none.

    ``confirm`` is asked about pairs that are not the same to the last bit; None takes them by tokens alone.
    ``by_blocks`` compares some images with all; ``sketches`` are those of the images, if made.

    Takes the time of N*N products of 1,024 numbers, far less than scoring, and 4 KB for each image.
    """
    sketches = sketch(store) if sketches is None else sketches
    sketches -= sketches.mean(axis=0)  # where all look alike, products would cancel to rounding errors
    count = len(sketches)
    if count < 2:
        return []
    pairs: list[tuple[int, int]] = []
    reach = np.zeros(count)  # distance up to which an image's neighbors are its copies
    other = np.full(count, np.inf)  # distance to the nearest that is none
    near: list[tuple[float, int, int]] = []
    others: dict[int, Sequence[int]] = {}
    squares = np.einsum("nd,nd->n", sketches, sketches)
    blocks = row_blocks(count)
    for rows, found in zip(blocks, by_blocks(look_near, blocks, sketches, squares), strict=True):
        pairs += found.same
        reach[rows.start : rows.stop], other[rows.start : rows.stop] = found.reach, found.other
        near += found.near
        others |= found.others
    reach[reach > APART * np.median(other)] = 0
    # Rounding may differ between the two directions of a pair.
    likely = [(i, j) for d, i, j in sorted(near) if d <= min(reach[i], reach[j]) * (1 + 1e-4)]
    return _joined(count, pairs, likely, confirm and (lambda i, j: confirm(i, j, (others[i], others[j]))))


class Near(NamedTuple):
    """What is near to some images.

    Attributes
    ----------
    same : pairs that are copies whatever the others are.
    reach, other : (n,) distances to the farthest copy, 0 where none is, and to the nearest that is none.
    near : distance and rows of each pair within reach.
    others : some of those beyond, of the images that may have copies.
    """

    same: list[tuple[int, int]]
    reach: Array
    other: Array
    near: list[tuple[float, int, int]]
    others: dict[int, Sequence[int]]


def look_near(block: range, sketches: FloatArray, squares: FloatArray) -> Near:
    """Compare the images of a block with all, by their sketches (N,D) and the squares (N,) of these."""
    rows = np.arange(block.start, block.stop)
    distances = np.maximum(squares[rows, None] + squares - 2 * (sketches[rows] @ sketches.T), 0)
    distances[np.arange(len(rows)), rows] = np.inf
    same = distances <= SAME
    # One link for each row is enough to join all that are the same.
    pairs = [(int(rows[k]), int(same[k].argmax())) for k in np.flatnonzero(same.any(axis=1))]
    found = Near(pairs, *_reach(distances), [], {})
    for k in np.flatnonzero(found.reach > 0):
        within = np.flatnonzero(distances[k] <= found.reach[k])
        found.near.extend((float(distances[k, j]), int(rows[k]), int(j)) for j in within)
        found.others[int(rows[k])] = _nearest(distances[k], beyond=found.reach[k])
    return found


def sketch(store: FeatureStore) -> FloatArray:
    """Make the sketches (N,1024) of all images of a store, by the tokens of its first layer."""
    _, count, patches, width = store.shape
    places = looked_at(patches)
    sketches = np.empty((count, len(places) * _WIDTH), np.float32)
    at_once = max(1, _READ // (patches * width * store.dtype.itemsize))
    for i0 in range(0, count, at_once):
        i1 = min(i0 + at_once, count)
        sketches[i0:i1] = sketches_of(store.some(0, i0, i1, places))
    return sketches


def sketches_of(tokens: Array) -> FloatArray:
    """Numbers (n,1024) whose squared distances are about the mean squared distances of unit tokens, 0 to 4.

    ``tokens`` (n,K,C) are those of some patches, evenly spread (``looked_at``), each projected at random to a
    few numbers, which keeps distances on average (Johnson and Lindenstrauss).
    """
    count, places, width = tokens.shape
    projection = np.random.default_rng(_SEED).standard_normal((width, _WIDTH), np.float32)
    projection /= np.float32(np.sqrt(_WIDTH * places))
    tokens = tokens.astype(np.float32)
    lengths = np.linalg.norm(tokens, axis=2, keepdims=True)
    units = np.divide(tokens, lengths, out=np.zeros_like(tokens), where=lengths > 0)
    return np.asarray((units @ projection).reshape(count, -1))


def looked_at(patches: int) -> Array:
    """Indices of the patches of an image by which copies are told, evenly spread."""
    return np.unique(np.linspace(0, patches - 1, _PLACES).round().astype(int))


def _reach(distances: Array) -> tuple[Array, Array]:
    """For rows of distances (B,N), the farthest of a copy (0 where none is) and the nearest of no copy."""
    others = distances.shape[1] - 1
    most = min(_MOST, others // 2)
    if most < 1:
        return np.zeros(len(distances)), distances.min(axis=1)
    ordered = np.partition(distances, (most, others // 2), axis=1)
    limit = NEAR * ordered[:, others // 2]
    nearest = np.sort(ordered[:, : most + 1], axis=1)
    inner, outer = nearest[:, :-1], nearest[:, 1:]
    apart = (inner <= limit[:, None]) & (outer >= GAP * np.maximum(inner, SAME))
    last = most - 1 - apart[:, ::-1].argmax(axis=1)
    rows, found = np.arange(len(inner)), apart.any(axis=1)
    reach = np.where(found, np.maximum(inner[rows, last], SAME), 0.0)
    return reach, np.where(found, outer[rows, last], inner[:, 0])


def _nearest(distances: Array, beyond: float) -> list[int]:
    """Columns of a few of the smallest distances beyond a limit."""
    outside = np.flatnonzero((distances > beyond) & np.isfinite(distances))
    return [int(j) for j in outside[np.argsort(distances[outside], kind="stable")[:_OTHERS]]]


def _joined(
    count: int,
    pairs: Iterable[tuple[int, int]],
    likely: Iterable[tuple[int, int]],
    confirm: Callable[[int, int], bool] | None,
) -> list[tuple[int, ...]]:
    """Groups of at least two that the pairs connect, and those of the likely ones that are confirmed.

    Asks about no pair that is connected already.
    """
    group = list(range(count))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    def join(a: int, b: int) -> None:
        first, second = sorted((root(a), root(b)))
        group[second] = first

    for a, b in pairs:
        join(a, b)
    for a, b in likely:
        if root(a) != root(b) and (confirm is None or confirm(a, b)):
            join(a, b)
    members: dict[int, list[int]] = {}
    for i in range(count):
        members.setdefault(root(i), []).append(i)
    return [tuple(rows) for rows in members.values() if len(rows) > 1]
