"""PycudaGpu against a hand-written pycuda.driver: order, threads, lifetime, errors."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from musc_edge.kernels.cubins import FoundCubin
from musc_edge.kernels.errors import DeviceMemoryError, KernelError
from musc_edge.kernels.gpu import Array, Gpu, Launch
from musc_edge.kernels.pycuda_gpu import PycudaGpu, import_driver
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime import scorers
from musc_edge.runtime.errors import DeviceError
from support.fake_pycuda import Error, FakeDriver, OutOfMemoryError

LAUNCH = Launch("gram_min", (3, 2, 1), (256, 1, 1), 49152)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake, package = FakeDriver(), ModuleType("pycuda")
    package.__dict__["driver"] = fake
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    return fake


def everything(gpu: Gpu) -> Array:
    """Use all that a GPU can do, and leave its memory to be freed."""
    gpu.load(b"cubin", "sm_87")
    a, b = gpu.stream(), gpu.stream()
    event = gpu.event()
    array = gpu.empty((2, 3), np.float32)
    gpu.fill(array, 0x7F800000, a)
    gpu.upload(array.rows(1, 2), np.arange(3, dtype=np.float32), a)
    gpu.record(event, a)
    gpu.wait(b, event)
    gpu.launch(LAUNCH, (array, np.int32(7)), b)
    gpu.finish(event)
    timed = gpu.event(timed=True)
    gpu.record(timed, b)
    gpu.finish(timed)
    assert gpu.elapsed(timed, timed) == 0.0025
    assert gpu.free_memory() == 1000
    gpu.free(gpu.empty((5,), np.uint16))
    return gpu.download(array, b)


def test_all_is_done_and_undone_in_one_thread_while_the_context_is_there(driver: FakeDriver) -> None:
    with GpuThread(PycudaGpu) as device:
        values = device.run(everything)
        assert (device.run(lambda gpu: (gpu.name, gpu.arch, gpu.integrated))) == ("fake", "sm_87", True)
    np.testing.assert_array_equal(values, [[np.inf] * 3, [0, 1, 2]])
    assert len(driver.threads) == 1
    assert driver.threads != {threading.get_ident()}
    assert not driver.living
    assert driver.calls[-2:] == ["pop", "detach"]
    assert driver.retained == 0


def test_a_kernel_gets_addresses_and_numbers_as_they_are_declared(driver: FakeDriver) -> None:
    with GpuThread(PycudaGpu) as device:
        device.run(everything)
    ((name, arguments, geometry),) = driver.launches
    assert name == "gram_min"
    assert [type(a) for a in arguments] == [np.uintp, np.int32]
    assert geometry == {"grid": (3, 2, 1), "block": (256, 1, 1), "shared": 49152}


@pytest.mark.parametrize("sizes", [(64, 64, 64, 64, 64), (8, 64, 256, 1024, 4096)])
def test_a_staging_buffer_is_not_used_again_before_it_was_copied(
    driver: FakeDriver, sizes: tuple[int, ...]
) -> None:
    def work(gpu: Gpu) -> None:
        stream = gpu.stream()
        arrays = [gpu.empty((size,), np.int32) for size in sizes]
        for number, array in enumerate(arrays):
            values = np.full(array.shape, number, np.int32)
            gpu.upload(array, values, stream)
            values[:] = -1
        for number, array in enumerate(arrays):
            assert (gpu.download(array, stream) == number).all()

    with GpuThread(PycudaGpu) as device:
        device.run(work)
    assert not driver.living


CALLS = [
    *("module_from_buffer", "launch", "mem_get_info", "pagelocked_empty", "memset_d32_async"),
    *("memcpy_htod_async", "memcpy_dtoh_async", "Stream", "Stream.synchronize", "wait_for_event"),
    *("Event", "Event.synchronize", "record"),
]


@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_is_a_kernel_error_and_all_is_freed(driver: FakeDriver, call: str) -> None:
    driver.fail[call] = Error(f"{call} failed: why")
    with GpuThread(PycudaGpu) as device:
        with pytest.raises(KernelError, match=f"failed on fake.*{call} failed: why"):
            device.run(everything)
        driver.fail.clear()
        device.run(everything)
    assert not driver.living
    assert driver.retained == 0


def test_an_error_of_a_launch_names_it_those_before_and_what_to_do(driver: FakeDriver) -> None:
    def work(gpu: Gpu) -> None:
        everything(gpu)
        driver.fail["launch"] = Error("cuLaunchKernel failed: too much")
        gpu.launch(Launch("interval_mean", (9, 1, 1), (128, 1, 1)), (), gpu.stream())

    with GpuThread(PycudaGpu) as device, pytest.raises(KernelError) as caught:
        device.run(work)
    message = str(caught.value)
    assert message.startswith("launching interval_mean (grid (9, 1, 1), block (128, 1, 1)")
    assert f"after {LAUNCH}: cuLaunchKernel failed: too much." in message
    assert "--scorer numpy" in message


def test_too_little_memory_says_what_was_asked_for(driver: FakeDriver) -> None:
    driver.fail["mem_alloc"] = OutOfMemoryError("cuMemAlloc failed: out of memory")
    with GpuThread(PycudaGpu) as device, pytest.raises(DeviceMemoryError, match=r"5 MB.*--device-memory"):
        device.run(lambda gpu: gpu.empty((5_000_000,), np.uint8))


@pytest.mark.parametrize("call", ["init", "name", "retain", "push"])
def test_a_gpu_that_does_not_open_leaves_no_context_behind(driver: FakeDriver, call: str) -> None:
    driver.fail[call] = Error("no")
    with (
        pytest.raises(KernelError, match=r"opening the GPU failed on .*: no\. .*nvidia-smi"),
        GpuThread(PycudaGpu),
    ):
        pass
    assert not driver.pushed


def test_a_gpu_that_is_not_there_is_said(driver: FakeDriver) -> None:
    with (
        pytest.raises(KernelError, match="no GPU 3: the driver knows 1"),
        GpuThread(lambda: PycudaGpu(3)),
    ):
        pass


def test_a_launch_before_the_kernels_are_loaded_is_said(driver: FakeDriver) -> None:
    with GpuThread(PycudaGpu) as device, pytest.raises(KernelError, match="before the kernels were loaded"):
        device.run(lambda gpu: gpu.launch(LAUNCH, (), gpu.stream()))


def fail_for_good(gpu: Gpu, driver: FakeDriver) -> None:
    """Let a kernel fail: the driver answers every call with its error until the context is gone."""
    array = gpu.empty((4,), np.float32)
    driver.sticky = Error("an illegal memory access")
    try:
        gpu.fill(array, 0, 0 * gpu.event())
    finally:
        gpu.free(array)


def test_after_a_kernel_failed_its_error_comes_out_and_nothing_is_asked_for(driver: FakeDriver) -> None:
    with (
        pytest.raises(KernelError, match="making an event failed on fake: an illegal"),
        GpuThread(PycudaGpu) as device,
    ):
        device.run(lambda gpu: fail_for_good(gpu, driver))
    assert "free" not in driver.calls
    assert driver.calls[-2:] == ["pop", "detach"]


def test_an_error_that_nobody_saw_comes_out_at_the_end(driver: FakeDriver) -> None:
    with pytest.raises(KernelError, match=r"ending the work on the GPU.*an illegal"), GpuThread(PycudaGpu):
        driver.sticky = Error("an illegal memory access")
    assert driver.calls[-2:] == ["pop", "detach"]


def test_an_error_that_is_kept_keeps_no_stream(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[object]] = []
    make = driver.Stream

    def noted() -> Any:
        stream = make()
        made.append(weakref.ref(stream))
        return stream

    monkeypatch.setattr(driver, "Stream", noted)
    driver.fail["launch"] = Error("no")
    with GpuThread(PycudaGpu) as device:
        try:
            device.run(everything)
        except KernelError as error:
            kept = error
    gc.collect()
    assert kept.__traceback__ is not None
    assert [weak() for weak in made] == [None, None]


def test_what_fails_while_the_scorers_gpu_is_open_is_a_device_error(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = FoundCubin(b"cubin", "sm_87", "nvcc", "cache")
    monkeypatch.setattr(scorers, "find_cubin", lambda arch: found)

    def use() -> None:
        with scorers.open_gpu(None, []) as device:
            driver.fail["mem_get_info"] = Error("no")
            device.run(lambda gpu: gpu.free_memory())

    with pytest.raises(DeviceError, match="asking for free memory failed on fake: no"):
        use()
    assert driver.retained == 0


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("No module named 'pycuda'", "pip install"),
        ("libcuda.so.1: cannot open shared object file", "nvidia-smi"),
        ("undefined symbol: cuEventElapsedTime_v2", "build it with an older one"),
    ],
)
def test_pycuda_that_cannot_be_imported_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, cure: str
) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda/__init__.py").touch()
    (tmp_path / "pycuda/driver.py").write_text(f"raise ImportError({text!r})")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(KernelError, match=cure) as caught:
        import_driver()
    assert text in str(caught.value)
    for name in ("pycuda", "pycuda.driver"):
        sys.modules.pop(name, None)
