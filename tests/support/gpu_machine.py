"""What the tests of TensorRT share: a machine with a GPU and TensorRT that are none, and a bundle."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from musc_edge.kernels import driver
from musc_edge.runtime.vit import tensorrt_library
from support.fake_libcuda import FakeCuda
from support.fake_pycuda import FakeDriver, OutOfMemoryError
from support.fake_tensorrt import FakeTensorRt

SIZE = (16, 24)


@dataclass
class Machine:
    """What was put into this process in place of libcuda, pycuda and TensorRT."""

    pycuda: FakeDriver
    tensorrt: FakeTensorRt

    @property
    def calls(self) -> list[str]:
        """What was called, in order, and what became of TensorRT's objects."""
        return self.pycuda.calls

    def count(self, start: str) -> int:
        """How many calls have names that start so."""
        return sum(call.startswith(start) for call in self.calls)


def install(
    monkeypatch: pytest.MonkeyPatch,
    *,
    gpu: str = "Fake GPU",
    version: str = "10.3.0",
    faults: tuple[str, ...] = (),
    memory: bool = True,
) -> Machine:
    """Give this process a GPU, pycuda and TensorRT; TensorRT-RTX is hidden."""
    pycuda = FakeDriver()
    if not memory:
        pycuda.fail["mem_alloc"] = OutOfMemoryError("out of memory")
    tensorrt = FakeTensorRt(pycuda, version, faults)
    package = ModuleType("pycuda")
    package.driver = pycuda  # type: ignore[attr-defined]
    package.__spec__ = ModuleSpec("pycuda", None)
    monkeypatch.setattr(driver, "_load", lambda: FakeCuda(gpu))
    stand_ins: dict[str, object] = {"pycuda": package, "pycuda.driver": pycuda, "tensorrt": tensorrt}
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tensorrt_library, "FLAVORS", {"tensorrt": ("tensorrt",), "rtx": ("no_such_module",)})
    return Machine(pycuda, tensorrt)


def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide every TensorRT that is installed."""
    modules = {"tensorrt": ("no_such_module",), "rtx": ("no_such_module",)}
    monkeypatch.setattr(tensorrt_library, "FLAVORS", modules)


def interrupt_main_thread() -> None:
    """Ctrl-C, from any thread."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


@contextmanager
def listening() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, which shells switch off for background jobs."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
