"""Every case of bad_input.py as a user meets it: the exit code, the words, and nothing half-written."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import pytest

from support.bad_input import CASES, Case, Place, command_of
from support.command_line import run_here
from support.forks import run_forked

PROCESSES = {
    "pipe with an image's name",
    "EPS with an image's name",  # an interpreter of its own is on the PATH
    "CMYK",
    "odd names",
    "folder that does not exist",
    "four readable images",
    "file as output",
    "link where the results are to be written",
    "bundle with one bit flipped",
    "budget that is too small",
}
"""Cases, at least one of each exit code, that run in a process of their own; the others in this one."""


def test_cases_that_run_in_a_process_are_there() -> None:
    assert {case.given for case in CASES} >= PROCESSES
    assert {case.code for case in CASES if case.given in PROCESSES} == {case.code for case in CASES}


def run_case(case: Case, place: Place, commands: Path) -> subprocess.CompletedProcess[str]:
    command = command_of(case, place, commands)
    if case.given not in PROCESSES:
        return run_here(command, cwd=place.root)
    if command[0] != "env":
        return run_forked(command, cwd=place.root)
    name, _, value = command[1].partition("=")
    return run_forked(command[2:], cwd=place.root, env={name: value})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.given)
def test_bad_input(case: Case, place: Place, commands: Path) -> None:
    before = {path: path.is_dir() or path.read_bytes() for path in sorted((place.root / "out").rglob("*"))}
    run = run_case(case, place, commands)
    assert run.returncode == case.code, run.stdout + run.stderr
    assert case.says in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert "Warning" not in run.stderr
    assert {path.name for path in place.root.glob(".*")} == set(case.stays)  # nothing half-written
    assert [path.read_text() for path in (place.root / "thesis").glob("*")] in ([], ["mine"])
    if case.code not in (0, 3):
        after = {path: path.is_dir() or path.read_bytes() for path in sorted((place.root / "out").rglob("*"))}
        assert {p.name for p in after} - {p.name for p in before} <= {"thesis.txt", "notes.txt", "lot.json"}
        return
    with (place.root / "out/scores.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    for name in case.bad:
        assert rows[name]["status"] in ("unreadable", "too_large", "unsupported", "too_few")
        assert rows[name]["error"]
        assert rows[name]["score"] == ""
    good = [row for row in rows.values() if row["status"] == "ok"]
    assert len(good) == case.scored == len(rows) - len(case.bad)
    maps = [place.root / "out" / row["map"] for row in good]
    assert len({os.fspath(path) for path in maps}) == len(good)
    assert all(path.is_file() for path in maps)
