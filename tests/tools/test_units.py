from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from musc_edge.tools.units import NAMES, unit
from support.command_line import run_here

MOST_EXPOSED = 1.5
"""By systemd's own measure, from 0 to 10."""


@pytest.fixture
def systemd_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, of Debian's package systemd, is not installed: units cannot be checked")


def installed(folder: Path, program: Path) -> list[Path]:
    """The units as they would be started."""
    paths = []
    for name in NAMES:
        paths.append(folder / name.replace("@", "@line1"))
        paths[-1].write_text(unit(name, program))
    return paths


@pytest.mark.usefixtures("systemd_analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    paths = installed(tmp_path, Path("/bin/true"))
    for path in paths:
        run = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.usefixtures("systemd_analyze")
def test_the_services_are_exposed_to_little(tmp_path: Path) -> None:
    for path in installed(tmp_path, Path("/bin/true")):
        run = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", path],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        (level,) = re.findall(r"Overall exposure level .*: ([\d.]+)", run.stdout)
        assert float(level) <= MOST_EXPOSED


def test_a_units_program_may_have_any_sign_in_its_path() -> None:
    text = unit(NAMES[0], Path("/opt/100%/bin/musc-edge"))
    assert "ExecStart=/opt/100%%/bin/musc-edge watch ${FOLDER}" in text
    assert re.findall(r"@\w+@", text) == []


def test_the_command_writes_them_for_the_program_that_runs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "musc-edge").touch()
    (tmp_path / "units").mkdir()
    with mock.patch("sys.executable", str(tmp_path / "bin" / "python")):
        run = run_here(["musc-edge", "units", "-o", str(tmp_path / "units")])
        assert run.returncode == 0, run.stderr
        assert sorted(path.name for path in (tmp_path / "units").iterdir()) == sorted(NAMES)
        for name in NAMES:
            assert f"ExecStart={tmp_path}/bin/musc-edge " in (tmp_path / "units" / name).read_text()
        missing = run_here(["musc-edge", "units", "-o", str(tmp_path / "nowhere")])
        full = run_here(["musc-edge", "units", "-o", "/proc"])
    assert (missing.returncode, "there is no folder" in missing.stderr) == (2, True)
    assert (full.returncode, "cannot be written" in full.stderr) == (7, True)


@pytest.mark.parametrize(("folder", "hidden"), [("/home/me", "/home"), ("/root/x", "/root"), ("/opt/x", "")])
def test_programs_that_the_services_cannot_see_are_named(tmp_path: Path, folder: str, hidden: str) -> None:
    with mock.patch("musc_edge.tools.units._program", return_value=Path(folder, "bin/musc-edge")):
        run = run_here(["musc-edge", "units", "-o", str(tmp_path)])
    assert (f"The services cannot see {hidden}:" in run.stdout) == bool(hidden)


@pytest.mark.parametrize(("name", "says"), [("no", "install musc-edge with pip"), ("my bin", "such a path")])
def test_programs_that_cannot_be_started_are_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "my bin").mkdir()
    (tmp_path / "my bin" / "musc-edge").touch()
    with mock.patch("sys.executable", str(tmp_path / name / "python")):
        run = run_here(["musc-edge", "units", "-o", str(tmp_path)])
    assert (run.returncode, says in run.stderr) == (2, True)
