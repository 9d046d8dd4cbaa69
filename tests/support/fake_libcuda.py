"""libcuda.so.1 as ``musc_edge.kernels.driver`` calls it, without a GPU."""

from __future__ import annotations

from typing import Any


class FakeCuda:
    """A driver that knows ``count`` GPUs alike, or answers its first call with error ``code``."""

    def __init__(
        self, name: str = "Fake GPU", capability: str = "8.7", count: int = 1, code: int = 0
    ) -> None:
        major, minor = map(int, capability.split("."))
        self._attributes = {75: major, 76: minor, 16: 8}
        self._name, self._count, self._code = name, count, code

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._code

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, buffer: Any, size: int, device: Any) -> int:  # noqa: N802
        buffer.value = self._name.encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, device: Any) -> int:  # noqa: N802
        value._obj.value = self._attributes[number]
        return 0
