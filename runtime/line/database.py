"""The database of a line: one program at a time has it open; what is committed outlives a loss of power."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from ..._files import open_own
from ..errors import OutputError

ELSEWHERE = "Choose another folder with -o."


class Database:
    """An SQLite file in ``folder``, and small values kept in it by name; used from any thread.

    Everything is done within ``turn``, in which one thread is at a time, and which says in an OutputError
    what the disk or SQLite complains of.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._turn = RLock()
        with self.turn():
            os.close(open_own(folder / name))
            # No waiting for a lock, since whoever has it keeps it; transactions are begun and ended here.
            self._base = sqlite3.connect(
                folder / name, timeout=0, isolation_level=None, check_same_thread=False
            )

    def lock(self) -> None:
        """Keep all other programs out until ``close``."""
        # Exclusive, so that two programs never write one log, and so that write-ahead logging needs no shared
        # memory, which network file systems lack.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._base.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Give the file up."""
        self._base.close()

    def rows(self, query: str, *given: object) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        return self._base.execute(query, given).fetchall()

    def change(self, statement: str, *given: object) -> int:
        """Do what a statement says; returns the number of the row that it has inserted."""
        return int(self._base.execute(statement, given).lastrowid or 0)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value kept under ``name``."""
        found = self.rows("SELECT value FROM about WHERE name = ?", name)
        return json.loads(found[0][0]) if found else default

    def set(self, name: str, value: object) -> None:
        """Keep a value, anything that JSON takes, under ``name``."""
        self.change("INSERT OR REPLACE INTO about VALUES (?, ?)", name, json.dumps(value))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, or, if it fails, nothing of it."""
        self.change("BEGIN IMMEDIATE")
        try:
            yield
            self.change("COMMIT")
        except BaseException:
            if self._base.in_transaction:
                self.change("ROLLBACK")
            raise

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one thread at a time do what the block does; errors of the disk and of SQLite come as one.

        Raises
        ------
        OutputError
            Instead of OSError and ``sqlite3.Error``.
        """
        try:
            with self._turn:
                yield
        except (OSError, sqlite3.Error) as error:
            said = str(error) if isinstance(error, sqlite3.Error) else error.strerror or str(error)
            if "database is locked" in said:
                said = "another program is using it"
            raise OutputError(
                f"the results in {self._folder} cannot be recorded: {said}. {ELSEWHERE}"
            ) from error
