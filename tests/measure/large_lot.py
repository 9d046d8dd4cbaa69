"""A lot of 3,000 files, 5 % of each of six kinds damaged: does it finish, is the rest scored, is memory flat?

    python tests/measure/large_lot.py BUNDLE ELPV

ELPV is the unpacked package elpv-dataset 1.0.0.post1.  Prints what docs/large-lot.md states.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.bad_input import Place, float_tiff, giant, truncated, write_bytes

FILES, SHARE = 3000, 0.05
BUDGET = "600M"

DAMAGED: dict[str, Callable[[Place], object]] = {
    "empty": write_bytes("x.png", b""),
    "text": write_bytes("x.jpg", b"not an image"),
    "cut PNG": truncated(0.5, ".png"),
    "cut JPEG": truncated(0.9, ".jpg"),
    "float TIFF": float_tiff,
    "60,000 x 60,000": giant,
}


def make_lot(lot: Path, images: list[Path]) -> Counter[str]:
    """Fill ``lot`` with FILES files; returns how many are damaged in which way."""
    each = int(FILES * SHARE)
    good = FILES - each * len(DAMAGED)
    for k, path in enumerate(itertools.islice(itertools.cycle(images), good)):
        with Image.open(path) as image:
            turned = image if k < len(images) else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            turned.save(lot / f"{k:04}.png")
    for name, make in DAMAGED.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), Path(folder), Path())
            shutil.copy(images[0], place.lot / "0.png")
            make(place)
            (made,) = (path for path in place.lot.iterdir() if path.name != "0.png")
            for k in range(each):
                shutil.copy(made, lot / f"{name.replace(' ', '_').replace(',', '')}_{k:03}{made.suffix}")
    return Counter({"good": good, **dict.fromkeys(DAMAGED, each)})


def watch(process: subprocess.Popen[str]) -> list[tuple[float, int]]:
    """(seconds, private memory in MB) of a running process, twice a second."""
    start, samples = time.monotonic(), []
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
            anonymous = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            samples.append((time.monotonic() - start, anonymous // 1024))
        except (OSError, StopIteration):
            break
        time.sleep(0.5)
    return samples


def main() -> None:
    """Make the lot, score it and print the figures."""
    bundle, elpv = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "lot").mkdir()
        made = make_lot(root / "lot", sorted((elpv / "elpv_dataset/data/images").iterdir()))
        script = str(Path(sys.executable).parent / "musc-edge")
        command = [script, "infer", "lot", "-b", str(bundle), "-o", "out"]
        options = ["--memory-budget", BUDGET, "--degrees", "1", "--maps", "original", "--overlays"]
        with subprocess.Popen([*command, *options], cwd=root, stdout=subprocess.PIPE, text=True) as process:
            samples = watch(process)
            process.communicate()
        with (root / "out/scores.csv").open(encoding="utf-8", newline="") as file:
            status = Counter(row["status"] for row in csv.DictReader(file))
        about = json.loads((root / "out/lot.json").read_text(encoding="ascii"))
        written = sum(1 for path in (root / "out").rglob("*") if path.is_file())
    plan = about["plan"]
    tenths = [samples[len(samples) * k // 10][1] for k in range(1, 10)]
    print(f"files {dict(made)}")
    print(f"exit code {process.returncode}, {dict(status)}, {written} files written, {samples[-1][0]:.0f} s")
    print(f"stages in s {about['timings_s']}")
    print(f"plan {plan['memory_bytes'] / 1e6:.0f} MB of {BUDGET}, tokens on disk: {plan['tokens_on_disk']}, "
          f"distances on disk: {plan['cosines_on_disk']}")  # fmt: skip
    print(f"private memory in MB: at each tenth of the run {tenths}, at most {max(mb for _, mb in samples)}")
    print(f"cores {os.cpu_count()}")


if __name__ == "__main__":
    main()
