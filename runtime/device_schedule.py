"""In which order a lot is scored on the device, for one layer and degree: pure arithmetic.

Images are named by their places among the judges (judges.py), pairs by rows of what is on the device:
features of all images, or of a panel with one more block behind it, and distances of a panel, a row per
image and judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._numbers import ceil_div
from .judges import Judges
from .types import Array, DevicePlan

NOT_WANTED = -1


@dataclass(frozen=True)
class Pool:
    """Make the features of a block of images, into rows from ``row`` on."""

    block: int
    row: int


@dataclass(frozen=True)
class Open:
    """Forget the distances: those of places ``start`` to ``stop`` come next."""

    start: int
    stop: int


@dataclass(frozen=True)
class Compare:
    """Compare pairs (count,4): feature rows of a and b, distance rows of a with b and of b with a."""

    pairs: Array


@dataclass(frozen=True)
class Average:
    """Average the distances of places ``start`` to ``stop``."""

    start: int
    stop: int


Step = Pool | Open | Compare | Average


def degree_steps(judges: Judges, plan: DevicePlan) -> Iterator[Step]:
    """What to do for one layer and degree."""
    images, size = judges.images, plan.block
    blocks = ceil_div(images, size)
    if not plan.streamed:
        for block in range(blocks):
            yield Pool(block, block * size)
    for start in range(0, images, plan.panel):
        stop = min(start + plan.panel, images)
        pairs = panel_pairs(judges, start, stop)
        yield Open(start, stop)
        if plan.streamed:
            yield from _streamed(pairs, start, stop, size, blocks)
        else:
            yield Compare(pairs)
        yield Average(start, stop)


def _streamed(pairs: Array, start: int, stop: int, size: int, blocks: int) -> Iterator[Step]:
    """A panel's features stay, and the other blocks' pass by behind them."""
    mine = range(start // size, ceil_div(stop, size))
    for block in mine:
        yield Pool(block, block * size - start)
    of_block = pairs[:, 1] // size
    pairs[:, :2] -= start
    yield Compare(pairs[np.isin(of_block, mine)])
    for block in range(blocks):
        chosen = pairs[of_block == block]
        if block not in mine and len(chosen):
            yield Pool(block, stop - start)
            chosen[:, 1] += stop - block * size
            yield Compare(chosen)


def panel_pairs(judges: Judges, start: int, stop: int) -> Array:
    """Pairs (count,4) of places ``start`` to ``stop`` with all their judges, each pair once.

    A row is {a, b, row of a's distances to b, row of b's to a}, the last -1 if b is not of the panel.
    """
    count = judges.count
    slot = np.arange(count)
    a = np.arange(start, stop)[:, None]
    b = (a + judges.offsets()) % judges.images
    inside = (b >= start) & (b < stop)
    forth = (a - start) * count + slot
    back = np.where(inside, (b - start) * count + count - 1 - slot, NOT_WANTED)  # steps s and N - s
    pairs = np.stack(np.broadcast_arrays(a, b, forth, back), axis=-1)[~inside | (a < b)]
    return pairs.astype(np.int32)
