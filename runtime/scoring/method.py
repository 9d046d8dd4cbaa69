"""The parameters of LNAMD and MSM that every scorer takes (paper, sections 3.2 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from ..._numbers import too_few
from ..errors import LotError
from ..settings import PAIRS, PAPER, RESIDUAL, ScoreSettings
from .aggregate import check_degrees
from .interval import MIN_IMAGES, interval_bounds, smallest_lot
from .judges import Judges, choose, everyone
from .plan import LotSize


@dataclass(frozen=True)
class Method:
    """The method's parameters: grid of the tokens, degrees, interval, and how many others score an image.

    ``group_size`` None means all others; ``by`` is what a patch is scored by (settings.py).  Raises LotError
    for values that no lot can be scored with.
    """

    grid: tuple[int, int]
    degrees: tuple[int, ...] = PAPER.degrees
    interval: tuple[float, float] = PAPER.interval
    group_size: int | None = None
    by: str = PAIRS

    @classmethod
    def of(cls, grid: tuple[int, int], settings: ScoreSettings) -> Method:
        """Make the method for a grid of tokens from a user's settings."""
        return cls(grid, settings.degrees, settings.interval, settings.group_size, settings.by)

    def __post_init__(self) -> None:
        check_degrees(self.degrees)
        least = smallest_lot(self.interval) - 1
        if self.group_size is not None and self.group_size < least:
            raise LotError(
                f"a group size of {self.group_size} is too small: the interval {self.interval} needs at "
                f"least {least} other images to score an image by."
            )

    def lot_size(self, shape: tuple[int, int, int, int], itemsize: int) -> LotSize:
        """Return the sizes that a plan for tokens of ``shape`` (S,N,P,C) depends on."""
        layers, images, patches, width = shape
        judge_count = choose(images, self.group_size).count
        return LotSize(layers, images, patches, width, itemsize, len(self.degrees), judge_count)

    def judges(self, images: int) -> Judges:
        """Choose who judges whom among ``images``; LotError if the interval of so many distances is empty.

        By residual all take part, and MIN_IMAGES are enough.
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
        return judges
