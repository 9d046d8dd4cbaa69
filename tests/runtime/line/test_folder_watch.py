from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from musc_edge.runtime.errors import LotError, OutputError
from musc_edge.runtime.line.attempts import MOST, Attempts
from musc_edge.runtime.line.folder_watch import WatchOptions
from musc_edge.runtime.line.notices import Notices
from support.quick_station import PATIENT, PROMPT, move_in, watched
from support.watching import SPOT, png, problems

POLLED = replace(PROMPT, poll=0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# ---- what is new ---------------------------------------------------------------------------


def test_what_was_there_before_the_first_start_is_checked_only_if_asked(folder: Path, out: Path) -> None:
    (folder / "old.png").write_bytes(png(1))
    with watched(folder, out) as line:
        move_in(folder / "new.png", png(2))
        line.until_recorded("new.png")
    (folder / "missed.png").write_bytes(png(3))  # while nobody watches
    with watched(folder, out) as line:
        line.until_recorded("missed.png")
    with watched(folder, out, replace(PROMPT, existing=True)) as line:
        line.until_recorded("old.png")
        assert line.names == ["new.png", "missed.png", "old.png"]
        assert line.checker.names == ["old.png"]


@pytest.mark.parametrize("options", [PROMPT, POLLED], ids=["notices", "polled"])
def test_every_way_to_come(folder: Path, out: Path, options: WatchOptions) -> None:
    with watched(folder, out, options) as line:
        (folder / "plain.png").write_bytes(png(1))
        move_in(folder / "moved.png", png(2))
        (folder / "sub" / "deep").mkdir(parents=True)
        (folder / "sub" / "deep" / "new.png").write_bytes(png(3))
        elsewhere = out.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "inside.png").write_bytes(png(4))
        (folder / "hard.png").hardlink_to(elsewhere / "inside.png")
        (folder / "soft.png").symlink_to(elsewhere / "inside.png")
        elsewhere.rename(folder / "folder")
        (folder / "soft.png").unlink()
        (folder / "soft.png").symlink_to(folder / "folder" / "inside.png")
        names = ["plain.png", "moved.png", "sub/deep/new.png", "hard.png", "soft.png", "folder/inside.png"]
        line.until_recorded(*names)
        (folder / "folder").rename(folder / "renamed")  # its images have other names now
        line.until_recorded("renamed/inside.png")
        (folder / "renamed" / "later.png").write_bytes(png(5))
        line.until_recorded("renamed/later.png")
    assert not list(problems(out, Counter([*names, "renamed/inside.png", "renamed/later.png"])))


def test_what_is_no_image_of_the_line(folder: Path, out: Path) -> None:
    (folder / "results").mkdir()
    (folder / "results" / "lot.json").write_text('{"lot": 1, "images": 1, "skipped": 1, "warnings": 1}')
    with watched(folder, out) as line:
        for name in ("a.png.part", "a.tmp", "a.png~", ".a.png", "._a.png", "notes.txt", "raw.nef"):
            move_in(folder / name, png(1))
        for name in ("@eaDir", ".hidden", "results"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "a.png").write_bytes(png(1))
        (folder / "data.bin").write_bytes(b"no image")
        (folder / "raw.png").write_bytes(png(1))  # the picture of the raw file
        (folder / "no ending").write_bytes(png(2))
        line.until_recorded("raw.png", "no ending")
        move_in(folder / "last.png", png(3))
        line.until_recorded("last.png")
        assert len(line.names) == 3


def test_an_image_is_its_name_and_content(folder: Path, out: Path) -> None:
    with watched(folder, out) as line:
        (folder / "a.png").write_bytes(png(1))
        line.until_recorded("a.png")
        (folder / "a.png").write_bytes(png(2))  # another image under the same name
        line.until(lambda: line.names == ["a.png", "a.png"])
        os.utime(folder / "a.png", (1, 1))
    with watched(folder, out) as line:  # its time has changed, which is no other image
        move_in(folder / "b.png", png(2))
        line.until_recorded("b.png")
        line.until(lambda: not len(line.watch._waiting))
        assert line.checker.names == ["b.png"]
        (folder / "a.png").unlink()
        move_in(folder / "a.png", png(1))
        move_in(folder / "c.png", png(3))
        line.until_recorded("c.png")
        assert line.names == ["a.png", "a.png", "b.png", "c.png"]


# ---- when it is complete -------------------------------------------------------------------


def test_a_file_that_is_being_written_is_waited_for(folder: Path, out: Path) -> None:
    content = png(1)
    with watched(folder, out, PATIENT) as line, (folder / "slow.png").open("wb", buffering=0) as file:
        file.write(content[:500])
        move_in(folder / "other.png", png(2))
        line.until_recorded("other.png")
        file.write(content[500:])
        file.close()
        line.until_recorded("slow.png")
        assert line.facts("slow.png")["status"] == "ok"
        assert line.names == ["other.png", "slow.png"]


def test_a_file_that_is_closed_in_between_is_waited_for(folder: Path, out: Path) -> None:
    content = png(1)
    with watched(folder, out, PATIENT) as line:
        (folder / "slow.png").write_bytes(content[:500])
        line.until(lambda: line.checker.names == ["slow.png"])
        with (folder / "slow.png").open("ab") as file:
            file.write(content[500:])
        line.until_recorded("slow.png")
        assert [line.facts("slow.png")["status"], *line.names] == ["ok", "slow.png"]


@pytest.mark.parametrize("options", [PROMPT, POLLED], ids=["notices", "polled"])
def test_what_stays_damaged_is_recorded(folder: Path, out: Path, options: WatchOptions) -> None:
    with watched(folder, out, options) as line:
        (folder / "bad.png").write_bytes(png(1)[:500])
        (folder / "empty.png").write_bytes(b"")
        os.mkfifo(folder / "pipe.png")
        (folder / "nothing.png").symlink_to("nowhere")
        line.until_recorded("bad.png", "empty.png", "pipe.png")
        assert line.facts("bad.png")["status"] == "unreadable"
        (folder / "bad.png").write_bytes(png(1))
        line.until(lambda: line.facts("bad.png")["status"] == "ok")
        assert len(line.names) == 4


def test_a_file_that_changes_while_it_is_checked(folder: Path, out: Path) -> None:
    with watched(folder, out) as line:
        check = line.checker.check

        def changed(image: Path, name: str) -> object:
            found = check(image, name)
            if len(line.checker.names) == 1:
                image.write_bytes(png(2, SPOT))
            if len(line.checker.names) == 2:
                image.unlink()
            return found

        line.checker.check = changed  # type: ignore[assignment, method-assign]
        (folder / "a.png").write_bytes(png(1))
        line.until(lambda: len(line.checker.names) == 2)
        move_in(folder / "b.png", png(3))
        line.until_recorded("b.png")
        assert line.names == ["b.png"]


def test_an_image_that_ends_the_program_each_time_is_given_up(folder: Path, out: Path) -> None:
    with watched(folder, out) as line:
        (folder / "a.png").write_bytes(png(1))
        line.until_recorded("a.png")
    with watched(folder, out) as line:
        (folder / "killer.png").write_bytes(png(2))
        begin = Attempts.begin
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Attempts, "begin", lambda *given: [begin(*given) for _ in range(MOST)][-1] + 1)
            line.until_recorded("killer.png")
        assert line.facts("killer.png")["status"] == "unreadable"
        assert f"{MOST} times" in line.facts("killer.png")["error"]
        assert line.checker.names == []


def test_attempts_count_what_ended_the_program_alone(tmp_path: Path) -> None:
    for ended in range(3):
        attempts = Attempts(tmp_path)
        assert attempts.begin("a.png", b"a") == ended
        attempts.close()
    attempts = Attempts(tmp_path)
    attempts.end()
    assert attempts.begin("a.png", b"a") == 0
    assert attempts.begin("b.png", b"b") == 0
    attempts.close()


# ---- what goes wrong -----------------------------------------------------------------------


def test_notices_that_were_lost_are_made_up_for(folder: Path, out: Path) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with watched(folder, out) as line:
        move_in(folder / "first.png", png(1))
        line.until_recorded("first.png")
        for number in range(queue + 2):  # two files in turn, since equal notices become one
            os.close(os.open(folder / f"{number % 2}.txt", os.O_WRONLY | os.O_CREAT))
        for number in range(5):
            move_in(folder / f"lost{number}.png", png(number))
        line.until_recorded(*(f"lost{number}.png" for number in range(5)))
        assert len(line.names) == 6


def test_a_folder_that_goes_and_comes_back(folder: Path, out: Path) -> None:
    away = folder.with_name("away")
    with watched(folder, out, replace(PROMPT, poll=None)) as line:
        move_in(folder / "a.png", png(1))
        line.until_recorded("a.png")
        folder.rename(away)
        line.until(lambda: len(line.said) == 1)
        (away / "b.png").write_bytes(png(2))
        away.rename(folder)
        line.until_recorded("b.png")
        folder.rename(away)  # and another in its place, as when a share is mounted
        folder.mkdir()
        move_in(folder / "c.png", png(3))
        line.until_recorded("c.png")
        move_in(folder / "d.png", png(4))
        line.until_recorded("d.png")
        assert line.names == ["a.png", "b.png", "c.png", "d.png"]
        assert ["It is waited for" in line.said[0], "can be read again" in line.said[1]] == [True, True]


@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_too_many_watches(folder: Path, out: Path, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    add = Notices.add

    def full(self: Notices, name: str) -> None:
        if name == "sub" or limit == "instances":
            raise OSError(errno.ENOSPC if limit == "watches" else errno.EMFILE, "no room")
        add(self, name)

    monkeypatch.setattr(Notices, "add" if limit == "watches" else "__init__", full)
    with watched(folder, out) as line:
        move_in(folder / "sub" / "a.png", png(1))
        line.until_recorded("sub/a.png")
        assert len(line.said) == 1
        assert f"max_user_{limit}" in line.said[0]


def test_a_network_share_is_polled(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.runtime.line.folder_watch.remote_kind", lambda path: "nfs4")
    monkeypatch.setattr(Notices, "__init__", None)  # it is not made
    with watched(folder, out) as line:
        assert "is searched every 2 s: it is on nfs4" in line.said[0]


def test_more_files_than_may_wait(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.runtime.line.folder_watch._MOST_WAITING", 4)
    with watched(folder, out, replace(PROMPT, existing=True)) as line:
        for number in range(11):
            (folder / f"{number}.png").write_bytes(png(number))
        line.until(lambda: len(line.names) == 11)
        assert len(set(line.names)) == 11


def test_a_closed_subfolder_is_said_once(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shut").mkdir()
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with watched(folder, out, POLLED) as line:
        for number in range(2):
            move_in(folder / f"{number}.png", png(number))
            line.until_recorded(f"{number}.png")
        assert line.said == [f"{folder / 'shut'} cannot be searched: Permission denied"]


def test_folders_that_do_not_fit(folder: Path, out: Path) -> None:
    for other in (folder / "out", folder, folder.parent):
        with pytest.raises(OutputError, match=r"lie in each other|holds"), watched(folder, other):
            pass
    with watched(folder, out):
        pass
    other = folder.with_name("other")
    other.mkdir()
    with pytest.raises(OutputError, match="would be mixed"), watched(other, out):
        pass


def test_a_folder_that_cannot_be_read(folder: Path, out: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(LotError, match="cannot be read"), watched(folder, out):
        pass
    folder.mkdir()
    (folder / "a.png").write_bytes(png(1))
    with watched(folder, out) as line:  # nothing was taken for the first start
        move_in(folder / "b.png", png(2))
        line.until_recorded("b.png")
        assert line.names == ["b.png"]


def test_a_full_disk_loses_nothing(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def full(file: int, content: bytes, at: int) -> int:
        if b"reject" not in content:
            return pwrite(file, content, at)
        pwrite(file, content[:9], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    with watched(folder, out) as line:
        monkeypatch.setattr(os, "pwrite", full)
        move_in(folder / "a.png", png(1, SPOT))
        with pytest.raises(OutputError, match="No space left"):
            line.until_recorded("a.png", "never")
    monkeypatch.undo()
    with watched(folder, out) as line:
        move_in(folder / "b.png", png(2))
        line.until_recorded("b.png")
    assert not list(problems(out, Counter(["a.png", "b.png"])))


def test_a_burst(folder: Path, out: Path) -> None:
    with watched(folder, out, PATIENT) as line:
        content = png(1)
        for number in range(60):
            (folder / f"{number}.png").write_bytes(content)
        line.until(lambda: len(line.names) == 60)
        assert sorted(line.names) == sorted(f"{number}.png" for number in range(60))
