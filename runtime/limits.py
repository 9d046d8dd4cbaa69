"""What the system allows this process: address space, open files, threads.

Too few files or threads are trouble of the machine, not of an image or of a bundle: a DeviceError says what
is short.  Libraries answer a shortage with errors of their own, so both are tried before these are loaded.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread

from .._numbers import size_text
from .cgroups import most_processes, read_field
from .errors import DeviceError

_STATUS = Path("/proc/self/status")

FILES = 64
"""Files that a run has open at once, about: libraries while they are loaded, images, results."""

_ASKED = 1024
_NO_MEMORY = (os.strerror(errno.ENOMEM), "failed to map segment")


def address_room() -> int | None:
    """Return the bytes of address space and data that this process may still take; None without a limit."""
    rooms = []
    for limit, held in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            rooms.append(max(0, most - (read_field(_STATUS, held) or 0) * 1024))
    return min(rooms, default=None)


def require_files(count: int = FILES) -> None:
    """Raise DeviceError unless ``count`` more files can be opened; raises a soft limit that is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _ASKED:
        most = _ASKED if hard == resource.RLIM_INFINITY else min(_ASKED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    with limits_of_the_machine(), ExitStack() as opened:
        for _ in range(count):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))


def require_threads(count: int) -> None:
    """Raise DeviceError unless ``count`` more threads can be started.

    OpenBLAS answers a thread that it cannot start with an interrupt, as if by ctrl-C.
    """
    done, started = Event(), list[Thread]()
    try:
        for _ in range(count):
            thread = Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:  # how Python says that it cannot
        raise too_few_threads(error) from error
    finally:
        done.set()
        for thread in started:
            thread.join()


@contextmanager
def limits_of_the_machine() -> Iterator[None]:
    """Within the block, an error by a limit of the machine becomes a DeviceError."""
    try:
        yield
    except (OSError, ImportError) as error:
        found = limit_reached(error)
        if found is None:
            raise
        raise found from error


def limit_reached(error: BaseException) -> DeviceError | None:
    """Return the error to raise instead if ``error`` says that the machine allows too little, else None.

    A MemoryError is left to the caller: it may be one image's.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error) if isinstance(error, ImportError) else ""  # the loader of libraries has only words
    if number == errno.ENOMEM or any(word in text for word in _NO_MEMORY):
        return too_little_memory(error)
    if number == errno.EMFILE or os.strerror(errno.EMFILE) in text:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return DeviceError(
            f"more files are needed at once than this process may open, which is {soft} (hard limit {hard}). "
            f"Allow more, such as by: ulimit -n {_ASKED}"
        )
    if number == errno.ENFILE:
        return DeviceError(f"the whole machine has too many files open ({error}): end other programs.")
    if number == errno.EAGAIN:  # by fork and by pthread_create
        return too_few_threads(error)
    return None


def too_little_memory(error: BaseException) -> DeviceError:
    """Return the error to raise if memory, or address space, cannot be had."""
    room = address_room()
    limit = "" if room is None else f", with {size_text(room)} of address space or data left (ulimit -v, -d)"
    return DeviceError(
        f"not enough memory ({error or type(error).__name__}){limit}. End other programs, allow more, or "
        "take less by --memory-budget, --batch or --threads."
    )


def too_few_threads(error: BaseException) -> DeviceError:
    """Return the error to raise if a thread or a process cannot be started."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    most = "without limit" if soft == resource.RLIM_INFINITY else str(soft)
    group = most_processes()
    container = "" if group is None else f", {group} in this cgroup (pids.max)"
    room = address_room()
    container += (
        "" if room is None else f", and {size_text(room)} of address space for their stacks (ulimit -v)"
    )
    return DeviceError(
        f"a thread or a process could not be started ({error}): this user may have {most} (ulimit -u)"
        f"{container}. Allow more, end other programs, or give fewer by --threads."
    )
