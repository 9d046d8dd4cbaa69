"""Mutual scores of one layer: every pair of images is compared, then every patch's distances are averaged.

A cell, the pairs between two blocks of images, is the unit of work for a thread.  No more blocks of tokens
are in memory than the plan allows.  Cells that an interrupted run has kept are verified and not compared
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from ..parallel import in_order
from ..store.tables import Rows
from ..store.tables import checksum as checksum_of
from ..timing import StageTimer
from ..types import Array, Cell, FeatureStore, FloatArray, Plan, Progress
from .aggregate import centre, pooled_lengths, rescale
from .image_pairs import Comparer, distance
from .judges import Judges, require_finite
from .method import Method
from .nearest import hollow
from .protocols import GramFilter, KeptCells
from .token_blocks import TokenBlocks

Item = TypeVar("Item")
Result = TypeVar("Result")


class Report:
    """Counts the pairs that are done, and how many of them an ``earlier`` run had compared."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self.earlier = 0

    def __call__(self, pairs: int) -> None:
        self._done += pairs
        self._progress("score", self._done, self._total, "pairs")

    def from_earlier(self, pairs: int) -> None:
        """Count pairs of an earlier run; fewer than none, if what it kept of them is damaged."""
        self.earlier += pairs
        self(pairs)

    def note_earlier(self, kept: KeptCells | None) -> None:
        """Note in ``kept`` work how many pairs an earlier run had compared, if any."""
        if kept and self.earlier:
            kept.notes.append(f"{self.earlier:,} comparisons of images come from an earlier, interrupted run")


@dataclass(frozen=True)
class Layer:
    """The work on one layer.  Images are addressed by their places on the circle of judges (judges.py).

    ``inside`` (N,P), by place, are the patches that may be the nearest; None for all.
    """

    method: Method
    gram_filter: type[GramFilter]
    store: FeatureStore
    layer: int
    plan: Plan
    judges: Judges
    cosines: Rows
    kept: KeptCells | None
    report: Report
    timer: StageTimer
    inside: Array | None = None

    @property
    def degrees(self) -> tuple[int, ...]:
        """The sides r of the method's neighborhoods."""
        return self.method.degrees

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Shape of what ``scores`` returns."""
        return self.method.results, self.judges.images, self.store.shape[2]

    def kept_pairs(self) -> int:
        """Count the pairs that an earlier run has kept; some turn out damaged when they are verified."""
        return sum(map(self._count, self.kept.cells(self.layer))) if self.kept else 0

    def finished(self) -> Array | None:
        """Return what ``scores`` returned to an earlier run that has kept it, or None."""
        return self.kept.scores(self.layer, self._shape) if self.kept else None

    def scores(self, inverse: FloatArray) -> Array:
        """Return what the method measures of each patch (1 or 2,N,P), by place, averaged over degrees.

        First the mutual scores; with burn-out also the share of degrees in which the interval began later.
        ``inverse`` (N,R,P) is what ``inverse_lengths`` returned.
        """
        self._compare(inverse, done=self._verified_cells())
        scores = self._select(inverse)
        if self.kept:
            self.kept.keep_scores(self.layer, scores)
        return scores

    def read_tokens(self, place: int) -> FloatArray:
        """Read the centred tokens (P,C) of the image at ``place``, rescaled to about 1."""
        image = int(self.judges.order[place])
        return rescale(centre(self.store.block(self.layer, image, image + 1))[0])

    def inverse_lengths(self, tick: Callable[[], None]) -> FloatArray:
        """Return one over the length of every pooled token (N,R,P); 0 for a patch without content.

        ``tick`` is called after each image.  Raises LotError, with the numbers of the images, if tokens are
        not finite.
        """

        @self.timer.work("aggregate")
        def measure(place: int) -> FloatArray:
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is named below
                return pooled_lengths(self.read_tokens(place), self.method.grid, self.degrees)

        lengths = np.empty((self.judges.images, len(self.degrees), self.store.shape[2]), np.float32)
        for place, values in self.in_parallel(range(self.judges.images), measure):
            lengths[place] = values
            tick()
        require_finite(self.layer, self.judges, lengths)
        return np.divide(1, lengths, out=lengths, where=lengths > 0)

    def _pairs(self, cell: Cell) -> Iterator[tuple[int, int, int, int]]:
        return self.judges.pairs_of(cell, self.plan.block)

    def _count(self, cell: Cell) -> int:
        return sum(1 for _ in self._pairs(cell))

    def _compare(self, inverse: FloatArray, done: set[Cell]) -> None:
        """Compare the pairs of all cells that are not ``done`` and write their cosines."""
        _, images, patches, width = self.store.shape
        degree_count, block = len(self.degrees), self.plan.block
        items = degree_count * patches
        # Scratch memory of P*P numbers each: as many as can work at once, passed from cell to cell.
        comparers: SimpleQueue[Comparer] = SimpleQueue()
        for _ in range(self.plan.threads):
            gram_filter = self.gram_filter(self.method.grid, self.degrees, self.method.near)
            comparers.put(Comparer(gram_filter, patches, degree_count))
        held = TokenBlocks(images, block, 2 * self.plan.blocks_in_memory, (patches, width))

        @self.timer.work("load")
        def load(item: tuple[int, int]) -> None:
            place, row = item
            held.room[row] = self.read_tokens(place)

        @self.timer.work("compare")
        def compare(cell: Cell) -> tuple[int, int]:
            checksum = pairs = 0
            mine, others = (held.tokens(i) for i in cell)
            comparer = comparers.get()
            try:
                for a, b, there, back in self._pairs(cell):
                    own, their = mine[a - cell[0] * block], others[b - cell[1] * block]
                    within = None if self.inside is None else (self.inside[a], self.inside[b])
                    of_a, of_b = comparer.compare(own, their, inverse[a], inverse[b], within)
                    self.cosines.write(a, there * items, of_a)
                    self.cosines.write(b, back * items, of_b)
                    pairs += 1
                    # In the order of the pairs, in which ``_verified_cells`` reads them back.
                    if self.kept:
                        checksum = checksum_of(of_b, checksum_of(of_a, checksum))
            finally:
                comparers.put(comparer)
            return pairs, checksum

        for group in self.judges.groups(block, self.plan.blocks_in_memory):
            cells = [cell for cell in group if cell not in done]
            missing = held.make_room_for(sorted({i for cell in cells for i in cell}))
            # All loads end before the first comparison begins, and all comparisons before the next group's
            # loads: a block's room is never overwritten while somebody reads it.
            for _ in self.in_parallel(missing, load):
                pass
            for cell, (pairs, checksum) in self.in_parallel(cells, compare):
                # Noted here, on the thread that consumes the results: the journal needs no lock.
                if self.kept:
                    self.kept.keep_cell(self.layer, cell, checksum)
                self.report(pairs)

    def _verified_cells(self) -> set[Cell]:
        """Return the cells that an earlier run has finished and whose cosines are still as it wrote them."""
        items = len(self.degrees) * self.store.shape[2]

        def checksum(cell: Cell) -> int:
            value = 0
            for a, b, there, back in self._pairs(cell):
                value = checksum_of(self.cosines.read(a, there * items, items), value)
                value = checksum_of(self.cosines.read(b, back * items, items), value)
            return value

        kept = self.kept.cells(self.layer) if self.kept else {}
        whole = {cell for cell, found in self.in_parallel(list(kept), checksum) if found == kept[cell]}
        self.report.from_earlier(-sum(map(self._count, kept.keys() - whole)))
        return whole

    def _select(self, inverse: FloatArray) -> Array:
        """Turn cosines into distances and average their interval; returns what ``scores`` does."""
        shape = self.judges.count, *inverse.shape[1:]
        empty = hollow(inverse, self.inside, self.method.grid, self.method.near)

        @self.timer.work("select")
        def average(place: int) -> Array:
            cosines = self.cosines.read(place, 0, prod(shape)).reshape(shape)
            return average_distances(self.method, self.judges, place, cosines, inverse[place], empty)

        scores = np.empty(self._shape, np.float64)
        for place, values in self.in_parallel(range(self.judges.images), average):
            scores[:, place] = values
        return scores

    def in_parallel(
        self, items: Sequence[Item], work: Callable[[Item], Result]
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item with ``work(item)``, in order, with as many threads as the plan says."""
        return in_order(items, work, self.plan.threads, ahead=2 * self.plan.threads, name="score")


def average_distances(
    method: Method, judges: Judges, place: int, cosines: FloatArray, inverse: FloatArray, empty: Array
) -> Array:
    """Return what the method measures of each patch (1 or 2,P) of the image at ``place``, over its degrees.

    ``cosines`` (K,R,P) are the largest with each judge, by the judge's index, ``inverse`` (R,P) the image's
    inverse lengths, and ``empty`` (N,R,1 or P) says which images are hollow, by place.
    """
    indices = judges.of(place)
    if (judging := judges.judging(place)) is not None:
        cosines, indices = cosines[judging], indices[judging]
    distances = distance(cosines, inverse > 0, empty[indices])
    by_degree = method.average(distances.reshape(len(indices), -1))
    average: Array = by_degree.reshape(-1, *inverse.shape).mean(axis=1, dtype=np.float64)
    return average
