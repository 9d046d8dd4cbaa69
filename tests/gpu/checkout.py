"""Runs a script on this checkout as it is, installed or not: for machines where nothing can be installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".work" / "gpu"
_DONE = "MUSC_EDGE_CHECKOUT"


def run_from_checkout() -> None:
    """Start this script again with this checkout as the package ``musc_edge``; return if that was done."""
    if os.environ.get(_DONE) == str(ROOT):
        return
    package = WORK / "package" / "musc_edge"
    package.parent.mkdir(parents=True, exist_ok=True)
    if not package.is_symlink():
        package.symlink_to(ROOT, target_is_directory=True)
    before = os.environ.get("PYTHONPATH")
    path = [str(package.parent), str(ROOT / "tests"), *([before] if before else [])]
    environment = os.environ | {_DONE: str(ROOT), "PYTHONPATH": os.pathsep.join(path)}
    environment["XDG_CACHE_HOME"] = str(WORK / "cache")  # the user's own is not for what is tried here
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)
