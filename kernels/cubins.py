"""Where the compiled kernels for a device come from."""

from __future__ import annotations

from pathlib import Path

from .errors import KernelError


def cubin_for(arch: str, bundle_root: Path | None) -> bytes:
    """The module for ``arch``; KernelError while nothing compiles it."""
    raise KernelError(f"the kernels are not compiled for {arch}.")
