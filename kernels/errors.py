"""Errors of a GPU and its tools; the runtime turns them into its DeviceError."""

from __future__ import annotations


class KernelError(Exception):
    """A GPU, its driver, a compiler or a kernel failed to do what was asked of it."""


class UnsignedKernelsError(KernelError):
    """Compiled kernels lack a signature that is required."""


class DeviceMemoryError(KernelError):
    """The device has less memory than was asked for; a smaller plan may fit."""
