from __future__ import annotations

from pathlib import Path

import pytest

from musc_edge import list_lot
from musc_edge.runtime.images import kinds
from musc_edge.runtime.line import mounts
from musc_edge.runtime.line.folder_scan import files_below, is_taken, may_be_taken
from musc_edge.runtime.line.waiting import Waiting
from support.watching import png


def taken(folder: Path) -> set[str]:
    below = files_below(folder, "", lambda name: None, print)
    return {name for name, _ in below if is_taken(folder / name)}


def test_the_same_files_as_of_a_lot(tmp_path: Path) -> None:
    names = [f"a{ending}" for ending in sorted(kinds.IMAGE_SUFFIXES)]
    names += [
        "b.PNG",
        "c.png~",
        "d.png.part",
        "e.tmp",
        ".f.png",
        "._g.png",
        "h.thm",
        "i.png.icloud",
        ".j.png.icloud",
    ]
    names += [
        "k.txt",
        "l",
        "m.bin",
        "n.csv",
        "alone.nef",
        "p_original",
        "q.old",
        "raw.cr2",
        "raw.JPG",
        "lot.json",
    ]
    names += [
        f"{folder}/a.png" for folder in ("good", "@eaDir", ".trash", "FOUND.000", "__MACOSX", "é", "b\udcff")
    ]
    names += ["results/a.png", "results/lot.json"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "results" / "lot.json").write_text('{"lot": 1, "images": 1, "skipped": 1, "warnings": 1}')
    (tmp_path / "text").write_bytes(b"no image")
    (tmp_path / "linked").symlink_to(tmp_path / "good")
    (tmp_path / "round").symlink_to(tmp_path)
    expected = {image.name for image in list_lot(tmp_path)}
    assert len(expected) > 50
    assert taken(tmp_path) == expected
    assert all(may_be_taken(name) for name in expected)


def test_results_of_a_line_are_left_out(tmp_path: Path) -> None:
    for name in ("out/.musc-edge", "out/pictures/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    assert taken(tmp_path) == {"b.png"}


MOUNTS = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt rw - nfs4 server:/x rw
31 30 8:2 / /mnt/disk\040one rw - ext4 /dev/sdb rw
32 22 0:41 / /home/me/far rw - fuse.sshfs me@far: rw
33 22 8:3 / /stick rw - fuseblk /dev/sdc rw
34 22 0:42 / /mnt2 rw - cifs //pc/x rw
35 22 0:43 / /mnt2 rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me", ""), ("/mnt", "nfs4"), ("/mnt/line 1", "nfs4"), ("/mnt/disk one/x", ""), ("/mntx", ""),
        ("/home/me/far/in", "fuse.sshfs"), ("/stick", ""), ("/mnt2/a", ""),
    ],
)  # fmt: skip
def test_network_shares_are_known(
    folder: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_bytes(MOUNTS)
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")
    assert mounts.remote_kind(Path(folder)) == kind


def test_mounts_that_cannot_be_told_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mounts._kind(Path("/proc")) == "proc"
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "nothing")
    assert mounts.remote_kind(tmp_path) == ""


def test_files_wait_until_they_settle() -> None:
    waiting = Waiting()
    waiting.see("a", (1, 1), now=0, pause=5)
    waiting.see("b", (1, 1), now=1, pause=1)
    assert waiting.next() == (2, "b")
    waiting.see("a", (1, 1), now=3, pause=5)  # unchanged: as before
    waiting.drop("b")
    assert waiting.next() == (5, "a")
    waiting.see("a", (2, 2), now=4, pause=1)  # changed: it waits anew, as long as it did
    assert waiting.next() == (9, "a")
    waiting.close("a", (2, 2), now=6, pause=1)
    assert waiting.next() == (6, "a")
    assert (waiting["a"].since, len(waiting)) == (4, 1)
    waiting.drop("a")
    assert waiting.next() is None


def test_what_vanishes_while_it_is_searched(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()

    def enter(name: str) -> None:
        if name == "":
            (tmp_path / "sub").rmdir()

    assert list(files_below(tmp_path, "", enter, pytest.fail)) == []
    with pytest.raises(FileNotFoundError):
        list(files_below(tmp_path, "sub", enter, pytest.fail))
