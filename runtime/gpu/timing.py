"""Record GPU work as timeline spans, by events around what is queued, so that nothing waits for a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...kernels.gpu import Array, DeviceArray, Event, Gpu, Stream
from ..timing import StageTimer


class DeviceTimer:
    """Records spans of the device's work in ``timer``.

    Events give times on the device's clock.  Both clocks are read at the same moment when the timer is made,
    and again after each ``finish``, so that they cannot drift apart over a long run.
    """

    def __init__(self, gpu: Gpu, timer: StageTimer, stream: Stream) -> None:
        self._gpu, self._timer, self._stream = gpu, timer, stream
        self._spans: list[tuple[str, Event, Event]] = []
        self._spare: list[Event] = []
        self._origin = gpu.event(timed=True)
        self._read_clocks()

    @contextmanager
    def work(self, name: str, stream: Stream) -> Iterator[None]:
        """Time all that the enclosed block queues in ``stream``, as work called ``name``."""
        start = self._event()
        self._gpu.record(start, stream)
        yield
        self._stop(name, start, stream)

    def upload(self, array: DeviceArray, values: Array, stream: Stream) -> None:
        """Queue a copy to the device, and time it from the moment it can begin."""
        start = self._event()
        self._gpu.upload(array, values, stream, start)
        self._stop("upload", start, stream)

    def finish(self) -> None:
        """Wait for the work and hand its spans to the timer."""
        for name, start, stop in self._spans:
            self._gpu.finish(stop)
            began = self._began + self._gpu.elapsed(self._origin, start)
            self._timer.record(name, began, began + self._gpu.elapsed(start, stop))
            self._spare += start, stop  # events are recorded again: a long run would make thousands
        self._spans.clear()
        self._read_clocks()

    def _read_clocks(self) -> None:
        # The host waits for the event, so both clocks are read right after it happened.
        self._gpu.record(self._origin, self._stream)
        self._gpu.finish(self._origin)
        self._began = time.perf_counter()

    def _event(self) -> Event:
        return self._spare.pop() if self._spare else self._gpu.event(timed=True)

    def _stop(self, name: str, start: Event, stream: Stream) -> None:
        stop = self._event()
        self._gpu.record(stop, stream)
        self._spans.append((name, start, stop))
