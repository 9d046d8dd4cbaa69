"""Ask the CUDA driver about this machine's GPU, through ctypes.

Only the driver of CUDA need be installed, and nothing is made on a device.  TensorRT's own objects crash the
process where there is no driver, so this comes before any of them is made.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from .errors import KernelError

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16  # of CUdevice_attribute


@dataclass(frozen=True)
class GpuModel:
    """The model of a GPU: two GPUs of the same model run the same engine.

    The boards of one Jetson family share name and compute capability but differ in multiprocessors.
    """

    name: str
    compute_capability: str
    multiprocessors: int

    def __str__(self) -> str:
        return f"{self.name} ({self.compute_capability}, {self.multiprocessors} multiprocessors)"


def find_gpu(ordinal: int = 0) -> GpuModel:
    """Return the model of GPU number ``ordinal``; KernelError without a driver or such a GPU."""
    cuda = _load()
    _call(cuda.cuInit, 0)
    count = ctypes.c_int()
    _call(cuda.cuDeviceGetCount, ctypes.byref(count))
    if ordinal >= count.value:
        raise KernelError(f"there is no GPU {ordinal}: the NVIDIA driver knows {count.value}.")
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    _call(cuda.cuDeviceGet, ctypes.byref(device), ordinal)
    _call(cuda.cuDeviceGetName, name, len(name), device)
    major, minor, multiprocessors = (
        _attribute(cuda, number, device) for number in (_MAJOR, _MINOR, _MULTIPROCESSORS)
    )
    return GpuModel(name.value.decode(errors="replace"), f"{major}.{minor}", multiprocessors)


def _attribute(cuda: Any, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _call(cuda.cuDeviceGetAttribute, ctypes.byref(value), number, device)
    return value.value


def _load() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise KernelError(
            f"this machine has no NVIDIA driver ({error}). Install it, or use --backend cpu."
        ) from error


def _call(function: Any, *arguments: Any) -> None:
    code = function(*arguments)
    if code:
        raise KernelError(
            f"the NVIDIA driver answers {function.__name__} with error {code}. Check it with nvidia-smi."
        )
