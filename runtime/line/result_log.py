"""The log of a line's results: each image's recorded exactly once, whatever ends the program.

In the folder lie

    .musc-edge       says that the folder is ours
    results.sqlite   the log itself; a result is on the disk when ``add`` returns
    results.csv, results.jsonl   the same, for other programs

A result is first committed to the database, then appended to the two files.  A program that is killed between
leaves a line torn or missing; the database holds how long the files were when each was last known whole, so
the next program cuts them there and appends what is missing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO

from ..._files import make_folders, open_folder, open_own, read_regular, shown, user_here, write_whole
from ..errors import OutputError
from ..results.output import resolve
from ..results.tables import csv_line

MARK, DATABASE, CSV, JSON_LINES = ".musc-edge", "results.sqlite", "results.csv", "results.jsonl"
SCHEMA = 1
COLUMNS = ("id", "time", "reference", "image", "status", "raw_score", "p", "verdict", "picture", "error")
"""The columns of results.csv."""

_NOTHING = {"id": 0, CSV: 0, JSON_LINES: 0}
"""Up to which result the two files are whole, and how many bytes they have then."""
_AT_ONCE = 1000

_ELSEWHERE = "Choose another folder with -o."
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
        self._turn = RLock()
        with self._errors(), ExitStack() as stack:
            make_folders(self.folder)
            _require_ours(self.folder)
            os.close(open_own(self.folder / DATABASE))
            self._base = stack.enter_context(closing(self._connect()))
            self._open()
            self._log, self._appended = self._get("log"), self._get("appended")
            self._files = {name: stack.enter_context(self._file(name)) for name in (CSV, JSON_LINES)}
            self._mend_files()
            self._stack = stack.pop_all()

    def __enter__(self) -> ResultLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder up."""
        with self._turn:
            self._stack.close()

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
            If the disk is full or fails.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._turn, self._errors():
            with self._transaction():
                if key is not None and key in self:
                    raise KeyError(key)
                row = self._base.execute(
                    "INSERT INTO results (key, time, reference, facts) VALUES (?, ?, ?, ?)",
                    (key, time, reference, json.dumps(facts)),
                )
                # Of the results before this one: the files are appended to after the commit.
                self._set("appended", self._appended)
            number = int(row.lastrowid or 0)
            entry = Entry(number, self._event(number), time, reference, facts)
            self._append([entry])
        return entry

    def __contains__(self, key: bytes) -> bool:
        with self._turn, self._errors():
            return bool(self._rows("SELECT 1 FROM results WHERE key = ?", key))

    def find(self, key: bytes) -> Entry | None:
        """Return the result that was recorded with this key; None if there is none."""
        return next(iter(self._entries("WHERE key = ?", key)), None)

    def __len__(self) -> int:
        with self._turn, self._errors():
            return int(self._rows("SELECT coalesce(max(id), 0) FROM results")[0][0])

    def last(self, count: int, reference: str | None = None) -> list[Entry]:
        """Return the last ``count`` results (of one reference), the newest first."""
        where, given = ("", ()) if reference is None else ("WHERE reference = ? ", (reference,))
        return self._entries(f"{where}ORDER BY id DESC LIMIT ?", *given, count)

    def after(self, number: int, count: int) -> list[Entry]:
        """Return the ``count`` results that were recorded after the one of this ``id``, the oldest first."""
        return self._entries("WHERE id > ? ORDER BY id LIMIT ?", number, count)

    def delivered(self, destination: str) -> int:
        """Return the ``id`` up to which results were delivered to ``destination``; 0 if none was."""
        with self._turn, self._errors():
            rows = self._rows("SELECT id FROM delivered WHERE destination = ?", destination)
        return int(rows[0][0]) if rows else 0

    def set_delivered(self, destination: str, number: int) -> None:
        """Record that results up to this ``id`` were delivered to ``destination``."""
        with self._turn, self._errors():
            self._base.execute("INSERT OR REPLACE INTO delivered VALUES (?, ?)", (destination, number))

    def _connect(self) -> sqlite3.Connection:
        # No waiting for a lock, since whoever has it keeps it; transactions are begun and ended here.
        return sqlite3.connect(
            self.folder / DATABASE, timeout=0, isolation_level=None, check_same_thread=False
        )

    def _file(self, name: str) -> BinaryIO:
        return os.fdopen(open_own(self.folder / name), "r+b")

    def _open(self) -> None:
        """Lock the database, and make its tables if it is new."""
        # Exclusive, so that two programs never write one log, and so that write-ahead logging needs no shared
        # memory, which network file systems lack.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._base.execute(f"PRAGMA {pragma}")
        with self._transaction():
            if not self._rows("SELECT 1 FROM sqlite_schema"):
                for statement in _TABLES.split(";"):
                    self._base.execute(statement)
                self._set("schema", SCHEMA)
                self._set("log", str(uuid.uuid4()))
                self._set("appended", _NOTHING)
        found = self._get("schema")
        if found > SCHEMA:
            raise OutputError(
                f"{self.folder} holds a log of a later version (schema {found}; known: {SCHEMA}). Update "
                f"musc-edge. {_ELSEWHERE}"
            )

    def _mend_files(self) -> None:
        """Cut the two files where they were last known to be whole, and append what came after that."""
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}
        if any(sizes[name] < self._appended[name] for name in sizes):  # cut or removed by somebody
            self._appended = dict(_NOTHING)
        for name, file in self._files.items():
            file.truncate(self._appended[name])
            file.seek(0, os.SEEK_END)
        if not self._appended[CSV]:
            self._files[CSV].write(csv_line(COLUMNS).encode())
        while entries := self.after(self._appended["id"], _AT_ONCE):
            self._append(entries)

    def _append(self, entries: Sequence[Entry]) -> None:
        """Append results to the two files."""
        for entry in entries:
            content = entry.content()
            cells = ["" if (cell := content.get(column)) is None else str(cell) for column in COLUMNS]
            self._files[CSV].write(csv_line(cells).encode("utf-8", "surrogateescape"))
            self._files[JSON_LINES].write(json.dumps(content).encode() + b"\n")
        for name, file in self._files.items():
            file.flush()
            self._appended[name] = file.tell()
        self._appended["id"] = entries[-1].id

    def _event(self, number: int) -> str:
        return f"{self._log}-{number}"

    def _entries(self, where: str, *given: object) -> list[Entry]:
        with self._turn, self._errors():
            rows = self._rows(f"SELECT id, time, reference, facts FROM results {where}", *given)
        return [Entry(row[0], self._event(row[0]), row[1], row[2], json.loads(row[3])) for row in rows]

    def _rows(self, query: str, *given: object) -> list[tuple[Any, ...]]:
        return self._base.execute(query, given).fetchall()

    def _get(self, name: str) -> Any:
        return json.loads(self._rows("SELECT value FROM about WHERE name = ?", name)[0][0])

    def _set(self, name: str, value: object) -> None:
        self._base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Within the block, what the disk and the database say becomes an OutputError."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            said = str(error) if isinstance(error, sqlite3.Error) else error.strerror or str(error)
            if "database is locked" in said:
                said = "another program is using it"
            raise OutputError(
                f"the results in {self.folder} cannot be recorded: {said}. {_ELSEWHERE}"
            ) from error


def _require_ours(folder: Path) -> None:
    """Raise OutputError unless ``folder`` is this user's, and empty or marked; an empty one is marked."""
    os.close(open_folder(folder))
    if folder.stat().st_uid != user_here(folder):
        raise OutputError(f"{folder} belongs to another user. {_ELSEWHERE}")
    if (folder / MARK).is_symlink() or not (folder / MARK).exists():
        if found := next(folder.iterdir(), None):
            raise OutputError(
                f"{folder} holds {shown(found.name)}, but no {MARK}, which says that it holds the results of "
                f"a line. {_ELSEWHERE}"
            )
        write_whole(folder / MARK, _MARK_TEXT)
    elif read_regular(folder / MARK, follow=False) != _MARK_TEXT:
        raise OutputError(f"{folder} was written by musc-edge for another purpose. {_ELSEWHERE}")
