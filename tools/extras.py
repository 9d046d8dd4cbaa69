"""Check that what a command imports is installed before anything of it is imported."""

from __future__ import annotations

from .._extras import NEEDS, install, missing
from ..runtime.errors import DeviceError


def need(command: str) -> None:
    """Raise DeviceError unless all that ``command``, such as "musc-export onnx", imports is installed."""
    modules = NEEDS[command]
    lacking = missing(modules)
    if lacking:
        # Of the larger extra alone, which brings the smaller one: the last of them.
        extra = [modules[name] for name in lacking][-1]
        raise DeviceError(
            f"not installed here, and needed by {command}: {', '.join(lacking)}. "
            f"Install what is missing with: {install(extra)}"
        )
