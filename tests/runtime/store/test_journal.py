"""The journal of kept work: nothing is believed that is damaged, and nothing is said before it is so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.store import journal
from musc_edge.runtime.store.journal import Journal
from musc_edge.runtime.store.tables import FileRows

ENTRIES: list[dict[str, Any]] = [
    {"batch": 0, "read": ["a.png", "größe\n.png", "caf\udce9.png"]},
    {"layer": 1, "cell": [0, 3], "checksum": 2**32 - 1},
    {},
    {"layer": 1, "scores": 5},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of ENTRIES."""
    path = tmp_path / "x.journal"
    written = Journal(path)
    for entry in ENTRIES:
        written.add(entry)
    written.commit()
    written.close()
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    read = Journal(path)
    read.close()
    return read.entries


def test_entries_are_read_again(path: Path) -> None:
    assert entries(path) == ENTRIES
    assert len(path.read_bytes().splitlines()) == len(ENTRIES)


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    assert entries(tmp_path / "new") == []
    assert (tmp_path / "new").read_bytes() == b""


def test_a_line_cut_anywhere_is_no_line(path: Path) -> None:
    content = path.read_bytes()
    ends = np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    for size in range(len(content)):
        path.write_bytes(content[:size])
        whole = int((ends <= size).sum())
        assert entries(path) == ENTRIES[:whole]
        assert path.read_bytes() == content[: ends[whole - 1] if whole else 0]


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_a_flipped_bit_cuts_there(path: Path, bit: int) -> None:
    content = path.read_bytes()
    starts = [0, *np.cumsum([len(line) for line in content.splitlines(keepends=True)])]
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        line = int(np.searchsorted(starts, at, side="right")) - 1
        assert entries(path) == ENTRIES[:line], at
        assert path.read_bytes() == content[: starts[line]]


def test_new_entries_follow_the_last_whole_one(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    going_on = Journal(path)
    going_on.add({"new": 1})
    going_on.commit()
    going_on.close()
    assert entries(path) == [*ENTRIES[:-1], {"new": 1}]


def test_entries_are_on_the_disk_after_a_commit_only(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    written = Journal(path)
    written.add(ENTRIES[0])
    written.add(ENTRIES[1])
    assert written.entries == ENTRIES[:2]
    assert path.read_bytes() == b""
    written.commit()
    assert entries(path) == ENTRIES[:2]
    written.add(ENTRIES[3])
    written.close()
    assert entries(path) == ENTRIES[:2]


def test_entries_are_committed_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    path = tmp_path / "x.journal"
    written = Journal(path)
    found = []
    for clock in (100.0, 101.9, 102.0, 103.9, 104.1):
        written.add({"at": clock})
        found.append(len(entries(path)))
    assert found == [0, 0, 3, 3, 5]
    written.close()


def test_data_is_on_the_disk_before_what_is_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.journal"
    at_sync: list[int] = []

    class Watched(FileRows):
        def sync(self) -> None:
            at_sync.append(path.stat().st_size)
            super().sync()

    rows = Watched((2, 3), np.float32, tmp_path)
    written = Journal(path)
    written.describe(rows)
    written.commit()
    assert at_sync == []  # nothing to say
    monkeypatch.setattr(journal, "COMMIT_S", 0.0)
    for entry in ENTRIES[:2]:
        written.add(entry)
    first = len(path.read_bytes().splitlines(keepends=True)[0])
    assert at_sync == [0, first]
    written.close()
    rows.close()


def test_a_commit_that_was_cut_off_is_written_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    calls = 0

    def cut_off(file: int, data: bytes, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return pwrite(file, data[:10], at)

    written = Journal(path)
    written.add({"new": 1})
    written.add({"new": 2})
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", cut_off)
        with pytest.raises(KeyboardInterrupt):
            written.commit()
    written.commit()
    written.close()
    assert entries(path) == [*ENTRIES, {"new": 1}, {"new": 2}]


def test_restart_forgets_everything(path: Path) -> None:
    written = Journal(path)
    written.add({"old": 1})
    written.restart()
    assert (written.entries, path.read_bytes()) == ([], b"")
    written.add({"new": 1})
    written.commit()
    written.close()
    assert entries(path) == [{"new": 1}]
