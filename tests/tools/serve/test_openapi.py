"""The server answers as its OpenAPI document says: schemathesis sends what it allows, and what not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.places import ROOT
from support.served import Server

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


def run(server: Server, folder: Path, examples: int, *options: str) -> str:
    """What ``schemathesis run`` says, which must have found nothing."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.address}/openapi.json"]
    limits = ["--max-examples", str(examples), "--seed", "0", "--generation-deterministic"]
    # What an image is, no schema can say: bytes that are none get a result (422) like a damaged file.
    without = ["--exclude-checks", "positive_data_acceptance", "--phases", "coverage,fuzzing"]
    paths = os.pathsep.join([str(HOOKS.parent), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": paths}
    done = subprocess.run(
        [*command, *limits, *without, *options],
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return str(done.stdout)


def test_the_document_is_true(server: Server, tmp_path: Path) -> None:
    said = run(server, tmp_path, 1)
    assert "No issues found" in said, said
