"""Forecast what a lot will take, before it begins, and correct that while it is worked on.

Before the work one image is described by the ViT, a few are read and drawn, and a few pairs are compared.
What that says of the whole lot is off where the machine has other work or images differ, so each stage is
timed again over its first tenth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .images.resolution import Resolution
from .types import Plan

EXTRACT, SCORE, WRITE, SHEET = "extract", "score", "write", "contact sheet"
"""Stages, by the names under which their progress is reported."""

_ENOUGH, _LEAST = 0.1, 4
"""Share of a stage that is timed, and the least units: of several threads the first results come late."""


@dataclass(frozen=True)
class Forecast:
    """The work and the time that a lot will take; the names are the keys of its JSON.

    Attributes
    ----------
    judges : number of other images that score each image, or of their tiles that score each tile.
    pairs : pairs of images that are compared in each of ``layers``, and of ``tiles`` if they are cut; 0 by
        residual.
    reads : how often an image's tokens are read per layer.
    seconds : time to compare the pairs.
    scorer, vit : what compares the images, and what runs the ViT.
    survey_seconds : what looking at the files has taken.
    vit_seconds : time of the ViT, with reading the images.
    write_seconds : time to write maps and overlays; None, as for reading, if no image is known yet.
    sheet_seconds : time to draw the contact sheet.
    others : how many images, or tiles of them, there are to score one by.
    resolution : how the images come to the ViT; None if none is known yet.
    """

    images: int
    judges: int
    pairs: int
    layers: int
    reads: float
    seconds: float
    plan: Plan
    scorer: str
    vit: str
    vit_seconds: float
    survey_seconds: float = 0.0
    write_seconds: float | None = None
    sheet_seconds: float = 0.0
    tiles: int = 1
    others: int = 0
    resolution: Resolution | None = None

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of the stages to come, in their order."""
        return {
            EXTRACT: self.vit_seconds,
            SCORE: self.seconds,
            WRITE: self.write_seconds or 0.0,
            SHEET: self.sheet_seconds,
        }

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole job, what looking at the files has taken included."""
        return self.survey_seconds + sum(self.stages.values())


class Schedule:
    """The time that a run still takes: the forecast of each stage, until a tenth of it is done and timed.

    ``stages`` are seconds by the name of the stage, in their order.  Call :meth:`progress` as a ``Progress``.
    """

    def __init__(self, stages: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._left, self._clock = dict(stages), clock
        self._expected, self._begun = dict(stages), clock()
        self._stage, self._since, self._kept, self._timed = "", 0.0, 0.0, False
        self._halfway: set[str] = set()

    @property
    def left(self) -> float:
        """Seconds that are left, as of the last report of progress."""
        return sum(self._left.values())

    @property
    def total(self) -> float:
        """Seconds of all, from when this schedule was made."""
        return self._clock() - self._begun + self.left

    def progress(self, stage: str, done: float, total: float) -> bool:
        """Note what is done of a stage; returns True once per stage, when its first tenth has been timed.

        What the first report says is done was done by an earlier run, and is not counted for the rate.
        """
        if stage not in self._left:
            return False
        now = self._clock()
        if stage != self._stage:
            self._finish_before(stage)
            self._stage, self._since, self._kept, self._timed = stage, now, done, False
        self._kept = min(self._kept, done)  # less, if what an earlier run did turns out damaged
        new, whole = done - self._kept, total - self._kept
        timed = whole > 0 and new >= max(_ENOUGH * whole, min(_LEAST, whole / 2))
        if timed:
            self._left[stage] = (now - self._since) / new * (total - done)
        else:
            self._left[stage] = self._expected[stage] * (1 - done / total if total else 0.0)
        (self._halfway.add if done < total else self._halfway.discard)(stage)
        first, self._timed = timed and not self._timed, timed or self._timed
        return first

    def _finish_before(self, stage: str) -> None:
        for name in self._left:
            if name == stage:
                return
            if name not in self._halfway:  # where images are cut, a stage goes on with the next tile
                self._left[name] = 0.0
