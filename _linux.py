"""Say in one sentence that musc-edge needs Linux, before an import of what only Linux has says it in none."""

from __future__ import annotations

import sys

_INSTEAD = {
    "win32": "On Windows run it in WSL 2: 'wsl --install' brings an Ubuntu, in which you install musc-edge.",
    "darwin": "On macOS run it in a Linux container, such as Docker's python:3.11, or in a virtual machine.",
}
_ELSEWHERE = "Run it in a Linux container or a virtual machine."


def other_system() -> str:
    """Return why musc-edge cannot run here, and what to do; empty on Linux."""
    system: str = sys.platform  # as a plain text: mypy knows what it is here, and that the rest is idle
    if system == "linux":
        return ""
    return (
        f"musc-edge runs on Linux only, and this Python is for {system!r}. {_INSTEAD.get(system, _ELSEWHERE)}"
    )
