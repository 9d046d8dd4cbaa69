"""An append-only list of facts about a file of data, true even after a loss of power.

The order of writes makes it so.  First the data is written and brought to the disk; only then are the
entries about it appended and brought there too.  Whenever the power fails, every entry that can be read is
about data that is there; data without an entry is made again.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from ..._files import open_own
from ..._json import parse_json
from .tables import FileRows, writing

COMMIT_S = 2.0
"""Seconds of work that a loss of power may cost: each commit waits for the disk."""


class Journal:
    """Lines of JSON, each with a checksum, written after the data that they are about is on the disk.

    Reading ends at the first damaged line, which is cut off with all that follows.
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
        # A line that a loss of power has torn ends the list.  It is cut off with all that follows, which
        # would otherwise stand behind the new entries and be read as newer than they are.
        self._file.truncate(self._end)

    def describe(self, data: FileRows) -> None:
        """Set the data that entries from now on describe: it is brought to the disk before they are."""
        self._data = data

    def restart(self) -> None:
        """Forget all entries."""
        self._file.truncate(0)
        self._end = 0
        self.entries.clear()
        self._pending.clear()

    def add(self, entry: dict[str, Any]) -> None:
        """Note ``entry`` about data that has been written; it is committed within COMMIT_S of work."""
        self.entries.append(entry)
        self._pending.append(_line(json.dumps(entry, separators=(",", ":")).encode("ascii")))
        if time.monotonic() - self._committed >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Bring the data and then the entries about it to the disk."""
        if self._pending:
            # Entries wait in memory until here: the kernel writes pages back in any order, and an entry that
            # it had before this sync could reach the disk before its data.
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
        """Close the file; what is not committed is lost."""
        self._file.close()


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the entry in a line of a journal, or None if it is damaged."""
    text = line[:-10]
    if line != _line(text):
        return None
    try:
        entry = parse_json(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _line(text: bytes) -> bytes:
    return b"%s %08x\n" % (text, zlib.crc32(text))
