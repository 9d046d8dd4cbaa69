"""Let images come into a watched folder by the thousand, and print memory, files and threads of the program.

    python tests/measure/watch_soak.py [--images 20000]                                 # with the tiny ViT
    python tests/measure/watch_soak.py --images 1000 -b BUNDLE --photos FOLDER          # with a real one

Without ``--photos`` images are small synthetic parts.  With it, they are the photos of FOLDER with a little
noise, and the reference is made of its first 40 with the bundle.  They come as fast as they are checked, at
most 100 ahead, and stay in the folder, 1,000 in each subfolder.  A tenth of the synthetic ones are rejected,
and a 25th damaged.  At the end the results are checked as in ``watch_kills.py``.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge import ReferenceOptions, list_lot, make_reference
from musc_edge.runtime.images.reading import read_image
from support import watching
from support.references import BUNDLE

AHEAD = 100
DIFFERENT = 200
OF_REFERENCE = 40
COMMAND = [sys.executable, "-m", "musc_edge.tools.edge"]


class Count:
    """How many lines a growing file has, without reading it anew."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self.lines = path, 0, 0

    def __call__(self) -> int:
        with self._path.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        self._at, self.lines = self._at + len(content), self.lines + content.count(b"\n")
        return self.lines


@cache
def part(number: int) -> bytes:
    content = watching.png(number, watching.SPOT if number % 10 == 0 else 0)
    return content[: len(content) // 2] if number % 25 == 0 else content


def synthetic(number: int) -> bytes:
    return part(number % DIFFERENT)  # to make each anew would take as long as to check it


def photos(folder: Path) -> Callable[[int], bytes]:
    """Photos with a little noise, so that none is like another."""
    pictures = [np.asarray(read_image(image.path), np.float32) for image in list_lot(folder)]

    def photo(number: int) -> bytes:
        pixels = pictures[number % len(pictures)]
        noisy = pixels + np.random.default_rng(number).normal(0, 2, pixels.shape)
        content = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(content, "PNG", compress_level=1)
        return content.getvalue()

    return photo


def resources(process: int) -> tuple[float, int, int]:
    """Resident memory in MB, open files and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return int(status["VmRSS"].split()[0]) / 1000, files, int(status["Threads"])


def row(done: int, seconds: float, process: int, out: Path) -> str:
    """A row of the table."""
    memory, files, threads = resources(process)
    log = sum((out / name).stat().st_size for name in ("results.sqlite", "results.csv", "results.jsonl"))
    return f"| {done:,} | {seconds:.0f} | {memory:.1f} | {files} | {threads} | {log / 1e6:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("-b", "--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--photos", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watch_soak_") as name:
        return soak(Path(name), args)


def soak(work: Path, args: argparse.Namespace) -> int:
    folder, out = work / "in", work / "out"
    folder.mkdir()
    if args.photos:
        images, image = list_lot(args.photos)[:OF_REFERENCE], photos(args.photos)
        make_reference(images, args.bundle, work / "ref", options=ReferenceOptions(hold_out=0.5))
    else:
        watching.make_reference(work)
        image = synthetic
    command = watching.watch_command(folder, work / "ref", out, bundle=args.bundle)
    expected: Counter[str] = Counter()
    with (work / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, *command], stdout=log, stderr=log)
    watching.wait_for(lambda: b"watching " in (work / "log").read_bytes())
    done = Count(out / "results.jsonl")
    print("| images | seconds | memory, MB | files | threads | log, MB |\n|---|---|---|---|---|---|")
    begun, step = time.monotonic(), max(1, args.images // 10)
    for number in range(1, args.images + 1):
        path = folder / f"{number // 1000:03d}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".part").write_bytes(image(number))
        path.with_suffix(".part").rename(path)
        expected[f"{path.parent.name}/{path.name}"] += 1
        while number - done() > AHEAD and process.poll() is None:
            time.sleep(watching.TURN)
        if number % step == 0 or number == step // 10:
            watching.wait_for(lambda: done() >= expected.total(), 600)
            print(row(done(), time.monotonic() - begun, process.pid, out), flush=True)
    process.terminate()
    assert process.wait() == 0
    found = list(watching.problems(out, expected))
    print(*found, f"{len(found)} problems", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
