"""Decide which images score each other, and in which order the pairs are compared.

The images stand on a circle, in the lot's order or in a random one.  Each image is judged by its
K nearest neighbors on the circle, K/2 on either side (and, for an odd K, by the image opposite to it).
That is balanced by construction: every image judges K images and is judged by K, and who judges is
judged in turn, so one matrix product still serves both.  With K = N-1 it is the whole lot, as in the
paper; with a smaller K and a random circle it is a subset per image, drawn without labels.

A place is a position on the circle.  An image numbers its judges from 0 to K-1 in the order of ``Judges.of``;
that number is the judge's index with this image, and where its cosines or distances are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..._numbers import ceil_div, runs
from ..errors import LotError
from ..types import Array, Cell, FloatArray

SEED = 0
"""Seed of the random circle: fixed, so that a lot is scored alike every time."""


@dataclass(frozen=True)
class Judges:
    """``count`` judges for each image of a circle; ``order`` (N,) holds the images by place.

    Images that are copies of each other do not judge each other: ``shots`` (N,) numbers by place what they
    show, None if every image shows something of its own.  They keep their indices, so that what was compared
    is found in the same place; what is left of the K judges is each image's own number.
    """

    order: Array
    count: int
    shots: Array | None = None

    @property
    def images(self) -> int:
        """Images of the lot, N."""
        return len(self.order)

    @property
    def pairs(self) -> int:
        """Pairs of images that are compared."""
        return self.images * self.count // 2

    def offsets(self) -> Array:
        """Return the steps (K,) around the circle from an image to its judges, by the judges' index."""
        side = self.count // 2
        opposite = [self.images // 2] if self.count % 2 else []
        steps = [*range(1, side + 1), *opposite, *range(self.images - side, self.images)]
        return np.array(steps, np.int64)

    def of(self, place: int) -> Array:
        """Return the places (K,) of the judges of the image at ``place``, by their index."""
        judges: Array = (place + self.offsets()) % self.images
        return judges

    def judging(self, place: int) -> Array | None:
        """Which of the judges (K,) of the image at ``place`` judge it; None if all do."""
        if self.shots is None or (self.shots == self.shots[place]).sum() < 2:
            return None
        judging: Array = self.shots[self.of(place)] != self.shots[place]
        return judging

    def counts(self) -> Array:
        """Return how many judge the image at each place (N,)."""
        counts = np.full(self.images, self.count)
        if self.shots is not None:
            _, first, size = np.unique(self.shots, return_inverse=True, return_counts=True)
            for place in np.flatnonzero(size[first] > 1).tolist():
                counts[place] -= np.count_nonzero(self.shots[self.of(place)] == self.shots[place])
        return counts

    def apart(self, copies: Sequence[Sequence[int]]) -> Judges:
        """Return the same judges, of which those that are ``copies`` of an image do not judge it.

        ``copies`` are groups of images, by their number in the lot.
        """
        if not copies:
            return self
        of_image = np.arange(self.images)
        for group in copies:
            of_image[list(group)] = min(group)
        return replace(self, shots=of_image[self.order])

    def index_of(self, place: int, judge: int) -> int | None:
        """The index of the image at place ``judge`` among the judges of the one at ``place``, or None."""
        # The inverse of ``offsets``, which are 1..side, then N/2 if K is odd, then N-side..N-1.
        step = (judge - place) % self.images
        side = self.count // 2
        if 1 <= step <= side:
            return step - 1
        if step >= self.images - side:
            return step - self.images + self.count
        return side if self.count % 2 and 2 * step == self.images else None

    def pairs_of(self, cell: Cell, block: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the pairs of a cell: (a, b, index of b with a, index of a with b), a < b.

        ``block`` places make a block.
        """
        first, second = (range(i * block, min((i + 1) * block, self.images)) for i in cell)
        # Each pair once, and always a < b: the product with its sides exchanged may round differently.
        for a in first:
            for b in second:
                if a < b:
                    there, back = self.index_of(a, b), self.index_of(b, a)
                    if there is not None and back is not None:
                        yield a, b, there, back

    def groups(self, block: int, blocks_in_memory: int) -> Iterator[list[Cell]]:
        """All cells with pairs, in groups that need at most 2 * ``blocks_in_memory`` blocks at once."""
        sides = self._sides(block, blocks_in_memory)
        for first in sides:
            near = self._near(first, sides[-1].stop, block)
            for second in (sides[number] for number in sorted({i // blocks_in_memory for i in near})):
                if self._meet((first[0], first[-1]), (second[0], second[-1]), block):
                    yield [(i, j) for i in first for j in self._facing(i, second, block)]

    def _sides(self, block: int, blocks_in_memory: int) -> list[range]:
        return runs(range(ceil_div(self.images, block)), blocks_in_memory)

    def _facing(self, i: int, blocks: range, block: int) -> list[int]:
        """Return those of ``blocks``, from ``i`` on, that hold judges of images in block ``i``.

        Blocks before ``i`` are left out: their own cells hold those pairs.
        """
        near = self._near(range(i, i + 1), blocks.stop, block)
        return sorted(j for j in near if j in blocks and self._meet((i, i), (j, j), block))

    def _near(self, run: range, blocks: int, block: int) -> set[int]:
        """Return those of all ``blocks``, from a ``run`` of them on, that may hold judges of its images."""
        # These stand in three arcs of the circle: beside it, opposite to it, and, for a run near the start of
        # the circle, across its end.  Only the blocks of these arcs are looked at: their number grows with K,
        # not with N.  Each arc is taken a little too long; ``_meet`` decides exactly.
        start, last, side = run.start * block, run.stop * block - 1, self.count // 2
        beside = range(run.start, (last + side) // block + 1)
        around = range((start + self.images - side) // block - 1, blocks)
        opposite = range((start + self.images // 2) // block - 1, (last + self.images // 2) // block + 3)
        return {i for i in (*beside, *around, *opposite) if run.start <= i < blocks}

    def loads(self, block: int, blocks_in_memory: int) -> int:
        """Count the blocks that are read while going through the groups, if each keeps those it shares."""
        everyone_meets = min(block, self.images) > 1 and self.count >= self.images - 1
        if everyone_meets:  # each side is read for those before it, and for itself
            sizes = [len(side) for side in self._sides(block, blocks_in_memory)]
            read = sum(number * size for number, size in enumerate(sizes))
            return read + sizes[0] + sum(sizes[1:-1])  # the last is there when its turn comes
        held: set[int] = set()
        loads = 0
        for group in self.groups(block, blocks_in_memory):
            needed = {i for cell in group for i in cell}
            loads += len(needed - held)
            held = needed
        return loads

    def _meet(self, first: tuple[int, int], second: tuple[int, int], block: int) -> bool:
        """Return whether any images of two runs of blocks, in order, judge each other."""
        # Between two arcs every step from the nearest to the farthest pair of places occurs.  So it is enough
        # to ask whether that range touches one of the steps of ``offsets``.
        last = [min((stop + 1) * block, self.images) - 1 for _, stop in (first, second)]
        nearest = max(second[0] * block - last[0], 1)
        farthest = last[1] - first[0] * block
        side = self.count // 2
        opposite = self.count % 2 and nearest <= self.images / 2 <= farthest
        around = farthest >= self.images - side
        return farthest >= 1 and bool(nearest <= side or around or opposite)


def everyone(images: int) -> Judges:
    """Every image is judged by all others, as in the paper."""
    return Judges(np.arange(images), images - 1)


def choose(images: int, group: int | None) -> Judges:
    """Choose ``group`` judges for each image at random, by a fixed seed; all others if None or large.

    Where neither ``images`` nor ``group`` is even, no choice is balanced and one judge more is taken.

    Raises
    ------
    LotError
        If ``group`` is below 1.
    """
    if group is not None and group < 1:
        raise LotError(f"group size {group}: expected 1 or more other images to score each image by.")
    if group is None or group >= images - 1:
        return everyone(images)
    order = np.random.RandomState(SEED).permutation(images)  # its stream is frozen, unlike default_rng
    # An odd number of judges for an odd number of images: N*K/2 pairs would be no whole number.
    return Judges(order, group + group % 2 * images % 2)


def by_image(measured: Array, judges: Judges, later: FloatArray | None) -> FloatArray:
    """Return the scores (N,P) by image of what was ``measured`` (1 or 2,N,P) by place; fills ``later``."""
    scores = np.empty(measured.shape[1:], np.float32)
    scores[judges.order] = measured[0]
    if later is not None:
        later[judges.order] = measured[1] if len(measured) > 1 else 0
    return scores


def require_finite(layer: int, judges: Judges, values: Array) -> None:
    """Raise LotError with the numbers of the images whose ``values`` (N,...), by place, are not finite."""
    broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(broken):
        names = ", ".join(str(i) for i in sorted(judges.order[broken]))
        raise LotError(
            f"the tokens of layer {layer} hold values that are not finite, in images {names} "
            "(counted from 0). Check the backend's precision."
        )
