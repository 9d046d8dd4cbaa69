"""An append-only list of facts about a file of data, which holds whenever the power fails."""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from ..._files import open_own
from .tables import FileRows, writing

COMMIT_S = 2.0
"""Seconds of work that a loss of power may cost: each commit waits for the disk."""


class Journal:
    """Lines of JSON, each with a checksum, written after the data that they speak of is on the disk.

    Reading ends at the first damaged line, which is cut off with all behind it.
    """

    def __init__(self, path: Path) -> None:
        self.entries: list[dict[str, Any]] = []
        self._data: FileRows | None = None
        self._pending: list[bytes] = []
        self._committed = time.monotonic()
        self._file = os.fdopen(open_own(path), "r+b", buffering=0)
        self._end = 0
        for line in self._file.readall().splitlines(keepends=True):
            entry = _entry(line)
            if entry is None:
                break
            self.entries.append(entry)
            self._end += len(line)
        self._file.truncate(self._end)

    def speak_of(self, data: FileRows) -> None:
        """Name the data that entries from now on are about."""
        self._data = data

    def restart(self) -> None:
        """Forget all entries."""
        self._file.truncate(0)
        self._end = 0
        self.entries.clear()
        self._pending.clear()

    def add(self, entry: dict[str, Any]) -> None:
        """Note ``entry`` about data that has been written; it is on the disk within COMMIT_S of work."""
        self.entries.append(entry)
        self._pending.append(_line(json.dumps(entry, separators=(",", ":")).encode("ascii")))
        if time.monotonic() - self._committed >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Bring the data, and then the entries about it, to the disk."""
        if self._pending:
            if self._data:
                self._data.sync()
            content = b"".join(self._pending)
            done = 0
            with writing(self._file.name):
                while done < len(content):  # from the known end on: an interrupted commit is written again
                    done += os.pwrite(self._file.fileno(), content[done:], self._end + done)
                os.fdatasync(self._file.fileno())
            self._end += len(content)
            self._pending.clear()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Give up the file; what is not committed is lost."""
        self._file.close()


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line of a journal says, or None if it is damaged."""
    text = line[:-10]
    if line != _line(text):
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _line(text: bytes) -> bytes:
    return b"%s %08x\n" % (text, zlib.crc32(text))
