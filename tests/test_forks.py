"""``support.forks``: what it starts is a process as ``subprocess`` would start it, in what a test can see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.forks import Forked, run_forked, start_forked
from support.places import listen_to_interrupts

pytestmark = pytest.mark.slow

SHOW = """
import json, os, sys
print(json.dumps([os.getpid(), os.getcwd(), sys.argv, os.environ.get("SHOWN"), sorted(sys.modules)]))
print("größe", file=sys.stderr)
sys.exit(7)
"""


def test_process_of_its_own(tmp_path: Path) -> None:
    run = run_forked([sys.executable, "-c", SHOW, "a", "b"], cwd=tmp_path, env={"SHOWN": "here"})
    assert (run.returncode, run.stderr) == (7, "größe\n")
    pid, folder, argv, shown, modules = json.loads(run.stdout)
    assert pid != os.getpid()
    assert (folder, argv, shown) == (str(tmp_path), ["-c", "a", "b"], "here")
    assert "SHOWN" not in os.environ
    assert {"numba", "onnxruntime", "cv2"} <= set(modules)
    assert not [name for name in modules if name.startswith("musc_edge")]


def test_file_and_what_it_raises(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys\nprint(sys.argv)\nraise ValueError('no')\n")
    run = run_forked([sys.executable, str(tmp_path / "program.py"), "x"])
    assert run.returncode == 1
    assert run.stdout == f"{[str(tmp_path / 'program.py'), 'x']}\n"
    assert "Traceback" in run.stderr
    assert "ValueError: no" in run.stderr
    assert run_forked([sys.executable, "-c", "import sys; sys.exit('no')"]).stderr == "no\n"


def _no_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_signals_and_limits(tmp_path: Path) -> None:
    wait = "import time; print('up', flush=True); time.sleep(60)"
    for sent in (signal.SIGKILL, signal.SIGTERM):
        out = tmp_path / sent.name
        with out.open("wb") as printed:
            process = start_forked([sys.executable, "-c", wait], printed.fileno(), printed.fileno())
        while not out.read_text():
            assert process.exitcode is None
        assert process.pid
        os.kill(process.pid, sent)
        process.join(60)
        assert process.exitcode == -sent
    code = "import sys\nwith open(sys.argv[1], 'w') as file:\n    file.write('x')"
    limited = run_forked([sys.executable, "-c", code, str(tmp_path / "file")], prepare=_no_files)
    assert limited.returncode == 1
    assert "File too large" in limited.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_interrupt_ends_a_process_as_it_ends_python(tmp_path: Path) -> None:
    wait = "import time; print('up', flush=True); time.sleep(60)"
    out = tmp_path / "printed"
    with (
        out.open("wb") as printed,
        Forked([sys.executable, "-c", wait], out=printed.fileno(), prepare=listen_to_interrupts) as process,
    ):
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(0)
        while not out.read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.communicate(60)[0] == ""  # ``out`` has it
        assert process.returncode == -signal.SIGINT
