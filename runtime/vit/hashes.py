"""The hashes of a bundle's files: checked before anything else, or for weights beside what comes next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from ..._files import open_regular
from ..errors import BundleError
from ..limits import limits_of_the_machine, too_few_threads
from ..parallel import result_of
from ..timing import StageTimer

_PART = 1 << 18
"""Bytes read at once, into the same memory: new memory for each part costs nearly as much as its hash."""


def check_hash(path: Path, expected: str) -> None:
    """Raise BundleError unless the file can be read and its sha256 is ``expected``.

    DeviceError if it cannot be read because of a limit of the machine.
    """
    try:
        with limits_of_the_machine():
            found = sha256(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. Copy the bundle again.") from error
    if found != expected:
        raise BundleError(
            f"{path} was changed since it was written: its sha256 is {found[:16]}..., "
            f"expected {expected[:16]}.... Copy or export the bundle again."
        )


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file."""
    digest, part = hashlib.sha256(), memoryview(bytearray(_PART))
    with open_regular(path) as file:
        while read := file.readinto(part):
            digest.update(part[:read])
    return digest.hexdigest()


def check_beside(files: Mapping[Path, str], timer: StageTimer) -> Callable[[], None]:
    """Begin to check the hashes of files, in a thread, and return what waits for it.

    That raises what ``check_hash`` raises.  The thread does not keep Python from ending.

    Raises
    ------
    DeviceError
        If no thread can be started.
    """
    done: Future[None] = Future()

    def check() -> None:
        try:
            with timer.work("hash"):
                for path, expected in files.items():
                    check_hash(path, expected)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def require() -> None:
        result_of(done)

    try:
        Thread(target=check, name="hashes", daemon=True).start()
    except RuntimeError as error:
        raise too_few_threads(error) from error
    return require
