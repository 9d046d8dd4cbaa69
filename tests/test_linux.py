"""On another system every command, and the Python API, says in one sentence that Linux is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What only Linux, or only Unix, has is gone, as it is there.
ELSEWHERE = """
import os, sys
sys.platform = sys.argv[1]
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("posix_fallocate", "preadv", "sched_getaffinity"):
    delattr(os, name)
"""


def run_on(system: str, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ELSEWHERE + code, system]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("system", "instead"), [("win32", "WSL 2"), ("darwin", "Docker"), ("freebsd14", "virtual machine")]
)
@pytest.mark.parametrize("module", ["tools.edge", "tools.export", "tools.bench.cli"])
def test_commands(system: str, instead: str, module: str) -> None:
    run = run_on(system, f"from musc_edge.{module} import main; sys.exit(main([]))")
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert f"Linux only, and this Python is for '{system}'" in run.stderr
    assert instead in run.stderr


def test_the_package_by_itself() -> None:
    run = run_on("win32", "import runpy; runpy.run_module('musc_edge', run_name='__main__')")
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1)


def test_python_api() -> None:
    run = run_on("win32", "import musc_edge; print(musc_edge.__version__); musc_edge.score_lot")
    assert (run.returncode, bool(run.stdout.strip())) == (1, True)
    assert run.stderr.splitlines()[-1].startswith("ImportError: musc-edge runs on Linux only")
