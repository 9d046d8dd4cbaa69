"""The log of a line's results: each image's recorded exactly once, whatever ends the program.

In the folder lie

    .musc-edge       says that the folder is ours
    results.sqlite   the log itself; a result is on the disk when ``add`` returns
    results.csv, results.jsonl   the same, for other programs

A result is first committed to the database, then appended to the two files.  A program that is killed between
leaves a line torn or missing; the database holds how long the files were when each was last known to be whole
and on the disk, so the next program cuts them there and appends what is missing.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..._files import make_folders, open_folder, read_regular, shown, user_here, write_whole
from ..errors import OutputError
from ..results.output import resolve
from .appended import COLUMNS as COLUMNS  # noqa: PLC0414  # part of this module to all others
from .appended import CSV, JSON_LINES, AppendedFiles
from .database import ELSEWHERE, Database

MARK, DATABASE = ".musc-edge", "results.sqlite"
FILES = (MARK, DATABASE, f"{DATABASE}-wal", CSV, JSON_LINES)
"""The files of a log; pictures and other things may be beside them."""
SCHEMA = 1

_AT_ONCE = 1000
_UNSYNCED = 200
"""Results that at most are appended again when the log is opened."""

_MARK_TEXT = b"Results of a line, written by musc-edge.\n"
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE results (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB UNIQUE,
    time TEXT NOT NULL,
    reference TEXT NOT NULL,
    facts TEXT NOT NULL
);
CREATE TABLE delivered (destination TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    name BLOB PRIMARY KEY,
    modified INTEGER NOT NULL,
    size INTEGER NOT NULL,
    unchecked INTEGER NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """A result in the log.

    Attributes
    ----------
    id : int
        1, 2, ... in the order in which they were recorded, with no gap.
    event : str
        The same for this result wherever it is told, and for no other: by it a receiver knows a repetition.
    time : str
        When it was recorded: ISO 8601 in UTC, to the millisecond.
    reference : str
        Name of the reference that the image was checked against.
    facts : dict
        What ``check_facts`` says of the image, and what was added to it (``picture``, ``drift``, ...).
    """

    id: int
    event: str
    time: str
    reference: str
    facts: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {
            "id": self.id,
            "event": self.event,
            "time": self.time,
            "reference": self.reference,
            **self.facts,
        }


class ResultLog:
    """The log in ``folder``, which is made if it is missing; a context manager, used from any thread.

    One program at a time can have it open.

    Raises
    ------
    OutputError
        If the folder holds something else, belongs to somebody else, is in use by another program, cannot be
        written, or holds a log of a later version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = resolve(Path(folder))
        try:
            make_folders(self.folder)
            _require_ours(self.folder)
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot be written: {error.strerror or error}. {ELSEWHERE}"
            ) from error
        self.database = Database(self.folder, DATABASE)
        with ExitStack() as stack, self.database.turn():
            stack.callback(self.database.close)
            self.database.lock()
            self._open()
            self._log = self.database.get("log")
            self._files = AppendedFiles(self.folder, self.database.get("appended"))
            stack.callback(self._files.close)
            self._append_rest()
            self._sync()
            stack.callback(self._sync)
            self._stack = stack.pop_all()

    def __enter__(self) -> ResultLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder up."""
        with self.database.turn():
            self._stack.close()

    @property
    def size(self) -> int:
        """Bytes of the log's files."""
        with self.database.turn():
            paths = (self.folder / name for name in FILES)
            return sum(path.stat().st_size for path in paths if path.exists())

    def add(self, facts: Mapping[str, Any], reference: str = "", key: bytes | None = None) -> Entry:
        """Record a result; it is on the disk when this returns.

        Parameters
        ----------
        facts : mapping
            What is known of the image, for JSON; ``check_facts`` and more.
        reference : str
            Name of the reference.
        key : bytes, optional
            What tells this image from all others: a key can be recorded only once.

        Raises
        ------
        KeyError
            If ``key`` is in the log.
        OutputError
            If the disk is full or fails.  The result may be in the log all the same, if only the files
            beside it could not be written; the next call, or the next program, completes them.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self.database.turn():
            if key is not None and key in self:
                raise KeyError(key)
            number = self.database.change(
                "INSERT INTO results (key, time, reference, facts) VALUES (?, ?, ?, ?)",
                key, time, reference, json.dumps(facts),
            )  # fmt: skip
            entry = Entry(number, self._event(number), time, reference, facts)
            self._append(entry)
        return entry

    def __contains__(self, key: bytes) -> bool:
        with self.database.turn():
            return bool(self.database.rows("SELECT 1 FROM results WHERE key = ?", key))

    def find(self, key: bytes) -> Entry | None:
        """Return the result that was recorded with this key; None if there is none."""
        return next(iter(self._entries("WHERE key = ?", key)), None)

    def __len__(self) -> int:
        with self.database.turn():
            return int(self.database.rows("SELECT coalesce(max(id), 0) FROM results")[0][0])

    def last(self, count: int, reference: str | None = None) -> list[Entry]:
        """Return the last ``count`` results (of one reference), the newest first."""
        where, given = ("", ()) if reference is None else ("WHERE reference = ? ", (reference,))
        return self._entries(f"{where}ORDER BY id DESC LIMIT ?", *given, count)

    def after(self, number: int, count: int) -> list[Entry]:
        """Return the ``count`` results that were recorded after the one of this ``id``, the oldest first."""
        return self._entries("WHERE id > ? ORDER BY id LIMIT ?", number, count)

    def begin_delivery(self, destination: str) -> None:
        """Record that what is in the log now need not be delivered to ``destination``, unless it is known."""
        with self.database.turn():
            self.database.change(
                "INSERT OR IGNORE INTO delivered SELECT ?, coalesce(max(id), 0) FROM results", destination
            )

    def delivered(self, destination: str) -> int:
        """Return the ``id`` up to which results were delivered to ``destination``; 0 if none was."""
        with self.database.turn():
            rows = self.database.rows("SELECT id FROM delivered WHERE destination = ?", destination)
        return int(rows[0][0]) if rows else 0

    def set_delivered(self, destination: str, number: int) -> None:
        """Record that results up to this ``id`` were delivered to ``destination``."""
        with self.database.turn():
            self.database.change("INSERT OR REPLACE INTO delivered VALUES (?, ?)", destination, number)

    def _open(self) -> None:
        """Make the tables if the database is new."""
        base = self.database
        with base.transaction():
            if not base.rows("SELECT 1 FROM sqlite_master"):
                for statement in _TABLES.split(";"):
                    base.change(statement)
                base.set("schema", SCHEMA)
                base.set("log", str(uuid.uuid4()))
                base.set("appended", {})
        found = base.get("schema")
        if found > SCHEMA:
            raise OutputError(
                f"{self.folder} holds a log of a later version (schema {found}; known: {SCHEMA}). Update "
                f"musc-edge. {ELSEWHERE}"
            )

    def _append(self, entry: Entry) -> None:
        """Append a new result to the two files, and before it what they lack."""
        if entry.id == self._files.id + 1:
            self._files.append([entry.content()])
        else:
            self._append_rest()
        if self._files.id - self._synced >= _UNSYNCED:
            self._sync()

    def _append_rest(self) -> None:
        """Append the results that the two files lack."""
        while entries := self.after(self._files.id, _AT_ONCE):
            self._files.append(entry.content() for entry in entries)

    def _sync(self) -> None:
        """Record how far the two files are whole, after they are on the disk."""
        self.database.set("appended", self._files.sync())
        self._synced = self._files.id

    def _event(self, number: int) -> str:
        return f"{self._log}-{number}"

    def _entries(self, where: str, *given: object) -> list[Entry]:
        with self.database.turn():
            rows = self.database.rows(f"SELECT id, time, reference, facts FROM results {where}", *given)
        return [Entry(row[0], self._event(row[0]), row[1], row[2], json.loads(row[3])) for row in rows]


def _require_ours(folder: Path) -> None:
    """Raise OutputError unless ``folder`` is this user's, and empty or marked; an empty one is marked."""
    os.close(open_folder(folder))
    if folder.stat().st_uid != user_here(folder):
        raise OutputError(f"{folder} belongs to another user. {ELSEWHERE}")
    if (folder / MARK).is_symlink() or not (folder / MARK).exists():
        if found := next(folder.iterdir(), None):
            raise OutputError(
                f"{folder} holds {shown(found.name)}, but no {MARK}, which says that it holds the results of "
                f"a line. {ELSEWHERE}"
            )
        write_whole(folder / MARK, _MARK_TEXT)
    elif read_regular(folder / MARK, follow=False) != _MARK_TEXT:
        raise OutputError(f"{folder} was written by musc-edge for another purpose. {ELSEWHERE}")
