from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.line.appended import CSV, JSON_LINES
from musc_edge.runtime.line.result_log import DATABASE, MARK, ResultLog

FACTS = {"image": "a.png", "status": "ok", "raw_score": 0.5, "p": 0.1, "verdict": "reject", "error": ""}


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / JSON_LINES).read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / CSV).open(newline="") as file:
        return list(csv.DictReader(file))


def test_results_are_recorded_in_order_and_found_again(tmp_path: Path) -> None:
    with ResultLog(tmp_path / "out") as log:
        first = log.add(FACTS, "part42", b"key")
        second = log.add({**FACTS, "image": "b\udcff.png"}, "part43")
        assert [first.id, second.id, len(log)] == [1, 2, 2]
        assert b"key" in log
        assert b"other" not in log
    with ResultLog(tmp_path / "out") as log:
        assert [entry.id for entry in log.last(5)] == [2, 1]
        assert log.last(5, "part42") == log.after(0, 1) == [first]
        assert log.add(FACTS).event not in {first.event, second.event}
    assert [line["image"] for line in lines(tmp_path / "out")] == ["a.png", "b\udcff.png", "a.png"]
    assert (tmp_path / "out" / CSV).read_bytes().count(b"b\xff.png") == 1


def test_a_key_is_recorded_once(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        log.add(FACTS, key=b"key")
        with pytest.raises(KeyError):
            log.add(FACTS, key=b"key")
        log.add(FACTS)
        assert len(log) == 2
    assert len(lines(tmp_path)) == len(rows(tmp_path)) == 2


def test_what_was_delivered_is_kept_for_each_destination(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        assert log.delivered("mqtt") == 0
        log.set_delivered("mqtt", 3)
    with ResultLog(tmp_path) as log:
        assert (log.delivered("mqtt"), log.delivered("webhook")) == (3, 0)


@pytest.mark.parametrize("damage", ["torn", "missing line", "removed", "emptied"])
def test_files_are_mended(tmp_path: Path, damage: str) -> None:
    with ResultLog(tmp_path) as log:
        for k in range(5):
            log.add({**FACTS, "image": f"{k}.png"})
    for path in (tmp_path / CSV, tmp_path / JSON_LINES):
        content = path.read_bytes()
        cut = {"torn": len(content) - 3, "missing line": content[:-1].rindex(b"\n") + 1}.get(damage, 0)
        os.truncate(path, cut)
        if damage == "removed":
            path.unlink()
    with ResultLog(tmp_path) as log:
        log.add({**FACTS, "image": "5.png"})
    names = [f"{k}.png" for k in range(6)]
    assert [line["image"] for line in lines(tmp_path)] == names
    assert [row["image"] for row in rows(tmp_path)] == names


def test_a_killed_program_leaves_each_result_once(tmp_path: Path) -> None:
    code = f"""
import sys
from musc_edge.runtime.line.result_log import ResultLog
log = ResultLog({str(tmp_path / "out")!r})
for k in range(len(log), 10**6):
    log.add({{"image": str(k)}}, key=str(k).encode())
    print(k, flush=True)
"""
    told = -1
    for more in (1, 40, 7):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(more):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
    with ResultLog(tmp_path / "out") as log:
        recorded = len(log)
    assert recorded > told
    assert [line["image"] for line in lines(tmp_path / "out")] == [str(k) for k in range(recorded)]
    assert [row["image"] for row in rows(tmp_path / "out")] == [str(k) for k in range(recorded)]


def test_one_program_at_a_time(tmp_path: Path) -> None:
    with ResultLog(tmp_path), pytest.raises(OutputError, match="another program is using it"):
        ResultLog(tmp_path)
    ResultLog(tmp_path).close()


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"photo\.png"):
        ResultLog(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    linked = tmp_path / "link"
    linked.symlink_to(tmp_path)
    with pytest.raises(OutputError):
        ResultLog(linked)


@pytest.mark.parametrize("name", [DATABASE, CSV, JSON_LINES])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    ResultLog(tmp_path / "out").close()
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / name).symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError):
        ResultLog(tmp_path / "out")
    assert (tmp_path / "victim").read_bytes() == b""


def test_odd_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        ResultLog(tmp_path / "file")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / MARK).write_bytes(b"Unfinished work")
    with pytest.raises(OutputError, match="another purpose"):
        ResultLog(tmp_path / "kept")
    ResultLog(tmp_path / "damaged").close()
    (tmp_path / "damaged" / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(OutputError, match="not a database"):
        ResultLog(tmp_path / "damaged")
