"""Runs schemathesis against a server: it sends what the OpenAPI document allows, and what not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.places import ROOT
from support.served import Server

HOOKS = "support.schemathesis_hooks"


def run_schemathesis(server: Server, folder: Path, examples: int, phases: str) -> str:
    """What ``schemathesis run`` says, which must have found nothing; ``folder`` is where it runs."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.address}/openapi.json"]
    limits = ["--max-examples", str(examples), "--seed", "0", "--generation-deterministic"]
    # What an image is, no schema can say: bytes that are none get a result (422) like a damaged file.
    without = ["--exclude-checks", "positive_data_acceptance", "--phases", phases]
    # A warning says that chance hit no result that is there: the tests of pictures ask for some that are.
    without += ["--warnings", "off"]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *limits, *without],
        capture_output=True,
        text=True,
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": path},
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return str(done.stdout)
