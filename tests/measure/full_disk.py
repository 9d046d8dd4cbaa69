"""Fill a real disk at every stage of ``musc-edge infer`` and ``musc-export``, then give it room again.

    python tests/measure/full_disk.py [--steps 40] [--only NAME]

The disk is a tmpfs in a namespace of its own (``unshare``: as root, or where users may have namespaces).
First the command is run with plenty of room.  Then for each of ``--steps`` sizes
up to what it needed: a new disk of this size, and the command, which must end with exit code 7 and a message
that says what is full, leave no results and nothing temporary (but kept work, where it was asked for); then
the disk gets room, and the same command must end with 0 and the bytes of the first run.  The same again with
plenty of bytes and few files (inodes).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.command_line import Run, run_here
from support.fault_lots import BUNDLE, digests, onnx_source, small_lot

PAGE, PLENTY = 4096, 1 << 28
FULL = re.compile(r"No space left on device|Free room there|Make room")
TIMED = ("lot.json", "report.html", "manifest.json", "probe.npz")


@dataclass(frozen=True)
class Case:
    """A command that writes to ``disk``; ``stays`` are names that may be there after it failed."""

    name: str
    run: Callable[[], Run]
    stays: frozenset[str] = frozenset()


def cases(work: Path, disk: Path) -> list[Case]:
    lot, out = small_lot(work / "lot"), disk / "out"
    infer = ["musc-edge", "infer", str(lot), "-b", str(BUNDLE), "-o", str(out), "--scorer", "numpy"]
    everything = ["--maps", "original", "--map-format", "tiff", "--overlays", "--report"]
    kept = frozenset({".out.kept"})
    export = ["musc-export", *onnx_source(work), "-o", str(out)]
    return [
        Case("infer", lambda: run_here([*infer, *everything])),
        Case("infer --resume", lambda: run_here([*infer, *everything, "--resume"]), kept),
        Case("infer --group-by folder", lambda: run_here([*infer, *everything, "--group-by", "folder"])),
        Case("infer --tiles 2x2 --resume", lambda: run_here([*infer, "--tiles", "2x2", "--resume"]), kept),
        Case("export", lambda: run_here(export)),
    ]


class Disk:
    """A tmpfs that is mounted anew for each try."""

    def __init__(self, point: Path) -> None:
        self.point = point
        point.mkdir()

    def new(self, size: int = PLENTY, files: int = 0) -> None:
        """Mount an empty one of ``size`` bytes and ``files`` inodes (0: as many as there may be)."""
        subprocess.run(["umount", "--lazy", str(self.point)], check=False, stderr=subprocess.DEVNULL)
        options = f"size={size},nr_inodes={files}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(self.point)], check=True)

    def give_room(self) -> None:
        options = f"remount,size={PLENTY},nr_inodes=0"
        subprocess.run(["mount", "-o", options, str(self.point)], check=True)

    @property
    def used(self) -> int:
        found = os.statvfs(self.point)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def try_all(case: Case, disk: Disk, steps: int) -> bool:
    """Try a case with all sizes; print what happened, and return whether all was well."""
    disk.new()
    first = case.run()
    assert first.returncode == 0, first.stderr
    expected, needed = digests(disk.point / "out", TIMED), disk.used
    files = sum(1 for _ in disk.point.rglob("*")) + 1
    sizes = sorted({max(PAGE, needed * k // steps // PAGE * PAGE) for k in range(1, steps + 1)})
    counts = sorted({max(2, files * k // steps) for k in range(1, steps + 1)})
    tries = [(size, 0) for size in sizes] + [(PLENTY, count) for count in counts]
    said: Counter[str] = Counter()
    wrong = []
    for size, inodes in tries:
        disk.new(size, inodes)
        problem, words = _one(case, disk, expected)
        said[words] += 1
        if problem:
            wrong.append(f"{size} bytes, {inodes or 'any'} files: {problem}")
    print(f"{case.name}: {len(tries)} disks, {needed} bytes and {files} files needed; {dict(said)}")
    print("\n".join(f"  WRONG: {each}" for each in wrong) or "  all as promised", flush=True)
    return not wrong


def _one(case: Case, disk: Disk, expected: dict[str, str]) -> tuple[str, str]:
    """Run a case on a disk that may be too small, and again with room; what is wrong, and what was said."""
    run = case.run()
    if run.returncode == 0:
        same = digests(disk.point / "out", TIMED) == expected
        return ("" if same else "other bytes, and exit code 0"), "it sufficed"
    message = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else ""
    left = {path.name for path in disk.point.iterdir()} - case.stays
    if run.returncode != 7 or "Traceback" in run.stderr or not FULL.search(run.stderr):
        return f"exit code {run.returncode}: {run.stderr[-400:]}", "not as promised"
    if left:
        return f"left behind: {sorted(left)}", "not as promised"
    disk.give_room()
    again = case.run()
    if again.returncode or digests(disk.point / "out", TIMED) != expected:
        return f"with room: exit code {again.returncode}: {again.stderr[-400:]}", "not as promised"
    left = {path.name for path in disk.point.iterdir()} - {"out"}
    if left:
        return f"left behind in the end: {sorted(left)}", "not as promised"
    words = re.sub(
        r"/\S+|\d+(\.\d+)? [kM]?B|\S*\.(npy|tiff|png|json|csv|html|journal|bin|onnx)", "...", message
    )
    return "", words[:90]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", default="")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.inside:
        alone = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
        os.execvp("unshare", [*alone, sys.executable, *sys.argv, "--inside"])
    with tempfile.TemporaryDirectory(prefix="full_disk_") as work:
        disk = Disk(Path(work) / "disk")
        found = [c for c in cases(Path(work), disk.point) if c.name.startswith(args.only)]
        well = [try_all(case, disk, args.steps) for case in found]
        subprocess.run(["umount", "--lazy", str(disk.point)], check=False)
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main())
