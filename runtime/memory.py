"""How much memory this process holds and this machine can still give, for the budget of a plan."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def default_budget() -> int:
    """What this process holds and half of the memory that is available now, in bytes."""
    return process_memory() + available_memory() // 2


def process_memory() -> int:
    """Bytes of memory that this process holds now."""
    return (_read_field(_STATUS, "VmRSS:") or 0) * 1024


def release_memory() -> None:
    """Give back to the system what was freed; without glibc there is nothing to call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def available_memory() -> int:
    """Bytes that can be allocated without swapping, within the container's limit if there is one."""
    kilobytes = _read_field(_MEMINFO, "MemAvailable:")
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    available = half if kilobytes is None else kilobytes * 1024
    limit, used = _read_number(_CGROUP / "memory.max"), _read_number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        cached = _read_field(_CGROUP / "memory.stat", "inactive_file") or 0
        available = min(available, max(limit - used + cached, 0))
    return available


def size_text(count: float) -> str:
    """'340 MB', '2.1 GB': a number of bytes for people."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if name == "GB" else f"{count / unit:.0f} {name}"
    return f"{count:.0f} bytes"


def _read_field(path: Path, name: str) -> int | None:
    """The number behind ``name`` in a file of names and numbers, or None where there is none."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for words in map(str.split, lines):
        if words[:1] == [name] and len(words) > 1 and words[1].isdecimal():
            return int(words[1])
    return None


def _read_number(path: Path) -> int | None:
    """The number in a file, or None where there is no file or it says 'max'."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
