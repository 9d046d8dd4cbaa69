"""A receiver of results that does as a test says, and results to tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

from musc_edge.runtime.line.patience import Patience
from musc_edge.runtime.line.result_log import Entry, ResultLog

SOON = Patience(first=0.001, most=0.01, poll=0.002, drain=60)
"""Waits for tests."""

LONG = 60.0


def until(done: Callable[[], object], what: str = "") -> None:
    """Wait for a state: as long as it takes on the slowest of machines, and no longer than that."""
    deadline = time.monotonic() + LONG
    while not done():
        assert time.monotonic() < deadline, f"it did not come to this: {what}"
        time.sleep(0.01)


class Told:
    """Takes what it is told, but for what ``answer`` raises; it can hang until ``released``."""

    destination = address = "told"

    def __init__(self, answer: Callable[[Entry], None] = lambda entry: None) -> None:
        self.answer, self.released = answer, Event()
        self.events: list[str] = []
        self.states: list[Mapping[str, Any]] = []
        self.opened = self.closed = self.beats = 0

    def open(self, state: Mapping[str, Any]) -> bool:
        self.opened += 1
        return False

    def tell(self, entry: Entry) -> None:
        self.answer(entry)
        self.events.append(entry.event)

    def beat(self, state: Mapping[str, Any]) -> None:
        self.states.append(state)

    def wait(self, stop: Event, seconds: float) -> None:
        stop.wait(seconds)

    def close(self, state: Mapping[str, Any] | None = None) -> None:
        self.closed += 1
        if state:
            self.states.append(state)


def add(
    log: ResultLog, verdict: str = "reject", count: int = 1, reference: str = "part42", **facts: object
) -> list[str]:
    """Record results; returns their events."""
    status = "ok" if verdict else "unreadable"
    return [
        log.add({"image": f"{len(log)}.png", "status": status, "verdict": verdict, **facts}, reference).event
        for _ in range(count)
    ]
