"""What PycudaGpu knows of the module pycuda.driver, without a device; what must not happen is asserted.

Copies are queued and done when somebody waits, so that memory which is used again too early shows in what
arrives.  Launches are written down.  tests/gpu/pycuda_on_cpu.py does the same with pycuda itself.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Error(Exception):
    """pycuda.driver.Error."""


class OutOfMemoryError(Error, builtins.MemoryError):
    """pycuda.driver.MemoryError."""


class FakeDriver:
    """Stands for the module; ``fail`` names calls that are to fail, ``sticky`` is an error of a kernel."""

    Error, MemoryError = Error, OutOfMemoryError
    event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
    device_attribute = SimpleNamespace(INTEGRATED=18, MULTIPROCESSOR_COUNT=16)

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.fail: dict[str, Error] = {}
        self.sticky: Error | None = None
        self.calls: list[str] = []
        self.launches: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.pushed: list[int] = []
        self.retained = 0
        self.living: dict[int, Bytes] = {}
        self.queue: list[Callable[[], object]] = []
        self.Context = SimpleNamespace(synchronize=lambda: self.wait("Context.synchronize"))
        self.Device = _Devices(self)

    def enter(self, call: str, *, pushed: bool = True) -> None:
        """Begin a call of the driver."""
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        if pushed:
            assert self.pushed == [threading.get_ident()], f"{call} without the context in this thread"
        if call in self.fail:
            raise self.fail[call]
        if pushed and self.sticky:
            raise self.sticky

    def wait(self, call: str) -> None:
        """Do all that is queued."""
        self.enter(call)
        while self.queue:
            self.queue.pop(0)()

    def init(self) -> None:
        self.enter("init", pushed=False)

    def Stream(self) -> _Stream:  # noqa: N802
        self.enter("Stream")
        return _Stream(self)

    def Event(self, flags: int) -> _Event:  # noqa: N802
        self.enter("Event")
        return _Event(self, timed=not flags & self.event_flags.DISABLE_TIMING)

    def mem_get_info(self) -> tuple[int, int]:
        self.enter("mem_get_info")
        return 1000, 2000

    def mem_alloc(self, size: int) -> _Memory:
        self.enter("mem_alloc")
        return _Memory(self, size)

    def pagelocked_empty(self, size: int, dtype: type) -> npt.NDArray[Any]:
        self.enter("pagelocked_empty")
        return np.asarray(_Memory(self, size * np.dtype(dtype).itemsize))

    def memcpy_htod_async(self, to: int, values: npt.NDArray[Any], stream: _Stream) -> None:
        self.enter("memcpy_htod_async")
        source = values.ctypes.data
        assert any(m.ctypes.data <= source < m.ctypes.data + m.nbytes for m in self.living.values()), (
            "pageable"
        )
        raw = values.reshape(-1).view(np.uint8)
        self.queue.append(lambda: self.at(to, raw.nbytes).__setitem__(slice(None), raw))

    def memcpy_dtoh_async(self, values: npt.NDArray[Any], address: int, stream: _Stream) -> None:
        self.enter("memcpy_dtoh_async")
        raw = values.reshape(-1).view(np.uint8)
        self.queue.append(lambda: np.copyto(raw, self.at(address, raw.nbytes)))

    def memset_d32_async(self, address: int, bits: int, count: int, stream: _Stream) -> None:
        self.enter("memset_d32_async")
        self.queue.append(lambda: self.at(address, 4 * count).view(np.uint32).fill(bits))

    def module_from_buffer(self, cubin: bytes) -> SimpleNamespace:
        self.enter("module_from_buffer")
        return SimpleNamespace(get_function=self._function)

    def _function(self, name: str) -> Callable[..., None]:
        def launch(*arguments: object, stream: _Stream, **geometry: object) -> None:
            self.enter("launch")  # as pycuda's own, a frame of Python that holds the stream
            self.launches.append((name, arguments, geometry))

        return launch

    def at(self, address: int, size: int) -> Bytes:
        """The memory at an address, which must be allocated."""
        for start, memory in self.living.items():
            if start <= address and address + size <= start + memory.nbytes:
                return memory[address - start : address - start + size]
        raise AssertionError("memory is used that is not allocated")


class _Memory:
    """Memory of the device or page-locked, as pycuda's objects: a number, with ``free``."""

    def __init__(self, driver: FakeDriver, size: int) -> None:
        self._driver = driver
        memory = np.full(size, 0xFF, np.uint8)
        self._address = memory.ctypes.data
        driver.living[self._address] = memory
        self.__array_interface__ = memory.__array_interface__

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver.enter("free")
        self._driver.living.pop(self._address)[:] = 0xEE  # what still reads it reads this


class _Stream:
    handle = 1000

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def synchronize(self) -> None:
        self._driver.wait("Stream.synchronize")

    def wait_for_event(self, event: _Event) -> None:
        self._driver.enter("wait_for_event")


class _Event:
    def __init__(self, driver: FakeDriver, timed: bool) -> None:
        self._driver, self._timed = driver, timed

    def record(self, stream: _Stream) -> None:
        self._driver.enter("record")

    def synchronize(self) -> None:
        self._driver.wait("Event.synchronize")

    def time_since(self, event: _Event) -> float:
        self._driver.enter("time_since")
        assert self._timed, "an event that is not timed"
        assert event._timed, "an event that is not timed"
        return 2.5


class _Devices:
    """The class Device: called with a number, it is the device."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def __call__(self, ordinal: int) -> _Devices:
        return self

    def count(self) -> int:
        return self._driver.devices

    def compute_capability(self) -> tuple[int, int]:
        return 8, 7

    def name(self) -> str:
        self._driver.enter("name", pushed=False)
        return "fake"

    def get_attribute(self, attribute: int) -> int:
        return int(attribute == 18)

    def retain_primary_context(self) -> _Devices:
        self._driver.enter("retain", pushed=False)
        self._driver.retained += 1
        return self

    def push(self) -> None:
        self._driver.enter("push", pushed=False)
        self._driver.pushed.append(threading.get_ident())

    def pop(self) -> None:
        self._driver.calls.append("pop")
        assert self._driver.pushed.pop() == threading.get_ident()

    def detach(self) -> None:
        self._driver.calls.append("detach")
        assert not self._driver.pushed
        self._driver.retained -= 1
