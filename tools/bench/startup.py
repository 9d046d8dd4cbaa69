"""Case ``startup``: how long the package and its commands take to start, above bare Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .harness import Samples, alternate

BARE = "python -c pass"


def cases() -> dict[str, Callable[[], object]]:
    """Whole processes, by the command that they run."""
    python = sys.executable
    scripts = Path(python).parent
    commands = {
        BARE: [python, "-c", "pass"],
        "import musc_edge": [python, "-c", "import musc_edge"],
        "musc-edge --help": [str(scripts / "musc-edge"), "--help"],
        "musc-export --help": [str(scripts / "musc-export"), "--help"],
    }
    return {name: partial(_run, command) for name, command in commands.items()}


def measure(rounds: int) -> list[Samples]:
    """Time every command; the first row is bare Python."""
    return alternate(cases(), rounds, warm_up=2)


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
