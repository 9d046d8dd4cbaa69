"""Where the tests find golden files and the data packages."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"


def golden_folder() -> Path:
    """``$MUSC_EDGE_GOLDEN``, else ../shared/golden beside the checkout, else the copies in tests/data."""
    named = os.environ.get("MUSC_EDGE_GOLDEN")
    beside = ROOT.parent / "shared" / "golden"
    return Path(named) if named else beside if beside.is_dir() else DATA


def downloads() -> Path:
    """The folder of the data packages that ``make test`` downloads."""
    folder = Path(os.environ.get("MUSC_EDGE_DOWNLOADS", ROOT / ".work" / "downloads"))
    if not list(folder.glob("*.whl")):
        pytest.fail(f"{folder} holds no data packages: run the tests with 'make test', which downloads them.")
    return folder


def listen_to_interrupts() -> None:
    """For a child process: undo that shells let background jobs, and so what they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
