"""``musc-edge watch`` as a process: what it prints, how it ends, and what kills leave."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import socket
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest

from musc_edge import _extras
from musc_edge.runtime.line.result_log import Entry
from musc_edge.tools import watch
from musc_edge.tools.service import Systemd, stopping
from support.command_line import run_here
from support.forks import Forked
from support.references import BUNDLE
from support.watching import SPOT, Arrivals, make_reference, png, problems, recorded, wait_for, watch_command

CODE = "import sys; from musc_edge.tools.edge import main; sys.exit(main(sys.argv[1:]))"
KILLS = 3


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def start(folder: Path, reference: Path, out: Path, log: Path, *options: str, **env: str) -> Forked:
    """Watch, and wait until it says that it does."""
    said = log.read_text().count("watching ") if log.exists() else 0
    command = watch_command(folder, reference, out, *options)
    with log.open("ab") as file:
        process = Forked([sys.executable, "-c", CODE, *command], out=file.fileno(), env=env)

    def begun() -> bool:
        assert process.poll() is None, process.communicate()
        return log.read_text().count("watching ") > said

    wait_for(begun)
    return process


def test_kills(folder: Path, reference: Path, tmp_path: Path) -> None:
    """The short form of ``tests/measure/watch_kills.py``."""
    out, log, arrivals, chance = (
        tmp_path / "out",
        tmp_path / "log",
        Arrivals(folder, pause=0),
        random.Random(0),
    )
    for _ in range(KILLS):
        with start(folder, reference, out, log) as process:
            for _ in range(8):
                arrivals.add(arrivals.expected.total() + 1)
            wanted = len(recorded(out)) + chance.randrange(1, 6)
            wait_for(lambda wanted=wanted: len(recorded(out)) >= wanted)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
    with start(folder, reference, out, log) as process:
        wait_for(lambda: len(recorded(out)) == arrivals.expected.total())
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0
    assert list(problems(out, arrivals.expected)) == []


def test_what_is_said_and_how_it_ends(folder: Path, reference: Path, tmp_path: Path) -> None:
    out, log, address = tmp_path / "out", tmp_path / "log", str(tmp_path / "systemd")
    (folder / "old.png").write_bytes(png(1))
    with ExitStack() as stack:
        systemd = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        systemd.bind(address)
        told = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
        process = stack.enter_context(start(folder, reference, out, log, **told))
        assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=watching ")
        assert systemd.recv(1000) == b"WATCHDOG=1"
        (folder / "good.png").write_bytes(png(2))
        (folder / "bad.png").write_bytes(png(3, SPOT))
        (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        wait_for(lambda: len(recorded(out)) == 3)
        busy = run_here(["musc-edge", *watch_command(folder, reference, out)])
        assert busy.returncode == 7
        assert "another program is using it" in busy.stderr
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0
        while (last := systemd.recv(1000)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
    lines = log.read_text().splitlines()
    assert lines[0] == f"watching {folder}; results in {out}, 0 so far"
    assert lines[-1] == "stopped; 3 images recorded"
    shown = {line.rpartition("  ")[2]: line for line in lines[1:-1] if not line.startswith("  ")}
    assert "  not flagged  raw " in shown["good.png"]
    assert "  reject       raw " in shown["bad.png"]
    assert any("  unreadable   " in line for line in lines)
    assert list(problems(out, Counter(["good.png", "bad.png", "damaged.png"]))) == []


def test_json_and_ctrl_c(folder: Path, reference: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    (folder / "old.png").write_bytes(png(1))
    command = watch_command(folder, reference, out, "--existing", "--json", "--poll", "0.1")
    with log.open("ab") as file, Forked([sys.executable, "-c", CODE, *command], out=file.fileno()) as process:
        wait_for(lambda: log.read_bytes().endswith(b"\n") or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130, said
    assert [json.loads(line)["image"] for line in log.read_text().splitlines()] == ["old.png"]
    assert log.read_text() == (out / "results.jsonl").read_text()
    assert said.splitlines()[-1] == "stopped; 1 image recorded"


def test_mistakes(folder: Path, reference: Path, tmp_path: Path) -> None:
    def said(*arguments: str | Path) -> tuple[int, str]:
        done = run_here(["musc-edge", "watch", *map(str, arguments)])
        return done.returncode, done.stderr

    usual: list[str | Path] = ["--reference", reference, "-b", BUNDLE, "-o", tmp_path / "out"]
    assert said(tmp_path / "nothing", *usual)[0] == 2
    assert said(folder, *usual[:4]) == (
        2,
        "musc-edge watch: the following arguments are required: -o/--out\n"
        "usage: musc-edge watch FOLDER --reference REF -o OUT [options]; more: musc-edge watch --help\n",
    )
    assert "expected seconds above 0" in said(folder, *usual, "--poll", "0")[1]
    assert "expected seconds such as" in said(folder, *usual, "--poll", "x")[1]
    code, text = said(folder, "--reference", tmp_path, "-b", BUNDLE, "-o", tmp_path / "out")
    assert code == 4
    assert not (tmp_path / "out").exists()
    inside = said(folder, *usual[:4], "-o", folder / "out")
    assert inside[0] == 7
    assert "lie in each other" in inside[1]
    damaged = shutil.copytree(reference, tmp_path / "damaged")
    (damaged / "cls.npy").write_bytes(b"x")
    assert said(folder, "--reference", damaged, "-b", BUNDLE, "-o", tmp_path / "out")[0] == 4
    with mock.patch.object(_extras, "find_spec", return_value=None):
        code, text = said(folder, *usual)
    assert code == 5
    assert "pip install 'musc-edge[watch]'" in text


def test_a_second_signal_ends_at_once() -> None:
    with stopping() as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert (bool(stop), stop.exit_code) == (True, 0)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


def test_nobody_listens_to_what_systemd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Systemd().ready("nobody asks")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    Systemd().ready("nobody is there")


def test_a_change_of_the_line_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    args, told = argparse.Namespace(json=False), False
    changed = {"state": "changed", "what": ["images became darker", "scores rose"]}
    for drift in ({"state": "steady"}, changed, changed, {"state": "steady"}, {"state": "steady"}):
        told = watch._tell_drift(args, Entry(1, "e", "12:00", "part42", {"drift": drift}), told)
    assert capsys.readouterr().out.splitlines() == [
        "12:00  the line has changed: images became darker; scores rose",
        "12:00  the line is steady again",
    ]
