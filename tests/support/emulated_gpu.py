"""A GPU that runs the kernels' own source on the CPU (cuda_cpu.h), and is as unhelpful as a real one may be.

Nothing that is queued in a stream is done before somebody waits for it, and then in an order drawn from the
seed among all that streams and events allow.  Memory holds NaN until it is written, is guarded on both
sides, and may not be used after it is freed.
"""

from __future__ import annotations

import ctypes
import math
import random
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from musc_edge.kernels.cuda_source import HOPPER
from musc_edge.kernels.errors import DeviceMemoryError
from musc_edge.kernels.gpu import Array, DeviceArray, Event, Launch, Stream
from support.places import ROOT

CUDA = Path(__file__).parent / "cuda"
GUARD = 4096
POISON = 0xFF  # NaN as half, float and double


def build_library(target: Path, *options: str, kernels: Path = ROOT / "kernels") -> Path:
    """Compile the kernels in ``kernels`` for the CPU."""
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-DMUSC_CPU", *options]
    command += [f"-I{kernels}", f"-I{CUDA}", str(CUDA / "musc_cpu.cpp"), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


class EmulatedGpu:
    """The twin of ``PycudaGpu``.

    Parameters
    ----------
    library : kernels for the CPU, from ``build_library``.
    seed : order of the work, of warps, and how late copies to shared memory are.  A multiple of 3 draws the
        order of the work; the next lets each stream run ahead of later ones, the one after of earlier ones.
    memory : bytes of the device.
    arch : which launches depend on; the library must have been built for it.
    """

    name = "emulated GPU"
    module = "emulated"
    multiprocessors = 2

    def __init__(
        self,
        library: Path,
        seed: int = 0,
        memory: int = 1 << 30,
        *,
        integrated: bool = False,
        arch: str = "sm_00",
    ) -> None:
        self.arch = self.compiled_for = arch
        self._library = ctypes.CDLL(str(library))
        self._seed = seed
        self._random = random.Random(seed)
        self._total = memory
        self.integrated = integrated
        self.launches: list[Launch] = []
        self.peak = 0

    def __enter__(self) -> EmulatedGpu:
        self._thread = threading.get_ident()
        self._memory: dict[int, Array] = {}
        self._streams: list[deque[tuple[str, Any]]] = []
        self._recorded: list[int] = []
        self._happened: list[int] = []
        self._times: list[float] = []  # NaN for events that are not timed
        self._used = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for address in list(self._memory):
            self._release(address)

    # ---- memory ----------------------------------------------------------------------------------

    def free_memory(self) -> int:
        return self._total - self._used

    def load(self, cubin: bytes, arch: str) -> None:
        """Nothing to do: the library is the module."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        self._check_thread()
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        if self._used + size > self._total:
            raise DeviceMemoryError(f"{size} bytes asked for, {self.free_memory()} free.")
        room = np.full(size + 2 * GUARD + 64, POISON, np.uint8)
        offset = GUARD + (-(room.ctypes.data + GUARD)) % 64
        address = room.ctypes.data + offset
        self._memory[address] = room
        self._used += size
        self.peak = max(self.peak, self._used)
        return DeviceArray(address, shape, dtype)

    def free(self, array: DeviceArray) -> None:
        self._check_thread()
        self._release(array.address, array.nbytes)

    def _release(self, address: int, size: int = 0) -> None:
        room = self._memory.pop(address)
        start = address - room.ctypes.data
        if size:
            beyond = np.concatenate((room[:start], room[start + size :]))
            assert (beyond == POISON).all(), "a kernel wrote beyond its array"
        room[:] = POISON
        self._used -= size

    def view(self, array: DeviceArray) -> Array:
        """The memory itself; only what lies within one living allocation can be seen."""
        for address, room in self._memory.items():
            start = array.address - room.ctypes.data
            if address <= array.address and start + array.nbytes <= room.nbytes - GUARD:
                return room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        raise AssertionError("memory is used that is not allocated")

    # ---- work ------------------------------------------------------------------------------------

    def stream(self) -> Stream:
        self._check_thread()
        self._streams.append(deque())
        return len(self._streams) - 1

    def default_stream(self) -> Stream:
        return 0 if self._streams else self.stream()

    def handle(self, stream: Stream) -> int:
        return stream

    def event(self, *, timed: bool = False) -> Event:
        self._recorded.append(0)
        self._happened.append(0)
        self._times.append(0.0 if timed else float("nan"))
        return len(self._recorded) - 1

    def upload(self, array: DeviceArray, values: Array, stream: Stream, started: Event | None = None) -> None:
        assert values.nbytes == array.nbytes
        if started is not None:
            self.record(started, stream)
        staged = values.astype(array.dtype, copy=True).reshape(array.shape)
        self._queue(stream, lambda: np.copyto(self.view(array), staged))

    def fill(self, array: DeviceArray, bits: int, stream: Stream) -> None:
        self._queue(stream, lambda: self.view(array).view(np.uint32).fill(bits))

    def launch(self, launch: Launch, arguments: tuple[DeviceArray | np.int32, ...], stream: Stream) -> None:
        most = {"sm_00": 48, HOPPER: 227}.get(self.arch, 96) * 1024
        assert launch.shared <= most, "more shared memory than this GPU gives a launch"
        assert max(launch.grid[1:]) <= 65535, "a grid too large for its second or third axis"
        self._queue(stream, partial(self._run, launch, arguments))

    def download(self, array: DeviceArray, stream: Stream) -> Array:
        self._until(lambda: not self._streams[stream])
        return self.view(array).copy()

    def record(self, event: Event, stream: Stream) -> None:
        self._check_thread()
        self._recorded[event] += 1
        self._streams[stream].append(("record", (event, self._recorded[event])))

    def wait(self, stream: Stream, event: Event) -> None:
        self._check_thread()
        self._streams[stream].append(("wait", (event, self._recorded[event])))

    def finish(self, event: Event) -> None:
        wanted = self._recorded[event]
        self._until(lambda: self._happened[event] >= wanted)

    def elapsed(self, first: Event, second: Event) -> float:
        for event in (first, second):
            assert 0 < self._recorded[event] == self._happened[event], "an event has not happened"
            assert not math.isnan(self._times[event]), "an event is not timed"
        return self._times[second] - self._times[first]

    def _queue(self, stream: Stream, work: Callable[[], object]) -> None:
        self._check_thread()
        self._streams[stream].append(("work", work))

    def _until(self, done: Callable[[], bool]) -> None:
        """Do queued work, in any order that is allowed, until ``done``."""
        self._check_thread()
        while not done():
            ready = [s for s in self._streams if s and not self._waits(s[0])]
            assert ready, "streams wait for each other for ever"
            kind, what = (self._random.choice(ready), ready[0], ready[-1])[self._seed % 3].popleft()
            if kind == "work":
                what()
            elif kind == "record":
                event, number = what
                self._happened[event] = number
                if not math.isnan(self._times[event]):
                    self._times[event] = time.perf_counter()

    def _waits(self, item: tuple[str, Any]) -> bool:
        kind, what = item
        return kind == "wait" and self._happened[what[0]] < what[1]

    def _run(self, launch: Launch, arguments: tuple[DeviceArray | np.int32, ...]) -> None:
        values: list[Any] = []
        for argument in arguments:
            if isinstance(argument, DeviceArray):
                self.view(argument)
                values.append(ctypes.c_void_p(argument.address))
            else:
                assert isinstance(argument, np.int32)
                values.append(ctypes.c_int(int(argument)))
        pointers = (ctypes.c_void_p * len(values))(
            *(ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values)
        )
        sizes = [(ctypes.c_uint * 3)(*axes) for axes in (launch.grid, launch.block)]
        run = getattr(self._library, f"run_{launch.kernel}")
        self.launches.append(launch)
        code = run(*sizes, ctypes.c_uint(launch.shared), ctypes.c_uint64(self._seed), pointers)
        assert code == 0, f"{launch} failed on the emulated GPU"

    def _check_thread(self) -> None:
        assert threading.get_ident() == self._thread, "the GPU is used in another thread than its own"
