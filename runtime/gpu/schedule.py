"""The order of work on the device for one layer and degree: pure arithmetic.

Images are addressed by their places on the circle of judges (scoring/judges.py), pairs by rows of the arrays
on the device: features of all images, or of a panel with one more block behind it, and distances of a panel,
a row per image and judge.

The steps are made once (``Schedule``) and walked once per layer and degree.  Each ``Pool`` carries its
number, so that copying ahead knows which blocks follow without counting along.  The pairs of a ``Compare``
are made when they are asked for: those of a large lot would take more memory than its plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np

from ..._numbers import ceil_div
from ..scoring.judges import Judges
from ..types import Array, DevicePlan

NOT_WANTED = -1


@dataclass(frozen=True)
class Pool:
    """Compute the features of a block of images, into the rows from ``row`` on.

    ``number`` counts the blocks that are pooled for one layer and degree, from 0.
    """

    block: int
    row: int
    number: int


@dataclass(frozen=True)
class Open:
    """Begin a panel, the places ``start`` to ``stop``: the last one's distances are done with."""

    start: int
    stop: int


@dataclass(frozen=True)
class Compare:
    """Compare ``count`` pairs, which ``make`` returns."""

    count: int
    make: Callable[[], Array]

    @property
    def pairs(self) -> Array:
        """(count,4): feature rows of a and b, distance rows of a with b and of b with a."""
        return self.make()


@dataclass(frozen=True)
class Average:
    """Average the distances of places ``start`` to ``stop``."""

    start: int
    stop: int


Step = Pool | Open | Compare | Average


@dataclass(frozen=True)
class Schedule:
    """The steps of one layer and degree, the same for all."""

    steps: tuple[Step, ...]

    @classmethod
    def of(cls, judges: Judges, plan: DevicePlan) -> Schedule:
        """Make the steps for a lot and a plan."""
        return cls(tuple(degree_steps(judges, plan)))

    @property
    def blocks(self) -> list[int]:
        """The blocks that are pooled, in order."""
        return [step.block for step in self.steps if isinstance(step, Pool)]

    @property
    def pairs(self) -> int:
        """The number of pairs that are compared, counting those that are compared twice."""
        return sum(step.count for step in self.steps if isinstance(step, Compare))


def degree_steps(judges: Judges, plan: DevicePlan) -> Iterator[Step]:
    """Yield the steps for one layer and degree."""
    images, size = judges.images, plan.block
    blocks, number, pairs = ceil_div(images, size), count(), _PanelPairs(judges)
    # The features of all images are there: they are made once and serve every panel.
    if not plan.streamed:
        for block in range(blocks):
            yield Pool(block, block * size, next(number))
    for start in range(0, images, plan.panel):
        stop = min(start + plan.panel, images)
        yield Open(start, stop)
        if plan.streamed:
            yield from _streamed(_Panel(pairs, start, stop, size), blocks, number)
        else:
            make = partial(pairs.of, start, stop)
            yield Compare(len(make()), make)
        yield Average(start, stop)


class _PanelPairs:
    """Makes the pairs of a panel and keeps those of the latest, for all the blocks that pass by it."""

    def __init__(self, judges: Judges) -> None:
        self._judges = judges
        self._panel = 0, 0
        self._pairs: Array = np.empty((0, 4), np.int32)

    def of(self, start: int, stop: int) -> Array:
        """Return ``panel_pairs`` of a panel; the array is shared and must not be changed."""
        if (start, stop) != self._panel:
            self._panel, self._pairs = (start, stop), panel_pairs(self._judges, start, stop)
        return self._pairs


@dataclass(frozen=True)
class _Panel:
    """A panel whose features stay on the device while blocks of ``size`` images pass by behind them."""

    pairs: _PanelPairs
    start: int
    stop: int
    size: int

    @property
    def own(self) -> range:
        """The blocks that are part of the panel."""
        return range(self.start // self.size, ceil_div(self.stop, self.size))

    def own_pairs(self) -> Array:
        """Return the pairs within the panel, by rows of its features."""
        pairs = self.pairs.of(self.start, self.stop)
        # Both masks copy: the pairs that are kept for the other blocks stay as they are.
        chosen: Array = pairs[np.isin(pairs[:, 1] // self.size, self.own)]
        chosen[:, :2] -= self.start
        return chosen

    def pairs_with(self, block: int) -> Array:
        """Return the pairs with a block outside of the panel, whose rows are behind the panel's."""
        pairs = self.pairs.of(self.start, self.stop)
        chosen: Array = pairs[pairs[:, 1] // self.size == block]
        chosen[:, 0] -= self.start
        chosen[:, 1] += self.stop - self.start - block * self.size
        return chosen


def _streamed(panel: _Panel, blocks: int, number: Iterator[int]) -> Iterator[Step]:
    """Yield the steps of a panel whose features stay while the other blocks' pass by behind them."""
    for block in panel.own:
        yield Pool(block, block * panel.size - panel.start, next(number))
    yield Compare(len(panel.own_pairs()), panel.own_pairs)
    # A block without judges of the panel's images is not even pooled: with few judges that is most of them.
    for block in range(blocks):
        make = partial(panel.pairs_with, block)
        if block not in panel.own and (found := len(make())):
            yield Pool(block, panel.stop - panel.start, next(number))
            yield Compare(found, make)


def panel_pairs(judges: Judges, start: int, stop: int) -> Array:
    """Return the pairs (count,4) of places ``start`` to ``stop`` with those who judge them, each pair once.

    A row is {a, b, row of a's distances to b, row of b's to a}, the last -1 if b is not of the panel.
    """
    each = judges.count
    index = np.arange(each)
    a = np.arange(start, stop)[:, None]
    b = (a + judges.offsets()) % judges.images
    inside = (b >= start) & (b < stop)
    forth = (a - start) * each + index
    # Seen from b, a is N - s steps away if b is s steps from a.  ``offsets`` holds both, at mirrored indices.
    back = np.where(inside, (b - start) * each + each - 1 - index, NOT_WANTED)
    # A pair inside the panel comes up twice, from a and from b: only a < b stays.
    wanted = ~inside | (a < b)
    if judges.shots is not None:  # what is not compared stays infinite, behind all other distances
        wanted &= judges.shots[a] != judges.shots[b]
    pairs = np.stack(np.broadcast_arrays(a, b, forth, back), axis=-1)[wanted]
    return pairs.astype(np.int32)
