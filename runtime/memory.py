"""Measure the memory that this process holds and the machine can still give, for the budget of a plan."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .._numbers import counted

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def default_budget() -> int:
    """Return the memory of this process plus half of what is available now, in bytes."""
    return process_memory() + available_memory() // 2


def process_memory() -> int:
    """Return the bytes of memory that this process holds now."""
    return (_read_field(_STATUS, "VmRSS:") or 0) * 1024


def release_memory() -> None:
    """Return freed memory to the system; does nothing without glibc."""
    # glibc keeps what is freed for later requests.  The ViT's gigabytes would stay with the process while
    # images are compared, and a plan that counts them only once would be exceeded.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def available_memory() -> int:
    """Return the bytes that can be allocated without swapping, within the container's limit if it has one."""
    kilobytes = _read_field(_MEMINFO, "MemAvailable:")
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    available = half if kilobytes is None else kilobytes * 1024
    limit, used = _read_number(_CGROUP / "memory.max"), _read_number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        # The kernel drops the inactive part of the page cache before it kills: count that as free.
        cached = _read_field(_CGROUP / "memory.stat", "inactive_file") or 0
        available = min(available, max(limit - used + cached, 0))
    return available


def size_text(count: float) -> str:
    """Format a number of bytes: '340 MB', '2.1 GB'."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if name == "GB" else f"{count / unit:.0f} {name}"
    return counted(round(count), "byte")


def _read_field(path: Path, name: str) -> int | None:
    """Return the number that follows ``name`` in a file of names and numbers, or None."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for words in map(str.split, lines):
        if words[:1] == [name] and len(words) > 1 and words[1].isdecimal():
            return int(words[1])
    return None


def _read_number(path: Path) -> int | None:
    """Return the number in a file, or None if there is no file or it says 'max' (no limit)."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
