"""The protocol of a GPU as the scorer uses it: memory, copies, launches and the order among them.

Two classes implement it: ``PycudaGpu`` (pycuda_gpu.py), and in the tests one that runs the kernels' own
source on the CPU, and does what was queued as late and in as odd an order as streams and events allow.

Copies and launches are queued in a stream and return at once; streams do not wait for each other unless
told so.  All calls are made by one thread (thread.py), which frees what it allocated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FREE_SHARED = 48 * 1024
"""Bytes of shared memory that every GPU gives a CTA unasked."""
Stream = int
Event = int
"""Streams and events are numbers, so that no object of the driver can outlive its context."""


@dataclass(frozen=True)
class DeviceArray:
    """An array in device memory, C-contiguous: its address, shape and dtype."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> DeviceArray:
        """Return a view of items ``start`` to ``stop`` of the first axis."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"rows {start} to {stop} of {self.shape[0]}")
        row = prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, address=self.address + start * row, shape=(stop - start, *self.shape[1:]))

    def item(self, index: int) -> DeviceArray:
        """Return a view of item ``index`` of the first axis, without that axis."""
        return replace(self.rows(index, index + 1), shape=self.shape[1:])


@dataclass(frozen=True)
class Launch:
    """A kernel and its geometry: ``grid`` blocks of ``block`` threads, with ``shared`` bytes each."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int = 0

    def __str__(self) -> str:
        return f"{self.kernel} (grid {self.grid}, block {self.block}, {self.shared} bytes of shared memory)"


class Gpu(Protocol):
    """An opened GPU.  Methods raise KernelError."""

    name: str
    arch: str
    """Such as "sm_87"."""
    multiprocessors: int
    integrated: bool
    """True if it shares the processor's memory, as a Jetson's does."""

    module: str
    """Digest of the module whose kernels are launched."""
    compiled_for: str
    """The architecture that the module was compiled for."""

    def free_memory(self) -> int:
        """Return the bytes of device memory that can be allocated now."""
        ...

    def load(self, cubin: bytes, arch: str) -> None:
        """Load the module whose kernels are launched from now on, compiled for ``arch``."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate an array; DeviceMemoryError if there is not enough memory."""
        ...

    def free(self, array: DeviceArray) -> None:
        """Free an array of ``empty``; call it after all work that uses the array."""
        ...

    def stream(self) -> Stream:
        """Make a queue of work."""
        ...

    def default_stream(self) -> Stream:
        """Return the first queue, for work that needs none of its own."""
        ...

    def handle(self, stream: Stream) -> int:
        """Return the driver's handle of a stream, for a library that queues its work there."""
        ...

    def upload(self, array: DeviceArray, values: Array, stream: Stream, started: Event | None = None) -> None:
        """Queue a copy to the device; ``values`` may be changed as soon as this returns.

        ``started`` is recorded right before the copy, after the host's own part of it.
        """
        ...

    def fill(self, array: DeviceArray, bits: int, stream: Stream) -> None:
        """Queue filling the array with the same four bytes."""
        ...

    def launch(self, launch: Launch, arguments: tuple[DeviceArray | np.int32, ...], stream: Stream) -> None:
        """Queue a kernel."""
        ...

    def download(self, array: DeviceArray, stream: Stream) -> Array:
        """Copy ``array`` to the host, after all that was queued in ``stream``."""
        ...

    def event(self, *, timed: bool = False) -> Event:
        """Make an event; it can be recorded again and again."""
        ...

    def record(self, event: Event, stream: Stream) -> None:
        """Record ``event``: it happens once all that is queued in ``stream`` so far is done."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Make all that is queued in ``stream`` from now on wait for ``event`` as last recorded."""
        ...

    def finish(self, event: Event) -> None:
        """Return once ``event`` as last recorded has happened; at once if it never was recorded."""
        ...

    def elapsed(self, first: Event, second: Event) -> float:
        """Return the seconds from one event to another; both are timed and have happened."""
        ...
