"""Writing a folder of results: all of it or nothing, and never over what is not ours."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from musc_edge._files import make_folders, remove_folder
from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.results.output import new_folder
from support.kill_points import killed_before
from support.lots import tree

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


def test_killed_before_each_operation(tmp_path: Path) -> None:
    """There are the old results, the new ones, or none until the next run; that leaves nothing else."""
    number, seen = 0, set()
    killed = True
    while killed:
        number += 1
        parent = tmp_path / f"{number}"
        out = parent / "out"
        write(out, "old")
        killed = killed_before(number, lambda out=out: write(out, "new", overwrite=True))  # type: ignore[misc]
        there = tree(out) if out.exists() else None
        seen.add("none" if there is None else next(t for t in ("old", "new") if there == results(t)))
        assert "exists" in refused(out)
        assert names(parent) == ["out"]
        write(out, "next", overwrite=True)
        assert names(parent) == ["out"]
        assert tree(out) == results("next")
    assert number > 8
    assert seen == {"old", "none", "new"}


def test_results_of_somebody_else_where_those_of_a_killed_run_were(tmp_path: Path) -> None:
    """What was moved away stays beside them."""
    out = tmp_path / "out"
    write(out, "old")
    number = 1
    while out.exists() and killed_before(number, lambda: write(out, "new", overwrite=True)):
        number += 1
    assert not out.exists()
    out.mkdir()
    write(out, "next")
    assert tree(out) == results("next")
    (old,) = (path for path in tmp_path.iterdir() if path != out)
    assert tree(old) == results("old")


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


# ---- what others have put beside it ----------------------------------------------------------


def plant(path: Path, kind: str, victim: Path) -> None:
    """Put something of somebody else's where this program needs a name."""
    if kind == "link to a folder":
        path.symlink_to(victim)
    elif kind == "link to a file":
        path.symlink_to(victim / "thesis.txt")
    elif kind == "dead link":
        path.symlink_to(victim / "new.txt")
    elif kind == "hard link":
        path.hardlink_to(victim / "thesis.txt")
    elif kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("years of work", encoding="utf-8")
    elif kind == "file":
        path.write_text("years of work", encoding="utf-8")
    else:
        os.mkfifo(path)


PLANTED = ["link to a folder", "link to a file", "dead link", "hard link", "folder", "file", "pipe"]


@pytest.mark.parametrize("name", [".out.partial", ".out.lock"])
@pytest.mark.parametrize("kind", PLANTED)
def test_what_has_a_name_that_is_needed_is_neither_followed_nor_emptied(
    tmp_path: Path, name: str, kind: str
) -> None:
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.mkdir()
    shared.mkdir()
    (victim / "thesis.txt").write_text("years of work", encoding="utf-8")
    plant(shared / name, kind, victim)
    before, kinds = described(tmp_path), os.lstat(shared / name).st_mode
    message = refused(shared / "out")
    assert f"{shared / name} is in the way" in message
    assert "remove it" in message
    assert described(tmp_path) == before
    assert os.lstat(shared / name).st_mode == kinds


def described(folder: Path) -> dict[str, str]:
    """Every path below ``folder`` with what it is, pipes and links included."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = path.read_text(encoding="utf-8") if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = str(path.readlink()) if path.is_symlink() else what
    return found


def test_a_folder_of_another_user_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with a lock that names it: whoever made both would own what is written."""
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (tmp_path / ".out.lock").write_text(f"musc-edge {partial.stat().st_ino}\n", encoding="ascii")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "is in the way" in refused(tmp_path / "out")
    assert partial.is_dir()


def test_what_is_planted_while_it_is_written_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()

    def replaced_meanwhile() -> None:
        with new_folder(tmp_path / "out", False, MARKER) as folder:
            folder.rename(tmp_path / "moved")
            folder.symlink_to(tmp_path / "theirs")

    with pytest.raises(OutputError, match="moved or replaced by somebody else"):
        replaced_meanwhile()
    assert names(tmp_path) == [".out.partial", "moved", "theirs"]


def test_nobody_else_may_enter_while_it_is_written(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2777)
    with new_folder(shared / "out", False, MARKER) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "maps").mkdir()
    assert (shared / "out").stat().st_mode & 0o7055 == 0o2055  # as the shared folder hands it on
    assert (shared / "out/maps").stat().st_mode & 0o2000


def test_links_within_old_results_are_removed_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / "deep" / "thesis.txt").write_text("years of work", encoding="utf-8")
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "maps" / "more").symlink_to(victim)
    write(tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == results()
    assert tree(victim) == {"deep": None, "deep/thesis.txt": b"years of work"}


@pytest.mark.parametrize("end", ["error", "published", "replaced"])
@pytest.mark.slow
def test_folders_nested_deeper_than_python_calls_itself(tmp_path: Path, end: str) -> None:
    def nest(folder: Path) -> None:
        make_folders(folder / "/".join("d" * 1500))

    def write_deep(overwrite: bool = False) -> None:
        with new_folder(tmp_path / "out", overwrite, MARKER) as folder:
            nest(folder)
            (folder / MARKER).touch()
            if end == "error":
                raise RuntimeError

    if end == "error":
        with pytest.raises(RuntimeError):
            write_deep()
    else:
        write_deep()
        if end == "replaced":
            write(tmp_path / "out", overwrite=True)
    assert names(tmp_path) == ([] if end == "error" else ["out"])
    if end == "published":
        remove_folder(tmp_path / "out")  # pytest could not


@pytest.mark.parametrize("links", [1, 1200], ids=["loop", "long chain"])
def test_links_that_lead_nowhere(tmp_path: Path, links: int) -> None:
    for k in range(links):
        (tmp_path / f"out{k or ''}").symlink_to(f"out{k + 1}" if k + 1 < links else "out")
    assert "is a link to nothing" in refused(tmp_path / "out")
