"""An append-only list of facts about a file of data, which holds whenever the power fails."""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from .rows import FileRows

COMMIT_S = 2.0
"""Seconds of work that a loss of power may cost: each commit waits for the disk."""


class Journal:
    """Lines of JSON, each with a checksum, written after the data that they speak of is on the disk.

    Reading ends at the first damaged line, which is cut off with all behind it.
    """

    def __init__(self, path: Path, data: FileRows) -> None:
        self.entries: list[dict[str, Any]] = []
        self._data = data
        self._pending: list[bytes] = []
        self._committed = time.monotonic()
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            text = line[:-10]
            if line != _line(text):
                break
            self.entries.append(json.loads(text))
            whole += len(line)
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._file.truncate(whole)
        self._file.seek(whole)

    def add(self, entry: dict[str, Any]) -> None:
        """Note ``entry`` about data that has been written; it is on the disk within COMMIT_S of work."""
        self.entries.append(entry)
        self._pending.append(_line(json.dumps(entry, separators=(",", ":")).encode("ascii")))
        if time.monotonic() - self._committed >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Bring the data, and then the entries about it, to the disk."""
        if self._pending:
            self._data.sync()
            content = memoryview(b"".join(self._pending))
            while content:
                content = content[self._file.write(content) :]
            os.fdatasync(self._file.fileno())
            self._pending.clear()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Give up the file; what is not committed is lost."""
        self._file.close()


def _line(text: bytes) -> bytes:
    return b"%s %08x\n" % (text, zlib.crc32(text))
