"""Measure the memory that this process holds and may still take, for the budget of a plan."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .._numbers import size_text as size_text  # noqa: PLC0414  # part of this module to all others
from .cgroups import memory_room, read_field
from .limits import address_room

_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def default_budget() -> int:
    """Return the memory that this process holds and half of what it may still take, in bytes."""
    return process_memory() + available_memory() // 2


def process_memory() -> int:
    """Return the bytes of memory that this process holds now."""
    return (read_field(_STATUS, "VmRSS:") or 0) * 1024


def memory_left(budget: int) -> int:
    """Return the bytes that a budget for the whole program leaves beside what it holds now, 0 or more."""
    return max(0, budget - process_memory())


def release_memory() -> None:
    """Return freed memory to the system; does nothing without glibc."""
    # glibc keeps what is freed for later requests.  The ViT's gigabytes would stay with the process while
    # images are compared, and a plan that counts them only once would be exceeded.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def give_back_large_blocks() -> None:
    """Let memory of a megabyte or more go back to the system once it is freed; does nothing without glibc."""
    # By itself glibc takes larger and larger blocks from its heaps after the first that was freed.  There
    # they stay, half used, and a process that decodes images on several threads holds twice what it needs.
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, 1 << 20)
        # Left at its 128 KB, which the first option would keep it at, the end of the heap went back to the
        # system with nearly every array, and came again page by page.
        set_option(_M_TRIM_THRESHOLD, 4 << 20)


def available_memory() -> int:
    """Return the bytes that can be had without swapping, within the limits of cgroups and of the process."""
    kilobytes = read_field(_MEMINFO, "MemAvailable:")
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    available = half if kilobytes is None else kilobytes * 1024
    return min(room for room in (available, memory_room(), address_room()) if room is not None)
