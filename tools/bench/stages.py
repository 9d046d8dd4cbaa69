"""Summarise the spans of a run: how busy each stage was, what overlapped, and what no stage explains.

Stages run on several threads, so their times add up to more than the run's.  The run's time is

    wall = sum of busy - overlap + idle

where overlap counts a second once for each stage beyond the first that is busy in it, and idle is the time
in which none is.  A small idle time says that the stages explain the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...runtime.types import Array

WAITS = ("wait for hashes", "wait for images", "score")
"""Stages in which the lot's thread waits for work that others do, which is timed there."""


@dataclass(frozen=True)
class Timeline:
    """Seconds of a run: ``busy`` by stage, added over threads."""

    wall: float
    busy: dict[str, float]
    overlap: float
    idle: float

    @property
    def explained(self) -> float:
        """Share of the wall time in which some stage was busy."""
        return 1 - self.idle / self.wall


def timeline(spans: Mapping[str, Array], start: float, stop: float) -> Timeline:
    """Make the timeline of a run from ``start`` to ``stop``, from spans (n,2) by stage."""
    work = {name: found for name, found in spans.items() if name not in WAITS and len(found)}
    busy = {name: float(np.diff(found).sum()) for name, found in work.items()}
    covered = _covered(np.concatenate([*work.values(), np.empty((0, 2))]))
    return Timeline(stop - start, busy, sum(busy.values()) - covered, stop - start - covered)


def _covered(spans: Array) -> float:
    """Return the seconds in which at least one of ``spans`` (n,2) runs."""
    # In order of their starts, each span adds the part of it that is after all the ends before it.
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reached = np.maximum.accumulate(spans[:, 1])
    before = np.concatenate([spans[:1, 0], reached[:-1]])
    return float(np.maximum(spans[:, 1] - np.maximum(spans[:, 0], before), 0).sum())


@dataclass(frozen=True)
class Calls:
    """Percentiles of the seconds that single calls of a stage took."""

    count: int
    p50: float
    p90: float
    p99: float
    longest: float


def calls(seconds: Array) -> Calls:
    """Compute the percentiles of calls' seconds (n,), n at least 1."""
    p50, p90, p99, longest = (float(value) for value in np.percentile(seconds, (50, 90, 99, 100)))
    return Calls(len(seconds), p50, p90, p99, longest)
