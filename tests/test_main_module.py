"""``python -m musc_edge`` is the command line."""

from __future__ import annotations

import json
import subprocess
import sys

from support.places import DATA


def test_the_package_runs_as_the_command_line() -> None:
    bundle = str(DATA / "schema1" / "bundle")
    command = [sys.executable, "-m", "musc_edge", "inspect", bundle, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["path"] == bundle


def test_it_calls_itself_by_the_commands_name() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "musc_edge", "no-such-command"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stderr.startswith("musc-edge: there is no command")
