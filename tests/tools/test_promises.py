"""What is promised before the work is kept: peak memory of real processes, whatever is read and written.

The lots are small and their images large, so that images are what takes memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from support.bad_input import Place
from support.command_line import run_here
from support.forks import run_forked

MB = 10**6
SIDE = 1000, 1300  # pixels
COUNT = 5


def picture(seed: int) -> Any:
    """A smooth image with noise (H,W,3), which a JPEG keeps small."""
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 25, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIDE[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs")
    for k in range(COUNT):
        Image.fromarray(picture(k)).save(folder / f"{k}.jpg")
    return folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 bits a channel, in colour."""
    folder = tmp_path_factory.mktemp("deep")
    for k in range(COUNT):
        fast = [cv2.IMWRITE_PNG_COMPRESSION, 0]
        cv2.imwrite(str(folder / f"{k}.png"), picture(k).astype(np.uint16) * 257, fast)
    return folder


def command(lot: Path, bundle: Path, out: Path, *options: str, commands: Path) -> list[str]:
    tool = str(commands / "musc-edge")
    # On as many threads as an ordinary machine has: it is they that multiply an image's memory.
    return [
        tool,
        "infer",
        str(lot),
        "-b",
        str(bundle),
        "-o",
        str(out),
        "--scorer",
        "numpy",
        "--threads",
        "4",
        *options,
    ]


LAUNCH = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Linux counts what the parent held when it started a process: so another, small one has to start it."""


def peak(run: list[str]) -> int:
    """Run a command; the peak of its resident memory in bytes, as the system reports it."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCH, *run], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


def least_budget(run: list[str]) -> int:
    """MB of the smallest budget that works, as a run with a tiny one names it."""
    refused = run_forked([*run, "--memory-budget", "1M"])
    (megabytes,) = re.findall(r"smallest that works is (\d+) MB", refused.stderr)
    return int(megabytes)


@pytest.mark.parametrize(
    ("kind", "options", "little"),
    [
        ("jpegs", [], False),
        ("jpegs", ["--overlays", "--maps", "original", "--map-format", "tiff"], True),
        pytest.param("deep", ["--overlays", "--bit-depth", "auto"], False, marks=pytest.mark.long),
        pytest.param(
            "deep",
            ["--maps", "original", "--map-format", "png16", "--bit-depth", "16"],
            True,
            marks=pytest.mark.long,
        ),
    ],
)
def test_memory_is_what_was_promised(
    request: pytest.FixtureRequest, quick_bundle: Path, commands: Path, tmp_path: Path,
    kind: str, options: list[str], little: bool,
) -> None:  # fmt: skip
    """Case 17."""
    lot, out = request.getfixturevalue(kind), tmp_path / "out"
    run = command(lot, quick_bundle, out, *options, commands=commands)
    budget = least_budget(run) + 10 if little else None  # a process does not take the same every time
    found = peak([*run, "--memory-budget", f"{budget}M"] if budget else run)
    about = json.loads((out / "lot.json").read_bytes())
    plan = about["plan"]
    assert found <= plan["memory_bytes"] <= (budget * MB if budget else plan["budget"])
    assert found > plan["memory_bytes"] / 2  # a promise of anything at all would be kept as well
    assert not any("memory" in text for text in about["warnings"])
    if budget:  # fewer at a time
        largest = max(plan["decoding_bytes"], plan["writing_bytes"])
        assert largest < 4 * SIDE[0] * SIDE[1] * 14


@pytest.mark.parametrize(
    ("kind", "says"), [("jpegs", "smallest that works"), ("deep", "of the memory budget are left")]
)
def test_an_image_too_large_for_the_budget_is_named(
    request: pytest.FixtureRequest, quick_bundle: Path, commands: Path, tmp_path: Path, kind: str, says: str
) -> None:
    """Refused, not skipped: the budget, which by default is what happens to be free, changes no score."""
    lot = request.getfixturevalue(kind)
    run = run_here(command(lot, quick_bundle, tmp_path / "out", "--memory-budget", "90M", commands=commands))
    assert run.returncode == 6, run.stderr
    assert says in run.stderr
    assert re.search(r"\d\.(jpg|png) of 1300 x 1000 pixels needs \d+ MB to be decoded", run.stderr)
    assert "--max-pixels 1299999" in run.stderr
    assert not (tmp_path / "out").exists()


def test_bytes_behind_a_png_are_not_read(place: Place, commands: Path) -> None:
    """A sparse file of 6 GB: as a deep PNG it is read whole by OpenCV, up to where its picture ends."""
    deep = np.full((300, 300), 1000, np.uint16)
    path = place.lot / "sparse.png"
    cv2.imwrite(str(path), deep)
    os.truncate(path, 6 * 10**9)
    found = peak(command(place.lot, place.bundle, place.root / "out", "--bit-depth", "16", commands=commands))
    assert found < 700 * MB
