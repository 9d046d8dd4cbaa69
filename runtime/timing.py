"""The stage timer of inference and benchmark: records when named work ran, on any thread."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .types import Array


class StageTimer:
    """Records the spans of named stages and of the work within them.

    Stages follow one another on the thread that runs the lot, so their ``seconds`` add up to its time.
    A stage may be entered many times, but stages do not nest.  Work runs within a stage on any thread, also
    while the stage only waits for it.
    """

    def __init__(self) -> None:
        self._stages: list[str] = []
        self._spans: dict[str, array[float]] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, in the order of first use."""
        spans = self.spans()
        return {name: float(np.diff(spans[name]).sum()) for name in self._stages if name in spans}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the enclosed block as part of stage ``name``."""
        if name not in self._stages:
            self._stages.append(name)
        with self.work(name):
            yield

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Time the enclosed block as work called ``name``, from any thread."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record(name, start, time.perf_counter())

    def spans(self) -> dict[str, Array]:
        """Return starts and stops (n,2) in seconds, by name of stage or work, in the order of their ends."""
        # Of copies, each made in one call: another thread may bring a new name or a new span meanwhile.
        spans = self._spans.copy()
        return {name: np.array(values[:]).reshape(-1, 2) for name, values in spans.items()}

    def record(self, name: str, start: float, stop: float) -> None:
        """Note that work called ``name`` ran from ``start`` to ``stop``, by ``time.perf_counter``."""
        # Without a lock: setdefault and extend are one call each, which no other thread interrupts.  An array
        # takes 16 bytes for a span, so that a lot of any size can be timed.
        self._spans.setdefault(name, array("d")).extend((start, stop))


class _Untimed(StageTimer):
    """Records nothing."""

    def record(self, name: str, start: float, stop: float) -> None:
        """Do nothing."""


UNTIMED = _Untimed()
"""The timer of callers that want no times."""
