"""What the driver says, and what is said where there is none."""

from __future__ import annotations

import pytest

from musc_edge.kernels import driver
from musc_edge.kernels.driver import GpuModel, find_gpu
from musc_edge.kernels.errors import KernelError
from support.fake_libcuda import FakeCuda


def test_gpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_load", lambda: FakeCuda("Orin", "8.7"))
    assert find_gpu() == GpuModel("Orin", "8.7", 8)
    assert str(find_gpu()) == "Orin (8.7, 8 multiprocessors)"


@pytest.mark.parametrize(
    ("cuda", "message"),
    [
        (FakeCuda(code=100), r"answers .*cuInit.* with error 100.*nvidia-smi"),
        (FakeCuda(count=0), "no GPU 0: the NVIDIA driver knows 0"),
    ],
)
def test_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, message: str) -> None:
    monkeypatch.setattr(driver, "_load", lambda: cuda)
    with pytest.raises(KernelError, match=message):
        find_gpu()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchcuda.so.1")
    with pytest.raises(KernelError, match=r"no NVIDIA driver \(libnosuchcuda.*--backend cpu"):
        find_gpu()
