"""What each fault of a GPU gives: the page docs/reliability.md says it, word for word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from musc_edge.kernels import driver as drivers
from musc_edge.kernels.driver import find_gpu
from musc_edge.kernels.gpu import Gpu, Launch
from musc_edge.kernels.pycuda_gpu import PycudaGpu
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import DeviceError, device_errors
from support.fake_libcuda import FakeCuda
from support.fake_pycuda import Error, FakeDriver, OutOfMemoryError
from support.places import ROOT

PAGE = ROOT / "docs" / "reliability.md"
LAUNCH = Launch("gram_min", (3, 2, 1), (256, 1, 1), 49152)
Cause = Callable[[FakeDriver], None]


def at(call: str, error: Error) -> Cause:
    """A driver that answers one of its calls with an error."""

    def cause(driver: FakeDriver) -> None:
        driver.fail[call] = error

    return cause


def lost(driver: FakeDriver) -> None:
    """A driver that answers all calls with the same error, as when a GPU has fallen off the bus."""
    driver.sticky = Error("cuMemcpyHtoDAsync failed: GPU is lost")


FAULTS: dict[str, tuple[str, Cause, str]] = {
    "a launch fails": (
        "work",
        at("launch", Error("cuLaunchKernel failed: unspecified launch failure")),
        "launching gram_min",
    ),
    "memory of the GPU is used up": (
        "work",
        at("mem_alloc", OutOfMemoryError("cuMemAlloc failed: out of memory")),
        "allocating 8 MB",
    ),
    "the GPU is lost amid the work": ("work", lost, "failed: GPU is lost"),
    "the driver does not start": (
        "open",
        at("init", Error("cuInit failed: system not yet initialized")),
        "opening the GPU",
    ),
    "the driver is older than the kernels": (
        "load",
        at("module_from_buffer", Error("cuModuleLoadDataEx failed: device kernel image is invalid")),
        "loading the kernels",
    ),
}
"""For each fault: before what of the work it happens, what the driver does, and words of the message."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_gpu_is_said_as_the_page_says_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, package = FakeDriver(), ModuleType("pycuda")
    package.__dict__["driver"] = fake
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    before, cause, words = FAULTS[name]

    def reach(stage: str) -> None:
        if stage == before:
            cause(fake)

    def work(gpu: Gpu) -> None:
        reach("load")
        gpu.load(b"cubin", "sm_87")
        reach("work")
        stream, array = gpu.stream(), gpu.empty((2_000_000,), np.float32)
        gpu.upload(array, np.zeros(2_000_000, np.float32), stream)
        gpu.launch(LAUNCH, (array,), stream)

    reach("open")
    with pytest.raises(DeviceError) as caught, device_errors(), GpuThread(PycudaGpu) as device:
        device.run(work)
    _on_the_page(name, caught.value, words)
    assert not fake.pushed


@pytest.mark.parametrize(
    ("name", "cuda", "words"),
    [
        ("the driver is too old for this GPU, or was updated without a restart", FakeCuda(code=803), "803"),
        ("the driver knows no GPU", FakeCuda(count=0), "no GPU 0"),
        ("there is no driver", None, "no NVIDIA driver"),
    ],
)
def test_what_is_wrong_with_the_driver_is_said(
    name: str, cuda: FakeCuda | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cuda:
        monkeypatch.setattr(drivers, "_load", lambda: cuda)
    monkeypatch.setattr(drivers, "LIBRARY", "libnosuchcuda.so.1")
    with pytest.raises(DeviceError) as caught, device_errors():
        find_gpu()
    _on_the_page(name, caught.value, words)


def _on_the_page(name: str, error: DeviceError, words: str) -> None:
    assert words in str(error)
    row = f"| {name} | {error.exit_code} | {error} |"
    assert row in PAGE.read_text(encoding="utf-8"), row
