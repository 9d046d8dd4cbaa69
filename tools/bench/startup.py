"""Case ``startup``: time the start of the package and its commands, above bare Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .harness import alternate
from .report import Report

BARE = "python -c pass"


def cases() -> dict[str, Callable[[], object]]:
    """Return functions that run a whole process each, by the command that it runs."""
    python = sys.executable
    scripts = Path(python).parent
    commands = {
        BARE: [python, "-c", "pass"],
        "import musc_edge": [python, "-c", "import musc_edge"],
        "musc-edge --help": [str(scripts / "musc-edge"), "--help"],
        "musc-export --help": [str(scripts / "musc-export"), "--help"],
        "musc-bench --help": [str(scripts / "musc-bench"), "--help"],
    }
    return {name: partial(_run, command) for name, command in commands.items()}


def measure(rounds: int, report: Report) -> None:
    """Time every command; facts are the medians above that of bare Python."""
    found = alternate(cases(), rounds, warm_up=2, into=report.samples)
    bare = next(samples.median for samples in found if samples.name == BARE)
    above = {samples.name: samples.median - bare for samples in found if samples.name != BARE}
    report.facts["above_bare_python_s"] = above


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
