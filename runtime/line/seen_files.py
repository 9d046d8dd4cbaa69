"""The files of a watched folder that need no further look, kept in the log's database.

A file is known by name, size and time of modification.  Only which lay there before the first start must be
kept safe; all else is a cache: what a kill leaves out of it is read again, and the log knows its content.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import OutputError
from .database import ELSEWHERE, Database

Stamp = tuple[int, int]
"""Time of modification, in nanoseconds, and size of a file, as ``file_stamp`` returns them."""

_PENDING = 200
_KEEP = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)"


class SeenFiles:
    """Files of ``folder``; ``unchecked`` says whether those count that were there before the first start.

    Raises
    ------
    OutputError
        If the log is that of another folder.
    """

    def __init__(self, database: Database, folder: Path, unchecked: bool) -> None:
        self._base, self._unchecked = database, int(unchecked)
        self._pending: dict[bytes, Stamp] = {}
        with database.turn():
            watched = database.get("watched")
        self.first_time = watched is None
        self._folder = os.fsencode(folder).hex()  # a path need not be UTF-8, which JSON is
        if watched not in (None, self._folder):
            raise OutputError(
                f"the results there are of {os.fsdecode(bytes.fromhex(watched))}, and would be mixed with "
                f"those of {folder}. {ELSEWHERE}"
            )

    def begin(self, unchecked: Iterable[tuple[str, Stamp]]) -> None:
        """Record, all at once, that the folder is watched from now on, and which files were there before."""
        with self._base.turn(), self._base.transaction():
            for name, stamp in unchecked:
                self._base.change(_KEEP, os.fsencode(name), *stamp, 1)
            self._base.set("watched", self._folder)
        self.first_time = False

    def __contains__(self, file: tuple[str, Stamp]) -> bool:
        name, stamp = os.fsencode(file[0]), file[1]
        if name in self._pending:
            return self._pending[name] == stamp
        with self._base.turn():
            query = "SELECT 1 FROM files WHERE name = ? AND modified = ? AND size = ? AND unchecked <= ?"
            return bool(self._base.rows(query, name, *stamp, self._unchecked))

    def add(self, name: str, stamp: Stamp) -> None:
        """Note that a file needs no further look until its stamp is another."""
        self._pending[os.fsencode(name)] = stamp
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Write what is noted."""
        if self._pending:
            with self._base.turn(), self._base.transaction():
                for name, stamp in self._pending.items():
                    self._base.change(_KEEP, name, *stamp, 0)
            self._pending.clear()
