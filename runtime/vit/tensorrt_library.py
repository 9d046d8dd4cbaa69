"""Import the installed TensorRT: NVIDIA's TensorRT, or TensorRT-RTX, which has the same calls.

TensorRT comes with JetPack, or from NVIDIA for workstations.  TensorRT-RTX is on PyPI for x86-64; it builds
engines on machines without a GPU and finishes compiling them on the one that runs them.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..._extras import install
from ..errors import DeviceError

FLAVORS = {"tensorrt": ("tensorrt",), "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Modules by flavor, the preferred flavor first."""

LEAST_VERSION = {"tensorrt": (10, 3), "rtx": (1, 0)}
NAMES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
_INSTALL = {
    "tensorrt": "On a Jetson it comes with JetPack: make the virtual environment with "
    f"--system-site-packages. On a workstation: {install('tensorrt')}, which asks NVIDIA's server",
    "rtx": f"Install it with: {install('rtx')} (x86-64)",
}


@dataclass(frozen=True)
class Library:
    """TensorRT's module, its flavor and its version."""

    module: Any
    flavor: str
    version: str

    def __str__(self) -> str:
        return f"{NAMES[self.flavor]} {self.version}"


def installed_flavors() -> tuple[str, ...]:
    """Return the installed flavors, without importing them."""
    return tuple(flavor for flavor, modules in FLAVORS.items() if any(map(find_spec, modules)))


def load_library(flavor: str | None = None) -> Library:
    """Import TensorRT, of the given flavor or of the first that is installed.

    Raises
    ------
    DeviceError
        If it is not installed, cannot be imported, or is too old.
    """
    installed = installed_flavors()
    if flavor is None and not installed:
        raise DeviceError(
            f"TensorRT is not installed. {_INSTALL['tensorrt']}; or TensorRT-RTX: {install('rtx')}."
        )
    flavor = flavor or installed[0]
    if flavor not in installed:
        raise DeviceError(f"{NAMES[flavor]} is not installed. {_INSTALL[flavor]}.")
    name = next(name for name in FLAVORS[flavor] if find_spec(name))
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"{NAMES[flavor]} is installed but cannot be imported ({error}). {_INSTALL[flavor]}."
        ) from error
    library = Library(module, flavor, str(module.__version__))
    _require_version(library)
    return library


def _require_version(library: Library) -> None:
    found = tuple(int(part) for part in library.version.split(".")[:2])
    least = LEAST_VERSION[library.flavor]
    if found < least:
        raise DeviceError(
            f"{library} is too old: expected {'.'.join(map(str, least))} or newer. "
            f"{_INSTALL[library.flavor]}."
        )


def make_log(module: Any) -> Any:
    """Make a logger for TensorRT's objects that collects errors in its list ``errors`` and prints nothing.

    Make it just before the builder or runtime that it is for.
    """
    # TensorRT logs while it makes one and holds the lock that destroying another takes.  What an error of
    # earlier work left in a cycle must not be collected by then: the thread would wait for itself.
    gc.collect()

    class Log(module.ILogger):  # type: ignore[misc]  # its base is known only where TensorRT is installed
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message.strip())

    return Log()


def reasons(errors: Sequence[str]) -> str:
    """Join the last errors of TensorRT's log, for a message."""
    return "; ".join(errors[-3:]) or "TensorRT gave no reason"
