"""Files and folders that somebody else may have made: what is opened, what is refused, what is left alone."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from musc_edge import _files
from musc_edge._files import (
    empty_folder,
    make_folders,
    open_folder,
    open_own,
    read_regular,
    remove_folder,
    strangers_way_in,
    write_whole,
)

# ---- reading ---------------------------------------------------------------------------------


def test_a_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than") as caught:
        read_regular(path, 4)
    assert caught.value.errno == errno.EFBIG


def test_a_file_that_says_it_has_no_size_is_read_up_to_the_limit() -> None:
    assert read_regular(Path("/proc/self/status")).startswith(b"Name:")
    with pytest.raises(OSError, match="larger than"):
        read_regular(Path("/proc/self/status"), 10)


@pytest.mark.parametrize("kind", ["pipe", "device", "endless device", "folder", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.symlink_to("/dev/zero" if "endless" in kind else "/dev/null")
    with pytest.raises(OSError):  # noqa: PT011, the kernel has its own words for a socket
        read_regular(path)


def test_links_are_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"1"
    with pytest.raises(OSError, match="symbolic links"):
        read_regular(tmp_path / "link", follow=False)


def test_a_file_of_our_own_has_one_name_and_is_no_link(tmp_path: Path) -> None:
    os.close(open_own(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == b""
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "second").hardlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "new", "second", "pipe"):
        with pytest.raises(OSError, match=r"symbolic links|regular file with one name"):
            open_own(tmp_path / name)


# ---- writing ---------------------------------------------------------------------------------


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_bytes(b"years of work")
    (tmp_path / "file").symlink_to("thesis")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "thesis").read_bytes() == b"years of work"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


# ---- folders ---------------------------------------------------------------------------------


def test_folders_are_made_and_removed_however_deep(tmp_path: Path) -> None:
    deep = tmp_path / "top" / "/".join("d" * 1500)
    make_folders(deep)
    make_folders(deep)
    (deep / "file").touch()
    remove_folder(tmp_path / "top")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dead").symlink_to("gone")
    for name in ("file", "file/below", "dead", "dead/below"):
        with pytest.raises(NotADirectoryError):
            make_folders(tmp_path / name)


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs" / "deep").mkdir(parents=True)
    (tmp_path / "theirs" / "deep" / "thesis").touch()
    (tmp_path / "ours" / "a" / "b").mkdir(parents=True)
    for name in ("link", "a/link", "a/b/link"):
        (tmp_path / "ours" / name).symlink_to(tmp_path / "theirs")
    folder = open_folder(tmp_path / "ours")
    empty_folder(folder)
    os.close(folder)
    assert not list((tmp_path / "ours").iterdir())
    assert (tmp_path / "theirs" / "deep" / "thesis").is_file()


def test_a_link_to_a_folder_is_not_opened_as_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        open_folder(tmp_path / "link")


# ---- who could have written it ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "members", "group", "says"),
    [
        (0o644, [], "me", None),
        (0o664, [], "me", None),
        (0o664, ["me"], "me", None),
        (0o664, ["me", "you"], "me", "the group"),
        (0o664, [], "staff", "the group"),
        (0o646, [], "me", "everybody may write"),
        (0o666, [], "me", "everybody may write"),
    ],
)
def test_modes_that_let_others_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    members: list[str],
    group: str,
    says: str | None,
) -> None:
    path = tmp_path / "plan"
    path.touch()
    path.chmod(mode)
    monkeypatch.setattr("pwd.getpwuid", lambda user: SimpleNamespace(pw_name="me"))
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_name=group, gr_mem=members))
    monkeypatch.setattr(_files, "_ROOT", -1)  # or root's own group would be above suspicion
    found = strangers_way_in(path)
    assert found is None if says is None else says in str(found)


def test_owners_that_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan"
    path.touch()
    assert strangers_way_in(path) is None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert (strangers_way_in(path) is None) == (path.stat().st_uid == 0)
    monkeypatch.setattr(_files, "_ROOT", -1)
    assert "belongs to user" in str(strangers_way_in(path))
    (tmp_path / "link").symlink_to("plan")
    assert "is a link" in str(strangers_way_in(tmp_path / "link"))
    with pytest.raises(FileNotFoundError):
        strangers_way_in(tmp_path / "gone")
