"""Peak memory of lots of large images in tiles, beside what was promised.

    python tests/measure/tiles_memory.py BUNDLE [--images 12] [--side 5000] [--budgets 1000 600] [--tiles 3x3]

Each run is a process of its own: musc-edge infer with a memory budget, overlays and maps on the grid.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

_RUN = """
import sys
from musc_edge.tools.edge import main
code = main(sys.argv[1:])
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


def make_lot(folder: Path, images: int, side: int) -> None:
    """Write JPEG files of a texture, each a little different."""
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), cv2.resize(coarse, (side, side)))


def main() -> None:
    """Print a row of a table for each budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--side", type=int, default=5000)
    parser.add_argument("--budgets", type=int, nargs="+", default=[1000, 600], help="in MB")
    parser.add_argument("--tiles", nargs="+", default=["3x3"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lot = Path(name) / "lot"
        lot.mkdir()
        make_lot(lot, args.images, args.side)
        print("| tiles | budget | promised | peak | files | seconds |\n|---|---|---|---|---|---|")
        for tiles in args.tiles:
            for budget in args.budgets:
                row = _measured(lot, args.bundle, Path(name), tiles, budget)
                print(f"| {tiles} | {budget} MB | {row} |", flush=True)


def _measured(lot: Path, bundle: Path, folder: Path, tiles: str, budget: int) -> str:
    """Score the lot, and return the row: what was promised and what was taken, in MB."""
    out = folder / f"out-{tiles}-{budget}"
    command = ["infer", str(lot), "-b", str(bundle), "-o", str(out), "--tiles", *tiles.split(), "--overlays"]
    command += ["--memory-budget", f"{budget}M", "--method", "paper"]
    begun = time.monotonic()
    run = subprocess.run([sys.executable, "-c", _RUN, *command], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if run.returncode:
        return f"refused: {run.stderr.strip()} |||"
    plan = json.loads((out / "lot.json").read_text(encoding="ascii"))["plan"]
    found = re.search(r"peak (\d+)", run.stdout)
    peak = int(found[1]) * 1024 if found else 0
    sizes = (plan["memory_bytes"], peak, plan["disk_bytes"])
    return " | ".join(f"{size / 1e6:.0f} MB" for size in sizes) + f" | {seconds:.0f}"


if __name__ == "__main__":
    main()
