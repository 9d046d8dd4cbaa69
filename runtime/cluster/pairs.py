"""On a worker: prepare the images of an arc, compare those of two arcs, average an image's distances.

The circle of judges is cut into arcs of neighboring places.  Each pair of images is compared once, by one
task, as on one machine: by the same code, on one thread, the image at the lower place first.  Its cosines go
to the tasks that average the rows of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..._numbers import ceil_div
from ..scoring.aggregate import centre, inverse_lengths, pooled_lengths, rescale
from ..scoring.blas import one_thread_per_product
from ..scoring.image_pairs import Comparer, load_filter
from ..scoring.judges import Judges
from ..scoring.layer_scores import average_distances
from ..scoring.method import Method
from ..scoring.nearest import hollow
from ..types import Array, Cell, FloatArray
from .object_store import Place, taken
from .shards import close_vit

Rows = range
"""Neighboring places whose distances one task averages: an arc, or a part of one."""


@dataclass(frozen=True)
class Circle:
    """What every task needs to know of a lot.

    Attributes
    ----------
    arc : places in an arc.
    rows : places whose distances one task averages, at most an arc's.
    inside : (N,P) by place, the patches that may be the nearest; None for all.
    """

    method: Method
    judges: Judges
    scorer: str
    arc: int
    rows: int
    inside: Array | None = None

    @property
    def arcs(self) -> int:
        """Number of arcs."""
        return ceil_div(self.judges.images, self.arc)

    def places(self, arc: int) -> range:
        """The places of an arc."""
        return range(arc * self.arc, min((arc + 1) * self.arc, self.judges.images))

    def rows_of(self, arc: int) -> list[Rows]:
        """The places of an arc, as they are averaged together."""
        places = self.places(arc)
        return [places[i : i + self.rows] for i in range(0, len(places), self.rows)]

    def pieces(self, cell: Cell) -> list[Piece]:
        """The parts of what comparing a cell gives, in the order in which ``compare`` returns them."""
        first = [Piece(cell, rows, mine=True) for rows in self.rows_of(cell[0])]
        return first + [Piece(cell, rows, mine=False) for rows in self.rows_of(cell[1])]

    def pairs(self, cell: Cell) -> Iterator[tuple[int, int, int, int]]:
        """As ``Judges.pairs_of`` with arcs in place of blocks."""
        return self.judges.pairs_of(cell, self.arc)

    def entries(self, piece: Piece) -> list[tuple[int, int]]:
        """The place, and its judge's index, of each row of a piece, in the order of ``pairs``."""
        first = piece.rows if piece.mine else self.places(piece.cell[0])
        second = self.places(piece.cell[1]) if piece.mine else piece.rows
        both = ((a, b) if piece.mine else (b, a) for a in first for b in second if a < b)
        found = ((place, self.judges.index_of(place, judge)) for place, judge in both)
        return [(place, index) for place, index in found if index is not None]


class Piece(NamedTuple):
    """Cosines (n,R,P) of a cell for the places ``rows`` of its first arc (``mine``) or of its second."""

    cell: Cell
    rows: Rows
    mine: bool


class Prepared(NamedTuple):
    """The receipt of an arc: where its tokens are not finite (n,), and ``hollow`` (n,R,1 or P)."""

    finite: Array
    hollow: Array


def prepare(
    circle: Circle, arc: int, at: Sequence[Place], *objects: Array
) -> tuple[Prepared, FloatArray, FloatArray]:
    """Return the receipt, the centred tokens (n,P,C) and the inverse lengths (n,R,P) of an arc's images.

    ``at`` tells where in the objects the tokens of each are, by place of the circle.
    """
    settle_down()
    method, places, images = circle.method, circle.places(arc), taken(at, objects)
    tokens = np.empty((len(places), *images[0].shape), np.float32)
    lengths = np.empty((len(places), len(method.degrees), images[0].shape[0]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is named by who asked
        for k, image in enumerate(images):
            tokens[k] = rescale(centre(image[None])[0])
            lengths[k] = pooled_lengths(tokens[k], method.grid, method.degrees)
    finite = np.isfinite(lengths.reshape(len(places), -1)).all(axis=1)
    inverse = inverse_lengths(lengths)
    inside = None if circle.inside is None else circle.inside[places.start : places.stop]
    return Prepared(np.asarray(finite), hollow(inverse, inside, method.grid, method.near)), tokens, inverse


def compare(
    circle: Circle,
    cell: Cell,
    mine: FloatArray,
    inverse: FloatArray,
    others: FloatArray,
    inverse_others: FloatArray,
) -> list[Any]:
    """Compare the pairs of a cell: how many, and the pieces that ``Circle.pieces`` names.

    ``mine`` and ``others`` are the tokens of its two arcs, with their inverse lengths.
    """
    settle_down()
    comparer = _comparer(circle.scorer, circle.method, mine.shape[1])
    pieces = circle.pieces(cell)
    shape = len(circle.method.degrees), mine.shape[1]
    found = {piece: np.empty((len(circle.entries(piece)), *shape), np.float32) for piece in pieces}
    taken = dict.fromkeys(pieces, 0)
    piece_of = {(place, piece.mine): piece for piece in pieces for place in piece.rows}
    starts = [circle.places(arc).start for arc in cell]
    pairs = 0

    def put(place: int, cosines: FloatArray, *, of_mine: bool) -> None:
        piece = piece_of[place, of_mine]
        found[piece][taken[piece]] = cosines
        taken[piece] += 1

    for a, b, _, _ in circle.pairs(cell):
        within = None if circle.inside is None else (circle.inside[a], circle.inside[b])
        i, j = a - starts[0], b - starts[1]
        of_a, of_b = comparer.compare(mine[i], others[j], inverse[i], inverse_others[j], within)
        put(a, of_a, of_mine=True)
        put(b, of_b, of_mine=False)
        pairs += 1
    return [pairs, *found.values()]


def average(
    circle: Circle, rows: Rows, named: Sequence[Piece], empty: Array, inverse: FloatArray, *pieces: FloatArray
) -> Array:
    """Return what the method measures of each patch (1 or 2,n,P) of the images at ``rows``.

    ``named`` and ``pieces`` are all pieces of these rows, ``empty`` (N,R,1 or P) the lot's hollow images, and
    ``inverse`` the inverse lengths of the arc that the rows lie in.
    """
    judges, start = circle.judges, circle.places(rows.start // circle.arc).start
    cosines = np.empty((len(rows), judges.count, *inverse.shape[1:]), np.float32)
    for piece, values in zip(named, pieces, strict=True):
        entries = np.array(circle.entries(piece), np.int64).reshape(-1, 2)
        cosines[entries[:, 0] - rows.start, entries[:, 1]] = values
    scores = [
        average_distances(circle.method, judges, place, of_place, inverse[place - start], empty)
        for place, of_place in zip(rows, cosines, strict=True)
    ]
    return np.stack(scores, axis=1)


one_thread = ExitStack()
"""Left when the process ends: what it takes to enter is too much for each task."""


@lru_cache(1)
def _limit_threads() -> None:
    one_thread.enter_context(one_thread_per_product(1))


def settle_down() -> None:
    """Free what describing images took, and let each product run on one thread."""
    close_vit()
    _limit_threads()


@lru_cache(1)
def _comparer(scorer: str, method: Method, patches: int) -> Comparer:
    """The memory of this process's one thread, kept from task to task."""
    kind = load_filter(scorer)
    return Comparer(kind(method.grid, method.degrees, method.near), patches, len(method.degrees))
