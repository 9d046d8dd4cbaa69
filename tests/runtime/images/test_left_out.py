"""What is said of the files that are left out: counts by reason, the first name, and lot.json's list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musc_edge.runtime.images.kinds import is_side_folder, refusal
from musc_edge.runtime.images.left_out import HIDDEN, OTHER, RESULTS, SIDE, LeftOut, facts_on, notes_on
from musc_edge.runtime.images.listing import list_lot


def test_notes_count_endings_and_name_the_first() -> None:
    names = ["a.txt", "b.txt", "c.xml", "README", "d.json", "e.csv", "f.md", "g.log", "h.pdf"]
    (note,) = notes_on([LeftOut(name, OTHER) for name in names])
    assert note == (
        "not images, left out: 2 .txt, 1 .xml, 1 without an ending, 1 .json, 1 .csv, 3 others (first: a.txt)"
    )


def test_hidden_things_are_said_if_they_are_images() -> None:
    assert notes_on([LeftOut(".git/", HIDDEN, 40), LeftOut(".DS_Store", HIDDEN)]) == []
    (note,) = notes_on([LeftOut(".a/", HIDDEN, 3, 2), LeftOut(".b.png", HIDDEN, 1, 1)])
    assert note == "left out, hidden: 1 folder with 3 files, 2 of them images and 1 file (first: .a/)"


def test_folders_that_cannot_be_read_are_said() -> None:
    (note,) = notes_on([LeftOut("lost+found/", RESULTS, None), LeftOut("b/", RESULTS, 2)])
    assert "2 folders with 2 files (1 could not be read)" in note


def test_names_cannot_break_the_terminal() -> None:
    (note,) = notes_on([LeftOut("a\x1b[2J\n.x\ty", OTHER)])
    assert note.isprintable()


def test_the_list_is_bounded_and_says_so() -> None:
    facts = facts_on([LeftOut(f"{k}.txt", OTHER) for k in range(12_000)])
    assert (facts["files"], len(facts["entries"]), facts["entries_not_named"]) == (12_000, 10_000, 2_000)
    long = facts_on([LeftOut("x" * 4000, OTHER) for _ in range(3000)])
    assert len(long["entries"]) == 1000
    assert long["entries_not_named"] == 2000
    assert len(json.dumps(long)) < 1 << 23


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found",
        ".Trash-0", ".Trash-1000", ".thumbnails", "@Recycle", ".@__thumb", "@Recently-Snapshot", "FOUND.000",
        "~snapshot",
    ],
)  # fmt: skip
def test_bins_and_thumbnails_by_exact_name(tmp_path: Path, name: str) -> None:
    assert is_side_folder(name)
    assert not any(map(is_side_folder, (f"{name}_", f"a{name}", f"{name} ", name.swapcase())))
    (tmp_path / name).mkdir()
    for inside in (f"{name}/a.png", "b.png"):
        (tmp_path / inside).touch()
    listing = list_lot(tmp_path)
    assert [image.name for image in listing] == ["b.png"]
    assert listing.left_out == (LeftOut(f"{name}/", SIDE, 1, 1),)


def test_only_raw_files_and_placeholders_are_refused_by_name() -> None:
    assert refusal("a/b.NEF") is not None
    assert (refusal("a/.b.jpg.icloud") or ("",))[0] == "unreadable"
    assert [refusal(name) for name in ("a.png", "nef", "a.nef.png", "a.txt.cloud", "b.exr")] == [None] * 5
