"""``tools/wheelhouse.sh``: what it asks of pip, and that it leaves all or nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.places import ROOT

# Stands for Python with pip: writes down what pip is asked for, and does as much as the script looks at.
_PIP = """#!/bin/sh
shift 2
[ "$1" = --version ] && exit
shift
echo "$*" >> "$LOG"
command=$1
while [ $# -gt 0 ]; do
  case "$1" in -w|-d) out=$2;; */pycuda-1/) cp "$1/siteconf.py" "$LOG.siteconf";; esac
  [ "$1" = pycuda ] && sdist=1
  shift
done
[ -n "$FAIL" ] && [ "$FAIL" = "$command" ] && exit 1
mkdir -p "$out"
if [ -n "$sdist" ]; then
  mkdir pycuda-1 && tar -czf "$out/pycuda-1.tar.gz" pycuda-1 && rmdir pycuda-1
else
  echo content > "$out/$command.whl"
fi
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write to; pip and a toolkit are stand-ins."""
    program = tmp_path / "python"
    program.write_text(_PIP, encoding="ascii")
    program.chmod(0o755)
    (tmp_path / "cuda" / "include").mkdir(parents=True)
    (tmp_path / "cuda" / "include" / "cuda.h").touch()
    monkeypatch.setenv("PYTHON", str(program))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def wheelhouse(place: Path, *arguments: str, fail: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "wheelhouse.sh"), *arguments]
    env = {**os.environ, "FAIL": fail}
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)


def test_what_is_asked_of_pip(place: Path) -> None:
    run = wheelhouse(place, "wheels", "cpu")
    assert run.returncode == 0, run.stderr
    assert "install --no-index --find-links wheels 'musc-edge[cpu]'" in run.stdout
    assert [path.name for path in place.iterdir()] == ["wheels"]
    wheel, proof = (place.parent / "log").read_text(encoding="ascii").splitlines()
    assert wheel.startswith("wheel -q -c ")
    assert wheel.endswith(f"{ROOT}[cpu]")
    assert "--no-index" in proof
    assert proof.endswith("musc-edge[cpu]")


def test_pycuda_is_built_against_any_driver_and_without_curand(place: Path) -> None:
    run = wheelhouse(place, "wheels")
    assert run.returncode == 0, run.stderr
    log = (place.parent / "log").read_text(encoding="ascii").splitlines()
    assert [line.split()[0] for line in log] == ["download", "wheel", "wheel", "download"]
    assert "'musc-edge[cpu,fast,cuda]'" in run.stdout
    settings = (place.parent / "log.siteconf").read_text(encoding="ascii")
    assert f'CUDA_ROOT = "{place.parent / "cuda"}"' in settings
    assert "CUDA_ENABLE_CURAND = False" in settings
    assert "-L/" in settings  # pycuda is built in another folder


@pytest.mark.parametrize("command", ["wheel", "download"])
def test_nothing_is_left_where_pip_fails(place: Path, command: str) -> None:
    assert wheelhouse(place, "wheels", "cpu", fail=command).returncode != 0
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected OUT [EXTRAS]"),
        (["--help"], "expected OUT [EXTRAS]"),
        (["a", "b", "c"], "expected OUT [EXTRAS]"),
        (["there"], "there exists"),
    ],
)
def test_refused(place: Path, arguments: list[str], words: str) -> None:
    (place / "there").mkdir()
    run = wheelhouse(place, *arguments)
    assert run.returncode == 1
    assert words in run.stderr
    assert [path.name for path in place.iterdir()] == ["there"]
