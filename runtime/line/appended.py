"""results.csv and results.jsonl: what a log appends its results to, and mends after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..._files import open_own
from ..results.tables import csv_line

Content = Mapping[str, Any]
"""All of a result, for JSON; its ``id`` is one more than that of the result before."""

COLUMNS = ("id", "time", "reference", "image", "status", "raw_score", "p", "verdict", "picture", "error")
"""The columns of results.csv."""


def _csv(content: Content) -> bytes:
    cells = ["" if (cell := content.get(column)) is None else str(cell) for column in COLUMNS]
    return csv_line(cells).encode("utf-8", "surrogateescape")


def _json_line(content: Content) -> bytes:
    return json.dumps(content).encode() + b"\n"


CSV, JSON_LINES = "results.csv", "results.jsonl"
_FORMS: dict[str, tuple[bytes, Callable[[Content], bytes]]] = {
    CSV: (csv_line(COLUMNS).encode(), _csv),
    JSON_LINES: (b"", _json_line),
}
"""How each file begins, and the line of a result."""


class AppendedFiles:
    """The two files in ``folder``; a context manager.

    Lines are written at a known end, so that one that a full disk has torn is written again in its place.

    Parameters
    ----------
    folder : Path
        Where they are, or are made.
    whole : dict
        What ``sync`` returned last: up to which ``id`` they are whole, and how many bytes each has then.  It
        is cut there.  Empty for new files, and taken for that if a file is shorter.
    """

    def __init__(self, folder: Path, whole: Mapping[str, int]) -> None:
        with ExitStack() as stack:
            self._files = {name: _open(stack, folder / name) for name in _FORMS}
            sizes = {name: os.fstat(file).st_size for name, file in self._files.items()}
            if not whole or any(sizes[name] < whole[name] for name in sizes):  # cut or removed by somebody
                whole = {"id": 0, CSV: 0, JSON_LINES: 0}
            self._whole = dict(whole)
            for name, file in self._files.items():
                os.ftruncate(file, whole[name])
                if not whole[name]:
                    self._write(name, _FORMS[name][0])
            self._stack = stack.pop_all()

    @property
    def id(self) -> int:
        """That of the last result in the files."""
        return self._whole["id"]

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def append(self, contents: Iterable[Content]) -> None:
        """Append results.  After an OSError the same call with the results from ``id`` on mends the files."""
        for content in contents:
            lines = {name: line(content) for name, (_, line) in _FORMS.items()}
            ends = {name: self._put(name, line) for name, line in lines.items()}
            self._whole.update(ends, id=content["id"])

    def sync(self) -> dict[str, int]:
        """Bring the files to the disk; returns what they are now known to hold."""
        for file in self._files.values():
            os.fdatasync(file)
        return dict(self._whole)

    def _write(self, name: str, content: bytes) -> None:
        self._whole[name] = self._put(name, content)

    def _put(self, name: str, content: bytes) -> int:
        """Write behind the end of a file; returns where its end is then."""
        end, done = self._whole[name], 0
        while done < len(content):
            done += os.pwrite(self._files[name], content[done:], end + done)
        return end + done


def _open(stack: ExitStack, path: Path) -> int:
    file = open_own(path)
    stack.callback(os.close, file)
    return file
