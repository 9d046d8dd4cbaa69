"""When the GPU worked at what, by events around what is queued, so that nothing waits for the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..kernels.gpu import Event, Gpu, Stream
from .timing import StageTimer


class DeviceTimer:
    """Records spans of the device's work in ``timer``, by its clock.

    The clocks of device and host are read at the same moment when it is made, after all that is queued in
    ``stream``.
    """

    def __init__(self, gpu: Gpu, timer: StageTimer, stream: Stream) -> None:
        self._gpu, self._timer = gpu, timer
        self._spans: list[tuple[str, Event, Event]] = []
        self._origin = gpu.event(timed=True)
        gpu.record(self._origin, stream)
        gpu.finish(self._origin)
        self._began = time.perf_counter()

    @contextmanager
    def work(self, name: str, stream: Stream) -> Iterator[None]:
        """Time what the enclosed block queues in ``stream`` as work called ``name``."""
        start, stop = (self._gpu.event(timed=True) for _ in range(2))
        self._gpu.record(start, stream)
        yield
        self._gpu.record(stop, stream)
        self._spans.append((name, start, stop))

    def finish(self) -> None:
        """Wait for the work, and hand its spans to the timer."""
        for name, *events in self._spans:
            self._gpu.finish(events[1])
            self._timer.record(name, *(self._began + self._gpu.elapsed(self._origin, e) for e in events))
        self._spans.clear()
