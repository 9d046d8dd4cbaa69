"""Mutual scores of one layer: every pair of images is compared, then every patch's distances are averaged.

Pairs are handed to the threads in cells, two blocks of images at a time, and the tokens of few enough
blocks are in memory at once.  What is kept of an interrupted run is verified and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol, TypeVar

import numpy as np

from .aggregate import centre, pooled_lengths, rescale
from .compare import Comparer, GramFilter, distance
from .errors import LotError
from .interval import interval_bounds, interval_mean
from .judges import Cell, Judges
from .parallel import in_order
from .rows import FileRows, Rows
from .rows import checksum as checksum_of
from .timing import StageTimer
from .types import Array, FeatureStore, FloatArray, Plan, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class KeptCells(Protocol):
    """What an earlier run of the same work has left, and where this one leaves its own (checkpoint.py)."""

    notes: list[str]

    def scores(self, layer: int) -> Array | None:
        """Mutual scores (N,P) of a finished layer, by place."""
        ...

    def keep_scores(self, layer: int, scores: Array) -> None:
        """Keep the mutual scores of a layer; its cells are of no more use."""
        ...

    def open_minima(self, shape: tuple[int, int]) -> FileRows:
        """The file of cosines."""
        ...

    def cells(self, layer: int) -> dict[Cell, int]:
        """Finished cells of a layer, each with the checksum of its cosines."""
        ...

    def keep_cell(self, layer: int, cell: Cell, checksum: int) -> None:
        """Note a cell whose cosines have been written."""
        ...


def require_finite(layer: int, judges: Judges, values: Array) -> None:
    """Raise LotError with the numbers of the images whose ``values`` (N,...), by place, are not finite."""
    broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(broken):
        names = ", ".join(str(i) for i in sorted(judges.order[broken]))
        raise LotError(
            f"the tokens of layer {layer} hold values that are not finite, in images {names} "
            "(counted from 0). Check the backend's precision."
        )


class Report:
    """Counts compared pairs, and of them those that an ``earlier`` run has compared."""

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


@dataclass(frozen=True)
class Layer:
    """The work on one layer.  Images are named by their places among the judges (judges.py)."""

    grid: tuple[int, int]
    degrees: tuple[int, ...]
    interval: tuple[float, float]
    kind: type[GramFilter]
    store: FeatureStore
    layer: int
    plan: Plan
    judges: Judges
    minima: Rows
    kept: KeptCells | None
    report: Report
    timer: StageTimer

    def kept_pairs(self) -> int:
        """Pairs that need not be compared again, if what was kept of them is whole."""
        return sum(map(self._count, self.kept.cells(self.layer))) if self.kept else 0

    def finished(self) -> Array | None:
        """Mutual scores (N,P) by place that an earlier run has kept, or None."""
        return self.kept.scores(self.layer) if self.kept else None

    def scores(self, inverse: FloatArray) -> Array:
        """Mutual scores (N,P) by place, averaged over degrees; ``inverse`` as from ``inverse_lengths``."""
        self._compare(inverse, done=self._verified_cells())
        scores = self._select(inverse)
        if self.kept:
            self.kept.keep_scores(self.layer, scores)
        return scores

    def read_tokens(self, place: int) -> FloatArray:
        """Centred tokens (P,C) of the image at ``place``."""
        image = int(self.judges.order[place])
        return rescale(centre(self.store.block(self.layer, image, image + 1))[0])

    def inverse_lengths(self, tick: Callable[[], None]) -> FloatArray:
        """One over the length of every pooled token (N,R,P); 0 for a patch without content.

        ``tick`` is called after each image.  LotError with their numbers if images hold what is not finite.
        """

        @self.timer.work("aggregate")
        def measure(place: int) -> FloatArray:
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is named below
                return pooled_lengths(self.read_tokens(place), self.grid, self.degrees)

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
        """Write the cosines of all pairs whose cells are not ``done``."""
        _, _, patches, width = self.store.shape
        degrees, block = len(self.degrees), self.plan.block
        items = degrees * patches
        comparers: SimpleQueue[Comparer] = SimpleQueue()
        for _ in range(self.plan.threads):
            comparers.put(Comparer(self.kind(self.grid, self.degrees), patches, degrees))
        resident = Resident(self, width)

        @self.timer.work("compare")
        def compare(cell: Cell) -> tuple[int, int]:
            checksum = pairs = 0
            mine, others = (resident.tokens(i) for i in cell)
            comparer = comparers.get()
            try:
                for a, b, there, back in self._pairs(cell):
                    own, their = mine[a - cell[0] * block], others[b - cell[1] * block]
                    of_a, of_b = comparer.compare(own, their, inverse[a], inverse[b])
                    self.minima.write(a, there * items, of_a)
                    self.minima.write(b, back * items, of_b)
                    pairs += 1
                    if self.kept:
                        checksum = checksum_of(of_b, checksum_of(of_a, checksum))
            finally:
                comparers.put(comparer)
            return pairs, checksum

        for group in self.judges.groups(block, self.plan.resident):
            cells = [cell for cell in group if cell not in done]
            resident.hold(sorted({i for cell in cells for i in cell}))
            for cell, (pairs, checksum) in self.in_parallel(cells, compare):
                if self.kept:
                    self.kept.keep_cell(self.layer, cell, checksum)
                self.report(pairs)

    def _verified_cells(self) -> set[Cell]:
        """Cells that an earlier run has finished and whose cosines are as it wrote them."""
        items = len(self.degrees) * self.store.shape[2]

        def checksum(cell: Cell) -> int:
            value = 0
            for a, b, there, back in self._pairs(cell):
                value = checksum_of(self.minima.read(a, there * items, items), value)
                value = checksum_of(self.minima.read(b, back * items, items), value)
            return value

        kept = self.kept.cells(self.layer) if self.kept else {}
        whole = {cell for cell, found in self.in_parallel(list(kept), checksum) if found == kept[cell]}
        self.report.from_earlier(-sum(map(self._count, kept.keys() - whole)))
        return whole

    def _select(self, inverse: FloatArray) -> Array:
        """Turn cosines into distances and average their interval: mutual scores (N,P)."""
        degrees, patches = inverse.shape[1:]
        count = self.judges.count
        bounds = interval_bounds(count + 1, self.interval)
        hollow = (inverse == 0).any(axis=2)

        @self.timer.work("select")
        def average(place: int) -> Array:
            cosines = self.minima.read(place, 0, count * degrees * patches)
            distances = distance(
                cosines.reshape(count, degrees, patches), inverse[place] > 0, hollow[self.judges.of(place)]
            )
            mean = interval_mean(distances.reshape(count, -1), *bounds).reshape(degrees, patches)
            average: Array = mean.mean(axis=0, dtype=np.float64)
            return average

        scores = np.empty((self.judges.images, patches), np.float64)
        for place, values in self.in_parallel(range(self.judges.images), average):
            scores[place] = values
        return scores

    def in_parallel(
        self, items: Sequence[Item], work: Callable[[Item], Result]
    ) -> Iterator[tuple[Item, Result]]:
        return in_order(items, work, self.plan.threads, ahead=2 * self.plan.threads, name="score")


class Resident:
    """The blocks of centred tokens that are in memory: two sides of a comparison."""

    def __init__(self, layer: Layer, width: int) -> None:
        plan, judges = layer.plan, layer.judges
        blocks = -(-judges.images // plan.block)
        held = min(2 * plan.resident, blocks)
        self._layer = layer
        self._room = np.empty((held * plan.block, layer.store.shape[2], width), np.float32)
        self._places: dict[int, int] = {}  # block -> first row in the room

    def tokens(self, block: int) -> FloatArray:
        """Tokens (n,P,C) of a block that is held."""
        start = self._places[block]
        room: FloatArray = self._room[start : start + self._layer.plan.block]
        return room

    def hold(self, blocks: Sequence[int]) -> None:
        """Have these blocks in memory, and drop what is in their way."""
        size, images = self._layer.plan.block, self._layer.judges.images
        self._places = {block: row for block, row in self._places.items() if block in blocks}
        taken = set(self._places.values())
        free = iter([row for row in range(0, len(self._room), size) if row not in taken])
        loads = []
        for block in blocks:
            if block not in self._places:
                self._places[block] = row = next(free)
                stop = min((block + 1) * size, images)
                loads += [(place, row + place - block * size) for place in range(block * size, stop)]

        @self._layer.timer.work("load")
        def load(item: tuple[int, int]) -> None:
            place, row = item
            self._room[row] = self._layer.read_tokens(place)

        for _ in self._layer.in_parallel(loads, load):
            pass
