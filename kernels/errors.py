"""What a device can answer instead of results; runtime turns these into its DeviceError."""

from __future__ import annotations


class KernelError(Exception):
    """A GPU, its driver, a compiler or a kernel does not do what was asked of it."""


class DeviceMemoryError(KernelError):
    """The device has not as much memory as was asked for: a smaller plan may fit."""
