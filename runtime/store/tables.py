"""Large tables of numbers, in memory or in a file.

A file is read and written by position and never mapped into memory: mapped pages count as the process's own
and cannot be bounded, and writing to a map kills the process when the disk is full.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..._files import open_own
from ..errors import OutputError
from ..memory import size_text
from ..types import Array

TOKENS, COSINES = KEPT = "tokens.bin", "cosines.bin"
"""Tables that outlive a run (checkpoint.py)."""


class Rows(Protocol):
    """A table of (rows, items); several threads may use it at once."""

    def read(self, row: int, start: int, count: int) -> Array:
        """Return items start..start+count of a row, as (count,)."""
        ...

    def write(self, row: int, start: int, values: Array) -> None:
        """Write ``values``, flattened, into a row from item ``start`` on."""
        ...


def require_room(folder: Path, size: int) -> None:
    """Raise OutputError unless the disk of ``folder`` has ``size`` bytes, free or in tables kept there."""
    if size == 0:
        return
    # Tables of an earlier run are written over, so what they occupy is available too: blocks on the disk, not
    # the file's length, which may not be allocated.
    there = sum(path.stat().st_blocks * 512 for name in KEPT if (path := folder / name).is_file())
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"{folder} cannot hold scratch files: {error.strerror}.") from error
    if free + there < size:
        raise OutputError(
            f"features and distances need files of {size_text(size)}, and the disk of {folder} has "
            f"{size_text(free + there)}. Free room there, raise the memory budget where nothing is kept, or "
            "score each image by fewer others with a group size."
        )


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn an OSError of the enclosed block into an OutputError that ``what`` could not be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{what} could not be written: {error.strerror}. Free room there, or check the disk."
        ) from error


def checksum(values: Array, before: int = 0) -> int:
    """Return the CRC-32 of ``values``, which are contiguous, continuing from the value ``before``."""
    return zlib.crc32(values.view(np.uint8).data, before)


class MemoryRows:
    """A table in memory."""

    def __init__(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        self.array: Array = np.empty(shape, dtype)

    def read(self, row: int, start: int, count: int) -> Array:
        """Return a view of the items."""
        items: Array = self.array[row, start : start + count]
        return items

    def write(self, row: int, start: int, values: Array) -> None:
        """Copy ``values``."""
        self.array[row, start : start + values.size] = values.reshape(-1)


class FileRows:
    """A table in a file: at ``path``, which keeps it, or a nameless one in ``folder``, gone with the object.

    Raises
    ------
    OutputError
        If the disk cannot hold the file; its space is allocated at once.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
        folder: Path | None = None,
        path: Path | None = None,
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._row_bytes = shape[1] * self._dtype.itemsize
        size = shape[0] * self._row_bytes
        where = path or folder or Path(tempfile.gettempdir())
        self._name = str(path or f"a scratch file in {where}")
        try:
            if path:
                self._file = os.fdopen(open_own(path), "r+b")
            else:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, open as long as the table
            self._close = weakref.finalize(self, self._file.close)
            # Allocated now instead of growing as it is written: a disk that is too small is found before the
            # work, not after hours of it.
            if size > os.fstat(self._file.fileno()).st_size:
                os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError as error:
            raise OutputError(
                f"a file of {size_text(size)} could not be made in {where}: {error.strerror}. "
                "Free room there, or raise the memory budget."
            ) from error

    def read(self, row: int, start: int, count: int) -> Array:
        """Return a copy of the items."""
        items = np.empty(count, self._dtype)
        view, position = items.view(np.uint8).data, row * self._row_bytes + start * self._dtype.itemsize
        done = 0
        while done < len(view):
            got = os.preadv(self._file.fileno(), [view[done:]], position + done)
            if got == 0:
                raise OutputError(f"{self._name} ends at {position + done} bytes: it was cut from outside.")
            done += got
        return items

    def write(self, row: int, start: int, values: Array) -> None:
        """Write ``values`` to the file."""
        view = np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8).data
        position = row * self._row_bytes + start * self._dtype.itemsize
        done = 0
        with writing(self._name):
            while done < len(view):
                done += os.pwrite(self._file.fileno(), view[done:], position + done)

    def sync(self) -> None:
        """Return once the content would survive a loss of power."""
        with writing(self._name):
            os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file; a table that is dropped closes it too."""
        self._close()
