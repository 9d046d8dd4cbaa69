"""A GPU through pycuda, in its primary context, which TensorRT and ONNX Runtime share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from traceback import clear_frames
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._extras import install
from .cuda_source import arch_of
from .errors import DeviceMemoryError, KernelError
from .gpu import FREE_SHARED, Array, DeviceArray, Event, Launch, Stream

_STAGES = 2
"""Page-locked buffers that uploads go through: one is filled while the other is copied."""
_LAUNCH_CURE = (
    "The error may be of an earlier launch: CUDA_LAUNCH_BLOCKING=1 finds which, and --scorer numpy works "
    "without the GPU."
)


def import_driver() -> Any:
    """Import pycuda.driver without touching a device; KernelError if it cannot be used."""
    try:
        from pycuda import driver
    except ImportError as error:
        if "No module named" in str(error):
            cure = f"Install it with: {install('cuda')}"
        elif "undefined symbol" in str(error):
            cure = "It was built with a newer CUDA than the driver's: build it with an older one"
        else:
            cure = "Check that the NVIDIA driver is installed (nvidia-smi)"
        raise KernelError(f"pycuda cannot be used ({error}). {cure}.") from error
    return driver


class PycudaGpu:
    """GPU number ``ordinal``: a context manager that is entered, used and left in the same thread."""

    def __init__(self, ordinal: int = 0) -> None:
        self._ordinal = ordinal

    def __enter__(self) -> PycudaGpu:
        self._driver = import_driver()
        with self._errors("opening the GPU", "Check the driver and its devices with nvidia-smi."):
            self._driver.init()
            count = self._driver.Device.count()
            if self._ordinal >= count:
                raise KernelError(f"there is no GPU {self._ordinal}: the driver knows {count}.")
            device = self._driver.Device(self._ordinal)
            major, minor = device.compute_capability()
            self.name, self.arch = device.name(), arch_of(major, minor)
            known = self._driver.device_attribute
            self.integrated = bool(device.get_attribute(known.INTEGRATED))
            self.multiprocessors = int(device.get_attribute(known.MULTIPROCESSOR_COUNT))
            self._context = device.retain_primary_context()
            self._context.push()  # at last: pycuda aborts the process if a thread ends with a context pushed
        self._failed = False
        self.module = self.compiled_for = ""
        self._functions: dict[str, Any] = {}
        self._module: Any = None
        self._memory: dict[int, Any] = {}
        self._streams: list[Any] = []
        self._events: list[Any] = []
        self._staging: list[tuple[Any, Event]] = []
        self._queued: list[Launch] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a kernel has failed, every call of the driver fails, freeing included.  Then only the context
        # is given up, and the memory goes with it.
        failure = self._failure()
        try:
            if failure is None:
                self._free_memory()
                self._forget()
        finally:
            self._context.pop()
            self._context.detach()  # pycuda leaves it current in this thread, which ends
            self._forget()  # what could not be freed went with the context, as pycuda knows
        if failure is not None and error is None:
            with self._errors("ending the work on the GPU"):
                raise failure

    def _free_memory(self) -> None:
        for memory in self._memory.values():
            memory.free()
        for buffer, _ in self._staging:
            buffer.base.free()

    def _forget(self) -> None:
        self._memory.clear()
        self._staging.clear()
        self._streams.clear()
        self._events.clear()
        self._functions.clear()
        self._module = None

    def _failure(self) -> Exception | None:
        """Return the error that the driver answers every call with since a kernel failed, or None."""
        try:
            self._driver.Context.synchronize()
        except self._driver.Error as error:
            clear_frames(error.__traceback__)
            return cast(Exception, error)
        return None

    # ---- memory ----------------------------------------------------------------------------------

    def free_memory(self) -> int:
        with self._errors("asking for free memory"):
            free, _ = self._driver.mem_get_info()
        return int(free)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        with self._errors(f"allocating {size / 1e6:.0f} MB"):
            memory = self._driver.mem_alloc(max(size, 1))
        self._memory[int(memory)] = memory
        return DeviceArray(int(memory), shape, dtype)

    def free(self, array: DeviceArray) -> None:
        if self._failed and self._failure() is not None:
            return  # it cannot be freed: the context must be given up first
        self._memory.pop(array.address).free()

    # ---- work ------------------------------------------------------------------------------------

    def load(self, cubin: bytes, arch: str) -> None:
        cure = f"They must be compiled for {self.arch}, by a CUDA that is not newer than the driver."
        with self._errors(f"loading the kernels for {self.arch}", cure):
            self._module = self._driver.module_from_buffer(cubin)
        self.module, self.compiled_for = hashlib.sha256(cubin).hexdigest()[:12], arch
        self._functions = {}

    def stream(self) -> Stream:
        with self._errors("making a stream"):
            self._streams.append(self._driver.Stream())
        return len(self._streams) - 1

    def default_stream(self) -> Stream:
        return 0 if self._streams else self.stream()

    def handle(self, stream: Stream) -> int:
        return int(self._streams[stream].handle)

    def event(self, *, timed: bool = False) -> Event:
        known = self._driver.event_flags
        # Who waits for work sleeps: a small board has no core to spend on spinning.
        flags = 0 if timed else known.DISABLE_TIMING | known.BLOCKING_SYNC
        with self._errors("making an event"):
            self._events.append(self._driver.Event(flags))
        return len(self._events) - 1

    def upload(self, array: DeviceArray, values: Array, stream: Stream, started: Event | None = None) -> None:
        if values.nbytes != array.nbytes:
            raise KernelError(f"{values.nbytes} bytes do not fit an array of {array.nbytes}.")
        with self._errors(f"copying {array.nbytes / 1e6:.0f} MB to the device"):
            buffer, copied = self._page_locked(array.nbytes)
            staged = buffer[: array.nbytes].view(values.dtype).reshape(values.shape)
            np.copyto(staged, values)
            if started is not None:
                self.record(started, stream)
            self._driver.memcpy_htod_async(array.address, staged, self._streams[stream])
            self.record(copied, stream)

    def _page_locked(self, size: int) -> tuple[Any, Event]:
        """Return page-locked memory that no copy reads any more, and the event to record after the copy."""
        # The oldest buffer, once its copy is done: so the host is never more than two copies ahead.
        if len(self._staging) < _STAGES:
            event = self.event()
        else:
            buffer, event = self._staging.pop(0)
            self.finish(event)
            if buffer.nbytes >= size:
                self._staging.append((buffer, event))
                return buffer, event
            buffer.base.free()
        buffer = self._driver.pagelocked_empty(size, np.uint8)
        self._staging.append((buffer, event))
        return buffer, event

    def fill(self, array: DeviceArray, bits: int, stream: Stream) -> None:
        with self._errors("filling memory"):
            self._driver.memset_d32_async(array.address, bits, array.nbytes // 4, self._streams[stream])

    def launch(self, launch: Launch, arguments: tuple[DeviceArray | np.int32, ...], stream: Stream) -> None:
        values = [np.uintp(a.address) if isinstance(a, DeviceArray) else a for a in arguments]
        if self._module is None:
            raise KernelError(f"{launch} was launched before the kernels were loaded.")
        with self._errors(f"launching {launch}"):
            if launch.kernel not in self._functions:
                self._functions[launch.kernel] = self._function(launch)
            self._functions[launch.kernel](
                *values,
                grid=launch.grid,
                block=launch.block,
                shared=launch.shared,
                stream=self._streams[stream],
            )
        # An error of a kernel shows up at a later call: the message then names these as possible causes.
        self._queued = [*self._queued[-2:], launch]

    def _function(self, launch: Launch) -> Any:
        """Return a kernel of the module, allowed the shared memory that each of its launches has."""
        function = self._module.get_function(launch.kernel)
        if launch.shared > FREE_SHARED:
            most = self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            function.set_attribute(most, launch.shared)
        return function

    def download(self, array: DeviceArray, stream: Stream) -> Array:
        values = np.empty(array.shape, array.dtype)
        with self._errors(f"copying {array.nbytes / 1e6:.0f} MB from the device"):
            self._driver.memcpy_dtoh_async(values, array.address, self._streams[stream])
            self._streams[stream].synchronize()
        return values

    def record(self, event: Event, stream: Stream) -> None:
        with self._errors("recording an event"):
            self._events[event].record(self._streams[stream])

    def wait(self, stream: Stream, event: Event) -> None:
        with self._errors("letting a stream wait"):
            self._streams[stream].wait_for_event(self._events[event])

    def finish(self, event: Event) -> None:
        with self._errors("waiting for the GPU"):
            self._events[event].synchronize()

    def elapsed(self, first: Event, second: Event) -> float:
        with self._errors("reading the time between events"):
            return 1e-3 * float(self._events[second].time_since(self._events[first]))

    @contextmanager
    def _errors(self, what: str, cure: str = _LAUNCH_CURE) -> Iterator[None]:
        """Turn pycuda's errors into KernelError, with the launches that may have caused them.

        An error that is kept keeps its traceback, in which pycuda's frames hold streams and functions.  These
        must not outlive the context, so the frames are cleared.
        """
        try:
            yield
        except self._driver.MemoryError as error:
            clear_frames(error.__traceback__)
            raise DeviceMemoryError(
                f"{self._name()} has too little memory for {what}: {error}. Close what else uses the GPU, or "
                "give a smaller --device-memory."
            ) from error
        except self._driver.Error as error:
            clear_frames(error.__traceback__)
            self._failed = True
            launches = ", ".join(map(str, getattr(self, "_queued", [])))
            after = f", after {launches}" if launches else ""
            raise KernelError(f"{what} failed on {self._name()}{after}: {error}. {cure}") from error

    def _name(self) -> str:
        return getattr(self, "name", f"GPU {self._ordinal}")
