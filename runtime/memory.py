"""How much memory this machine can still give, for the default budget of a plan."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def default_budget() -> int:
    """Half of the memory that is available now, in bytes: the ViT, the images and others need the rest."""
    return available_memory() // 2


def available_memory() -> int:
    """Bytes that can be allocated without swapping, within the container's limit if there is one."""
    available = _from_meminfo(Path("/proc/meminfo"))
    if available is None:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    limit, used = _read_number(_CGROUP / "memory.max"), _read_number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        available = min(available, max(limit - used, 0))
    return available


def _from_meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read_number(path: Path) -> int | None:
    """The number in a file, or None where there is no file or it says 'max'."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
