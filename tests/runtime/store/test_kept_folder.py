"""A folder of kept work that a run was killed in, at each moment: still usable, or removed by the next."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.results.output import new_folder
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.kept_folder import FINISHED, MARK, note_finished, remove_finished, remove_kept
from support.kill_points import killed_before

MARKER = "lot.json"
_FEATURES, _SCORING = {"images": [["0.png", 1]]}, {"degrees": [1, 3]}


@pytest.fixture(autouse=True)
def without_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill of a process loses nothing that the system has: there is no need to wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def open_work(kept: Path) -> Checkpoint:
    return Checkpoint(kept / "lot", _FEATURES, _SCORING)


def keep(kept: Path) -> None:
    """Work on two parts of a lot."""
    for part in ("lot", "tile-1"):
        with closing(Checkpoint(kept / part, _FEATURES, _SCORING)) as work:
            work.keep_scores(0, np.zeros((2, 3)))


def finish(out: Path, kept: Path, overwrite: bool = False) -> None:
    """Write results, and remove what was kept, as the command does."""
    with new_folder(out, overwrite, MARKER) as folder:
        (folder / MARKER).write_text(f"{out} {overwrite}", encoding="utf-8")
        note_finished(kept, folder / MARKER)
    remove_kept(kept)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_between_results_and_the_removal_of_kept_work(tmp_path: Path, overwrite: bool) -> None:
    """Whoever finds the results complete removes it; what is kept of others, or of none, stays."""
    number, left, killed = 0, 0, True
    while killed:
        number += 1
        parent = tmp_path / f"{number}"
        out, kept = parent / "out", parent / ".out.kept"
        if overwrite:
            with new_folder(out, False, MARKER) as folder:
                (folder / MARKER).write_text("old", encoding="utf-8")
        keep(kept)
        killed = killed_before(number, lambda o=out, k=kept: finish(o, k, overwrite))  # type: ignore[misc]
        complete = out.exists() and (out / MARKER).read_text(encoding="utf-8") != "old"
        left += complete and kept.exists()
        remove_finished(out / MARKER)
        if complete:
            with pytest.raises(OutputError, match="exists"), new_folder(out, False, MARKER):
                pass
            assert names(parent) == ["out"]
        else:
            with closing(open_work(kept)) as work:
                assert work.notes == []
                assert work.scores(0, (2, 3)) is not None
    assert left > 8


@pytest.mark.long
def test_killed_as_kept_work_is_begun(tmp_path: Path) -> None:
    """The same command opens it."""
    number, killed = 0, True
    while killed:
        number += 1
        kept = tmp_path / f"{number}" / ".out.kept"
        killed = killed_before(number, lambda k=kept: keep(k))  # type: ignore[misc]
        keep(kept)
        with closing(open_work(kept)) as work:
            assert work.scores(0, (2, 3)) is not None
    assert number > 10


@pytest.mark.long
def test_killed_as_kept_work_is_removed(tmp_path: Path) -> None:
    """Its mark goes last, so that the rest can be used or removed."""
    number, killed = 0, True
    while killed:
        number += 1
        kept = tmp_path / f"{number}" / ".out.kept"
        keep(kept)
        killed = killed_before(number, lambda k=kept: remove_kept(k))  # type: ignore[misc]
        for folder in kept.glob("*"):
            assert not names(folder) or MARK in names(folder)
        keep(kept)
        remove_kept(kept)
        assert not kept.exists()
    assert number > 10


def test_only_what_results_are_made_of_is_removed(tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / ".out.kept"
    keep(kept)
    out.mkdir()
    (out / MARKER).write_text("of another run", encoding="utf-8")
    remove_finished(out / MARKER)
    (kept / FINISHED).write_text("0" * 64, encoding="utf-8")
    remove_finished(out / MARKER)
    assert names(kept) == [FINISHED, "lot", "tile-1"]
    note_finished(kept, out / MARKER)
    (kept / "of a user").touch()
    remove_finished(out / MARKER)
    assert names(kept) == [FINISHED, "of a user"]


@pytest.mark.parametrize("there", ["link", "file"])
def test_what_has_the_name_of_kept_work_stays(tmp_path: Path, there: str) -> None:
    out, kept, elsewhere = tmp_path / "out", tmp_path / ".out.kept", tmp_path / "elsewhere"
    out.mkdir()
    (out / MARKER).touch()
    keep(elsewhere)
    note_finished(elsewhere, out / MARKER)
    if there == "link":
        kept.symlink_to(elsewhere)
    else:
        kept.touch()
    remove_finished(out / MARKER)
    assert kept.is_symlink() or kept.is_file()
    assert names(elsewhere) == [FINISHED, "lot", "tile-1"]


def test_a_folder_with_anything_else_is_not_made_ours(tmp_path: Path) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot" / "about.json").touch()
    with pytest.raises(OutputError, match=r"holds about.json, but no \.musc-edge"):
        open_work(tmp_path)
