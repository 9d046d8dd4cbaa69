from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.line.pictures import FOLDERS, Pictures
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.reference.check_facts import check_facts
from musc_edge.runtime.reference.checker import Check
from support.quick_station import MANIFEST
from support.references import part

GRID = np.linspace(0, 0.5, 16, dtype=np.float32).reshape(4, 4)


def check(name: str, verdict: str = "reject") -> Check:
    return Check(name, "ok", 0.5, 0.01, verdict, GRID)


def there(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for name in FOLDERS for path in (out / name).iterdir())


def add(log: ResultLog, pictures: Pictures, number: int, image: Path | Image.Image) -> Any:
    key = bytes([number]) * 16
    found = check(f"sub/{number}.png")
    facts = pictures.see(found, image, key)
    log.add({**check_facts(found), **facts}, key=key)
    return facts


def test_the_files_of_a_suspect(tmp_path: Path) -> None:
    part(1, 200).save(tmp_path / "a b.bmp")
    with ResultLog(tmp_path / "out") as log:
        pictures = Pictures(log, MANIFEST)
        assert pictures.see(check("a b.bmp", "not flagged"), tmp_path / "a b.bmp", bytes(16)) == {}
        assert pictures.see(Check("bad.png", "unreadable"), tmp_path / "a b.bmp", bytes(16)) == {}
        facts = pictures.see(check("a b.bmp"), tmp_path / "a b.bmp", bytes(16))
        own = f"a b~{'00' * 16}"
        assert facts == {
            "picture": f"pictures/{own}.bmp", "overlay": f"overlays/{own}.jpg", "map": f"maps/{own}.npy",
        }  # fmt: skip
        out = tmp_path / "out"
        assert (out / facts["picture"]).read_bytes() == (tmp_path / "a b.bmp").read_bytes()
        assert np.array_equal(np.load(out / facts["map"]), GRID)
        with Image.open(out / facts["overlay"]) as overlay:
            assert overlay.width == 40
            assert overlay.height > 40
        assert pictures.bytes == sum((out / name).stat().st_size for name in there(out))


def test_a_picture_without_file_or_key(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        facts = Pictures(log, MANIFEST, which="all").see(check("", "not flagged"), part(1), None)
        with Image.open(tmp_path / facts["picture"]) as picture:
            assert (picture.format, picture.size) == ("PNG", (40, 40))
    with ResultLog(tmp_path) as log:
        Pictures(log, MANIFEST)  # it has no key, so that nobody can say that it is of no result
        assert len(there(tmp_path)) == 3


def test_a_file_that_is_gone_is_missing(tmp_path: Path) -> None:
    with ResultLog(tmp_path / "out") as log:
        facts = Pictures(log, MANIFEST).see(check("a.png"), tmp_path / "a.png", bytes(16))
    assert set(facts) == {"map", "missing"}
    assert facts["missing"][0] == "no picture: No such file or directory"


def test_the_oldest_go_first_and_the_log_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResultLog, "size", 1000)  # it grows by pages
    with ResultLog(tmp_path) as log:
        pictures = Pictures(log, MANIFEST)
        add(log, pictures, 1, part(1))
        each = pictures.bytes
        keep = log.size + 4 * each
        pictures = Pictures(log, MANIFEST, keep)
        for number in range(2, 9):
            add(log, pictures, number, part(number))
        left = there(tmp_path)
        assert 3 <= len(left) < 15
        assert any(name.startswith("pictures/8~") for name in left)
        assert not any(name.startswith("pictures/1~") for name in left)
        assert log.size + pictures.bytes <= keep
        assert pictures.bytes == sum((tmp_path / name).stat().st_size for name in left)
        assert len(log) == 8
    with ResultLog(tmp_path) as log:
        again = Pictures(log, MANIFEST, keep)
        assert there(tmp_path) == left
        add(log, again, 9, part(9))
        assert log.size + again.bytes <= keep


def test_no_room_at_all_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    with ResultLog(tmp_path) as log:
        pictures = Pictures(log, MANIFEST, 1000, say=said.append)
        for number in range(2):
            facts = add(log, pictures, number, part(number))
            assert facts == {"missing": ["no picture: there is no room for it"]}
        assert there(tmp_path) == []
        assert pictures.bytes == 0
    assert len(said) == 1
    assert "1 kB (--keep)" in said[0]


def test_the_last_of_the_disk_is_left_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ResultLog(tmp_path) as log:
        pictures = Pictures(log, MANIFEST)
        add(log, pictures, 1, part(1))
        full = os.statvfs_result((4096, 4096, 10**6, 0, 0, 10**6, 10**6, 10**6, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda path: full)
        add(log, pictures, 2, part(2))
        assert there(tmp_path) == []


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        pictures = Pictures(log, MANIFEST)
        add(log, pictures, 1, part(1))
        kept = there(tmp_path)
        pictures.see(check("2.png"), part(2), bytes([2]) * 16)  # and never recorded
        (tmp_path / "maps" / ".0123.partial").write_bytes(b"half")
        assert len(there(tmp_path)) == 7
        Pictures(log, MANIFEST)
        assert there(tmp_path) == kept
