"""The parameters of LNAMD and MSM that every scorer takes (paper, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..._numbers import too_few
from ..errors import LotError
from ..settings import PAIRS, PAPER, RESIDUAL, ScoreSettings
from ..types import Array, FloatArray
from .aggregate import check_degrees
from .burn_out import burn_out_mean, check_burn_out
from .interval import MIN_IMAGES, interval_bounds, interval_mean, smallest_lot
from .judges import Judges, choose, everyone
from .nearest import check_window, count_neighbors
from .plan import LotSize


class Window(NamedTuple):
    """What is averaged of an image's distances to ``judges``: from ``start`` to ``stop`` of the sorted ones.

    With ``burn_out`` as many, from where burn_out.py says; ``near`` that some patches may have no neighbor.
    """

    judges: int
    start: int
    stop: int
    burn_out: bool
    near: bool


@dataclass(frozen=True)
class Method:
    """The method's parameters: grid of the tokens, degrees, interval, and how many others score an image.

    ``group_size`` None means all others; ``by`` is what a patch is scored by (settings.py); ``burn_out`` that
    the interval may begin later (burn_out.py); ``near`` is the settings' window: how many rows and columns
    apart patches are that are compared, None for any (nearest.py).  Raises LotError for values that no lot
    can be scored with.
    """

    grid: tuple[int, int]
    degrees: tuple[int, ...] = PAPER.degrees
    interval: tuple[float, float] = PAPER.interval
    group_size: int | None = None
    by: str = PAIRS
    burn_out: bool = PAPER.burn_out
    near: int | None = None

    @classmethod
    def of(cls, grid: tuple[int, int], settings: ScoreSettings) -> Method:
        """Make the method for a grid of tokens from a user's settings."""
        s = settings
        return cls(grid, s.degrees, s.interval, s.group_size, s.by, s.burn_out, s.window)

    def __post_init__(self) -> None:
        check_degrees(self.degrees)
        check_window(self.near)
        if self.burn_out:
            check_burn_out(self.interval)
        least = smallest_lot(self.interval) - 1
        if self.group_size is not None and self.group_size < least:
            raise LotError(
                f"a group size of {self.group_size} is too small: the interval {self.interval} needs at "
                f"least {least} other images to score an image by."
            )

    @property
    def results(self) -> int:
        """What is measured of a patch: its score, and with burn-out whether its interval began later."""
        return 1 + self.burn_out

    def window(self, judges: int) -> Window:
        """Return what is averaged of the distances to so many ``judges``; LotError if that is nothing."""
        bounds = interval_bounds(judges + 1, self.interval)
        return Window(judges, *bounds, self.burn_out, self.near is not None)

    def average(self, distances: FloatArray) -> Array:
        """Return the interval averages of ``distances`` (K,Q) to K judges: (1,Q), or with burn-out (2,Q).

        The second row is 1 where the interval began later than the paper's, else 0.
        """
        window = self.window(len(distances))
        if self.burn_out:
            found = None if self.near is None else count_neighbors(distances)
            return np.stack(burn_out_mean(distances, window.stop, found))
        return interval_mean(distances, window.start, window.stop)[None]

    def lot_size(self, shape: tuple[int, int, int, int], itemsize: int) -> LotSize:
        """Return the sizes that a plan for tokens of ``shape`` (S,N,P,C) depends on."""
        layers, images, patches, width = shape
        judge_count = choose(images, self.group_size).count
        return LotSize(layers, images, patches, width, itemsize, len(self.degrees), judge_count, self.results)

    def judges(self, images: int, copies: Sequence[Sequence[int]] = ()) -> Judges:
        """Choose who judges whom among ``images``; LotError if the interval of so many distances is empty.

        ``copies`` are groups of rows that do not judge each other.  By residual all take part, and MIN_IMAGES
        are enough.
        """
        if self.by == RESIDUAL:
            if images < MIN_IMAGES:
                raise LotError(
                    f"{too_few(images, 'image')} to tell what is common in a lot: score at least "
                    f"{MIN_IMAGES} together."
                )
            return everyone(images)
        judges = choose(images, self.group_size)
        # K judges are to an interval what a lot of K+1 images is; the message names a K that fills it.
        whole = smallest_lot(self.interval, judges.count + 1) - 1
        if whole > judges.count and judges.count < images - 1:
            raise LotError(
                f"the interval {self.interval} of the distances to {judges.count} other images is empty: "
                f"choose a group size of {whole}, or a wider interval."
            )
        interval_bounds(judges.count + 1, self.interval)
        return judges.apart(copies)

    def can_be_apart(self, images: int, copies: Sequence[Sequence[int]]) -> list[bool]:
        """Return of each group of ``copies`` whether enough other images are left to judge it."""
        counts = np.empty(images, int)
        judges = self.judges(images, copies)
        counts[judges.order] = judges.counts()
        lo, hi = self.interval
        enough = [int(lo * count) < int(hi * count) for count in range(images)]
        return [all(enough[counts[row]] for row in group) for group in copies]
