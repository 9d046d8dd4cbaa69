"""Tell a process or a camera that changed from single defects, by control charts over the results of a line.

The charts (``charts``) are a function of the log alone: before each image they take up what was recorded
since the last one.  So they are the same after a restart, whenever the program was killed and however many
threads check images; an image whose result was lost has never been seen.  What a restart would take long to
find out again is kept in the log's folder (``drift_memory``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np

from ..reference.check_facts import check_facts
from ..reference.checker import Check
from ..reference.choose import nearest_others
from ..reference.files import ReferenceFolder
from ..types import Array
from .charts import LEAST, Charts
from .drift_memory import Line, Memory
from .result_log import Entry, ResultLog

RATE = 1e-4
"""False alarms per image: one in 10,000 images, a shift of eight hours with an image every three seconds."""
RECENT = 25
"""Images whose median is told beside the reference's."""
KEEP_EVERY = 1000
"""Results after which a line is kept beside the log."""
VERSION = 1
"""Of the charts: another one takes up the log from its beginning."""
STEADY, CHANGED, LEARNING = "steady", "changed", "learning"
DRIFT = "drift"

_AT_ONCE = 1000
_TEXTS = {
    "raw_score": ("scores rose", "scores fell"),
    "cls_distance": (
        "images became less like the reference's (CLS embeddings moved away)",
        "images became more like the reference's (CLS embeddings moved closer)",
    ),
    "brightness": ("images became brighter", "images became darker"),
    "sharpness": ("images became sharper", "images became blurrier"),
}


class Results(Protocol):
    """What a log tells of its results, as ``ResultLog.after`` does."""

    def after(self, number: int, count: int) -> list[Entry]:
        """Return the ``count`` results after the one of this ``id``, the oldest first."""
        ...


@dataclass(frozen=True)
class Limits:
    """Where a signal of good images lies: nine in ten of the reference's from ``low`` to ``high``."""

    low: float
    centre: float
    high: float


def base_of(reference: ReferenceFolder) -> dict[str, Array]:
    """Return what the images of a reference said, by the name of the fact in a check."""
    return {
        "raw_score": reference.calibration,
        "cls_distance": nearest_others(reference.cls),
        "brightness": reference.looks[:, 0],
        "sharpness": reference.looks[:, 1],
    }


def control_limits(reference: ReferenceFolder) -> dict[str, Limits]:
    """Return the limits of each signal that has a base; single images beyond them are no drift."""
    return {
        name: Limits(*np.quantile(values, (0.05, 0.5, 0.95)).tolist())
        for name, values in base_of(reference).items()
        if len(values)
    }


class DriftMonitor:
    """Watches a line for drift; a witness of its station, used from any thread.

    Parameters
    ----------
    reference : ReferenceFolder
        What the images are checked against.
    rate : float
        False alarms per image, above 0 and below 1 (``charts`` says what is promised).
    log : ResultLog or another log
        Where the station records its results.  Beside a ResultLog a copy of the charts is kept.

    Attributes
    ----------
    notes : tuple of str
        What is not watched, and why.
    """

    def __init__(self, reference: ReferenceFolder, rate: float, log: Results) -> None:
        base = base_of(reference)
        self.charts = Charts(base, rate)
        self.notes = tuple(
            f"{name} is not watched for drift: the reference has {len(values)} images for it, expected "
            f"{LEAST} or more"
            for name, values in base.items()
            if name not in self.charts.signals
        )
        self._medians = {name: float(np.median(base[name])) for name in self.charts.signals}
        self._mark = reference.digest[:16]
        self._log, self._turn = log, Lock()
        settings = {"reference": reference.digest, "rate": rate, "charts": VERSION}
        self._memory = (
            Memory(log.folder / f"drift-{self._mark}.json", settings) if isinstance(log, ResultLog) else None
        )
        self._line, self._position = self._remembered()
        self._kept = self._position
        self._times: dict[int, str] = {}

    def see(self, check: Check, image: object, key: bytes | None) -> Mapping[str, Any]:
        """Return the fact ``drift``: whether the line has changed, with this image as the last one."""
        with self._turn:
            self._catch_up()
            line = self._after(self._line, check_facts(check), self._position + 1)
            return {DRIFT: self._fact(line)}

    def now(self) -> Mapping[str, Any]:
        """Return the same after the last image that was recorded."""
        with self._turn:
            self._catch_up()
            return self._fact(self._line)

    def _catch_up(self) -> None:
        """Take up the results that were recorded since the last time."""
        while entries := self._log.after(self._position, _AT_ONCE):
            for entry in entries:
                if self._is_ours(entry):
                    self._line = self._after(self._line, entry.facts, entry.id)
            self._position = entries[-1].id
            if self._memory and self._position >= self._kept + KEEP_EVERY:
                self._memory.write(entries[-1].event, self._position, self._line)
                self._kept = self._position

    def _remembered(self) -> tuple[Line, int]:
        """Return the line and the last result that it knows, as kept, or as before the first one."""
        start = self.charts.start()
        if self._memory and (kept := self._memory.read(start)):
            event, number, line = kept
            if [entry.event for entry in self._log.after(number - 1, 1)] == [event]:
                return line, number
        return Line(start), 0

    def _is_ours(self, entry: Entry) -> bool:
        """Return whether a result is of this reference, and not of an earlier one with the same name."""
        fact = entry.facts.get(DRIFT)
        return isinstance(fact, dict) and fact.get("reference") == self._mark

    def _after(self, line: Line, facts: Mapping[str, Any], number: int) -> Line:
        """Return the line after an image; one that was not scored changes nothing."""
        if facts["status"] != "ok":
            return line
        values = np.array([facts[name] for name in self.charts.signals])
        state = self.charts.step(line.state, values, number)
        return Line(state, (*line.recent, values)[-RECENT:])

    def _fact(self, line: Line) -> dict[str, Any]:
        """Say in words how a line is."""
        since = line.state.since.tolist()
        changed = [k for k, number in enumerate(since) if number]
        state = CHANGED if changed else STEADY if self.charts.signals else LEARNING
        return {
            "state": state,
            "since": min((since[k] for k in changed), default=None),
            "what": [self._text(k, since[k], line.recent) for k in changed],
            "reference": self._mark,
        }

    def _text(self, chart: int, since: int, recent: tuple[Array, ...]) -> str:
        signal = self.charts.signals[chart // 2]
        now = float(np.median([values[chart // 2] for values in recent]))
        return (
            f"{_TEXTS[signal][chart % 2]} since image {since}{self._time(since)}: median of the last "
            f"{len(recent)} {now:.4g}, of the reference {self._medians[signal]:.4g}"
        )

    def _time(self, number: int) -> str:
        """When an image was recorded, to the minute."""
        if number not in self._times and (entries := self._log.after(number - 1, 1)):
            self._times = {number: f" ({entries[0].time[:16].replace('T', ' ')} UTC)"}
        return self._times.get(number, "")
