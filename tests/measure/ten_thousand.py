"""10,000 images scored in groups: does it finish, in how much memory and time?

    python tests/measure/ten_thousand.py BUNDLE ELPV WORK [--images N] [--group-size M] [--memory-budget 1G]

ELPV is the unpacked package elpv-dataset 1.0.0.post1: its 2,624 images, as they are, mirrored, upside down
and cropped, and turned, are 10,000 that differ.  WORK is a folder with room for 20 GB; a run that was cut off
goes on there.  Prints what docs/scoring.md states.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

_TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
)
_CROPPED = (15, 15, 285, 285)


def make_lot(lot: Path, sources: list[Path], count: int) -> None:
    """Fill ``lot`` with ``count`` images, each another one."""
    lot.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        path, turn = sources[k % len(sources)], _TURNS[k // len(sources)]
        with Image.open(path) as image:
            changed = image if turn is None else image.transpose(turn)
            cropped = changed.crop(_CROPPED) if turn is Image.Transpose.FLIP_TOP_BOTTOM else changed
            cropped.save(lot / f"{k:05}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("elpv", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--group-size", default="50")
    parser.add_argument("--memory-budget", default="1G")
    args = parser.parse_args()
    lot = args.work / "lot"
    if not lot.exists():
        make_lot(lot, sorted((args.elpv / "elpv_dataset/data/images").iterdir()), args.images)
    options = ["--group-size", args.group_size, "--memory-budget", args.memory_budget, "--maps", "none"]
    command = [sys.executable, "-m", "musc_edge.tools.edge", "infer", str(lot), "-b", str(args.bundle)]
    command += [*options, "-o", str(args.work / "out"), "--resume", "--json"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    about = json.loads(process.stdout.read() or "{}")
    _, status, usage = os.wait4(process.pid, 0)
    code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024 / 1e6
    seconds = time.monotonic() - start
    print(f"exit code {code}, {seconds:.0f} s, peak memory {peak:.0f} MB of {args.memory_budget}")
    shown = ("images", "judges_per_image", "scorer", "plan", "timings_s", "notes")
    print(json.dumps({key: about.get(key) for key in shown}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
