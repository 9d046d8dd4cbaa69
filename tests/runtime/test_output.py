"""Writing a folder of results: all of it or nothing, and never over what is not ours."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from helpers_runtime import tree
from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.output import new_folder

MARKER = "lot.json"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(out: Path, text: str = "new", overwrite: bool = False) -> None:
    """Results as a command writes them, with ``text`` in every file."""
    with new_folder(out, overwrite, MARKER) as folder:
        (folder / "maps").mkdir()
        (folder / "maps" / "1.npy").write_text(text, encoding="utf-8")
        (folder / MARKER).write_text(text, encoding="utf-8")


def results(text: str = "new") -> dict[str, bytes | None]:
    """What ``write`` leaves, as ``tree`` shows it."""
    return {"maps": None, "maps/1.npy": text.encode(), MARKER: text.encode()}


def refused(out: Path, overwrite: bool = False) -> str:
    """The message with which ``out`` is refused, before any work is done; the message names it."""
    entered = False
    with pytest.raises(OutputError) as caught, new_folder(out, overwrite, MARKER):
        entered = True
    assert not entered
    assert str(out) in str(caught.value)
    return str(caught.value)


# ---- success ---------------------------------------------------------------------------------


def test_results_appear_under_their_name_when_they_are_complete(tmp_path: Path) -> None:
    out = tmp_path / "lot-musc"
    with new_folder(out, False, MARKER) as folder:
        assert folder.parent == tmp_path  # on the same file system, so that renaming it is one step
        assert not list(folder.iterdir())
        (folder / MARKER).write_text("new", encoding="utf-8")
        assert not out.exists()
    assert tree(tmp_path) == {"lot-musc": None, "lot-musc/lot.json": b"new"}


def test_parents_are_created(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "out")
    assert tree(tmp_path / "a" / "b" / "out") == results()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]


def test_folder_has_the_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_relative_folder_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with new_folder(Path("out"), False, MARKER) as folder:
        monkeypatch.chdir("elsewhere")
        (folder / MARKER).write_text("new", encoding="utf-8")
    assert tree(tmp_path) == {"elsewhere": None, "out": None, "out/lot.json": b"new"}


@pytest.mark.parametrize("name", [" out ", "-o", "out.d", "ünï", os.fsdecode(b"caf\xe9"), "a" * 200])
def test_unusual_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    write(tmp_path / name, "newer", overwrite=True)
    assert tree(tmp_path / name) == results("newer")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_empty_folder_may_be_used(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path / "out") == results()
    assert names(tmp_path) == ["out"]


def test_old_results_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "maps" / "2.npy").write_text("only in the old ones", encoding="utf-8")
    write(tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == results()
    assert names(tmp_path) == ["out"]


def test_old_results_behind_a_link_are_replaced(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "results", "old")
    (tmp_path / "out").symlink_to("disk/results")
    write(tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == results()
    assert names(tmp_path) == ["disk", "out"]
    assert names(tmp_path / "disk") == ["results"]


# ---- failure ---------------------------------------------------------------------------------

ERRORS = [RuntimeError("a bug"), KeyboardInterrupt(), SystemExit(143), OSError(errno.ENOSPC, "No space left")]


def fail(out: Path, error: BaseException, overwrite: bool = False) -> None:
    with new_folder(out, overwrite, MARKER) as folder:
        (folder / "maps").mkdir()
        (folder / "maps" / "1.npy").write_text("half", encoding="utf-8")
        raise error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_nothing_is_left_after_an_error(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        fail(tmp_path / "out", error)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_old_results_stay_after_an_error(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        fail(tmp_path / "out", error, overwrite=True)
    assert names(tmp_path) == ["out"]
    assert tree(tmp_path / "out") == results("old")


def test_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left") as caught:
        fail(tmp_path / "out", OSError(errno.ENOSPC, "No space left on device"))
    assert str(tmp_path / "out") in str(caught.value)


def test_error_of_ours_is_passed_on_as_it_is(tmp_path: Path) -> None:
    error = OutputError("no room for the scratch file")
    with pytest.raises(OutputError) as caught:
        fail(tmp_path / "out", error)
    assert caught.value is error


def test_folder_that_vanishes_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, new_folder(tmp_path / "a" / "out", False, MARKER):
        shutil.rmtree(tmp_path / "a")
    assert str(tmp_path / "a" / "out") in str(caught.value)


def test_what_another_program_put_there_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def another_program_writes() -> None:
        with new_folder(out, True, MARKER) as folder:
            (folder / MARKER).write_text("new", encoding="utf-8")
            out.mkdir()
            (out / "thesis.txt").write_text("years of work", encoding="utf-8")

    with pytest.raises(OutputError, match="not ours") as caught:
        another_program_writes()
    assert str(out) in str(caught.value)
    assert tree(tmp_path) == {"out": None, "out/thesis.txt": b"years of work"}


# ---- in the way ------------------------------------------------------------------------------


def test_existing_results_are_not_replaced_unasked(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    message = refused(tmp_path / "out")
    assert "--overwrite" in message
    assert "-o" in message
    assert tree(tmp_path / "out") == results("old")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["thesis.txt", "lot.json/notes.txt", "maps/lot.json", ".hidden"])
def test_folder_that_is_not_ours_is_never_replaced(tmp_path: Path, content: str, overwrite: bool) -> None:
    path = tmp_path / "out" / content
    path.parent.mkdir(parents=True)
    path.write_text("years of work", encoding="utf-8")
    before = tree(tmp_path)
    message = refused(tmp_path / "out", overwrite)
    assert "not ours" in message
    assert "-o" in message
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_in_the_way(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").write_text("content", encoding="utf-8")
    message = refused(tmp_path / "out", overwrite)
    assert "is a file" in message
    assert "-o" in message
    assert tree(tmp_path) == {"out": b"content"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_broken_link_in_the_way_is_found_before_the_work(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").symlink_to("gone")
    assert "-o" in refused(tmp_path / "out", overwrite)
    assert (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("below", ["out", "a/out", "a/b/out"])
def test_path_below_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("content", encoding="utf-8")
    message = refused(tmp_path / "file" / below)
    assert "Not a directory" in message
    assert "-o" in message
    assert tree(tmp_path) == {"file": b"content"}


def test_name_that_is_too_long(tmp_path: Path) -> None:
    message = refused(tmp_path / ("a" * 300))
    assert "File name too long" in message
    assert tree(tmp_path) == {}
