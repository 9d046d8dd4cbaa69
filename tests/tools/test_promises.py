"""What is promised before the work is kept: peak memory of real processes, whatever is read and written.

The lots are small and their images large, so that images are what takes memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from support.bad_input import Place
from support.command_line import run_here

MB = 10**6
SIDE = 1600, 2000  # pixels: a JPEG of 3 megapixels takes 45 MB to decode, a deep PNG 160 MB
COUNT = 6


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


def peak(run: list[str]) -> int:
    """Run a command; the peak of its resident memory in bytes, as the system reports it."""
    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()
    return usage.ru_maxrss * 1024


@pytest.mark.parametrize(
    ("kind", "options", "budget"),
    [
        ("jpegs", [], None),
        ("jpegs", ["--overlays"], None),
        ("jpegs", ["--overlays", "--maps", "original", "--map-format", "tiff"], 400),
        ("deep", ["--overlays"], None),
        ("deep", ["--maps", "original", "--map-format", "png16"], 550),
    ],
)
def test_memory_is_what_was_promised(
    request: pytest.FixtureRequest, quick_bundle: Path, commands: Path, tmp_path: Path,
    kind: str, options: list[str], budget: int | None,
) -> None:  # fmt: skip
    """Case 17."""
    lot, out = request.getfixturevalue(kind), tmp_path / "out"
    given = ["--memory-budget", f"{budget}M"] if budget else []
    found = peak(command(lot, quick_bundle, out, *options, *given, commands=commands))
    about = json.loads((out / "lot.json").read_bytes())
    plan = about["plan"]
    assert found <= plan["memory_bytes"] <= (budget * MB if budget else plan["budget"])
    assert found > plan["memory_bytes"] / 2  # a promise of anything at all would be kept as well
    assert not any("memory" in text for text in about["warnings"])
    if budget:
        largest = max(plan["decoding_bytes"], plan["writing_bytes"])
        assert largest < 4 * SIDE[0] * SIDE[1] * (14 if kind == "jpegs" else 50)  # fewer at a time


@pytest.mark.parametrize(
    ("kind", "says"), [("jpegs", "smallest that works"), ("deep", "of the memory budget are left")]
)
def test_an_image_too_large_for_the_budget_is_named(
    request: pytest.FixtureRequest, quick_bundle: Path, commands: Path, tmp_path: Path, kind: str, says: str
) -> None:
    """Refused, not skipped: the budget, which by default is what happens to be free, never changes a score."""
    lot = request.getfixturevalue(kind)
    run = run_here(command(lot, quick_bundle, tmp_path / "out", "--memory-budget", "90M", commands=commands))
    assert run.returncode == 6, run.stderr
    assert says in run.stderr
    assert re.search(r"\d\.(jpg|png) of 2000 x 1600 pixels needs \d+ MB to be decoded", run.stderr)
    assert "--max-pixels 3199999" in run.stderr
    assert not (tmp_path / "out").exists()


def test_bytes_behind_a_png_are_not_read(place: Place, commands: Path) -> None:
    """A sparse file of 6 GB: as a deep PNG it is read whole by OpenCV, up to where its picture ends."""
    deep = np.full((300, 300), 1000, np.uint16)
    path = place.lot / "sparse.png"
    cv2.imwrite(str(path), deep)
    os.truncate(path, 6 * 10**9)
    found = peak(command(place.lot, place.bundle, place.root / "out", "--bit-depth", "16", commands=commands))
    assert found < 700 * MB
