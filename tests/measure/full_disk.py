"""Fill a real disk at every stage of ``musc-edge infer`` and ``musc-export``, then give it room again.

    python tests/measure/full_disk.py [--steps 40] [--only NAME]

The disk is a tmpfs in a namespace of its own (``unshare``: as root, or where users may have namespaces).
First the command is run with plenty of room.  Then for each of ``--steps`` sizes
up to what it needed: a new disk of this size, and the command, which must end with exit code 7 and a message
that says what is full, leave no results and nothing temporary (but kept work, where it was asked for); then
the disk gets room, and the same command must end with 0 and the bytes of the first run.  The same again with
plenty of bytes and few files (inodes).

In the case "export, filled amid" another writer takes all bytes but a few as the command opens its first, its
second ... file: the room for the whole bundle was there when it looked.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.command_line import Run, run_here
from support.fault_lots import BUNDLE, digests, onnx_source, small_lot

PAGE, PLENTY = 4096, 1 << 28
FULL = re.compile(r"No space left on device|Free room there|Make room")
TIMED = ("lot.json", "report.html", "manifest.json", "probe.npz")


@dataclass(frozen=True)
class Case:
    """A command that writes to ``disk``; ``stays`` are names that may be there after it failed.

    ``amid``: the disk is filled while the command runs.
    """

    name: str
    run: Callable[[], Run]
    stays: frozenset[str] = frozenset()
    amid: bool = False


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
        Case("export, filled amid", lambda: run_here(export), amid=True),
    ]


class Disk:
    """A tmpfs that is mounted anew for each try."""

    def __init__(self, point: Path) -> None:
        self.point, self._filled = point, point / ".filled"
        point.mkdir()
        self.fill_at, self._opened, self.leave = 0, 0, 0
        sys.addaudithook(self._watch)

    def new(self, size: int = PLENTY, files: int = 0) -> None:
        """Mount an empty one of ``size`` bytes and ``files`` inodes (0: as many as there may be)."""
        subprocess.run(["umount", str(self.point)], check=os.path.ismount(self.point))
        options = f"size={size},nr_inodes={files}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(self.point)], check=True)

    def give_room(self) -> None:
        self._filled.unlink(missing_ok=True)
        options = f"remount,size={PLENTY},nr_inodes=0"
        subprocess.run(["mount", "-o", options, str(self.point)], check=True)

    def fill_as_it_opens(self, number: int, leave: int) -> None:
        """Fill it but for ``leave`` bytes when file ``number`` of a new folder is opened to write."""
        self.fill_at, self._opened, self.leave = number, 0, leave

    def _watch(self, event: str, about: tuple[Any, ...]) -> None:
        if event != "open" or not self.fill_at or not isinstance(about[0], str | os.PathLike):
            return
        if "/.out.partial/" not in os.fspath(about[0]) or not about[2] & (os.O_WRONLY | os.O_RDWR):
            return
        self._opened += 1
        if self._opened == self.fill_at:
            self.fill_at = 0
            found = os.statvfs(self.point)
            with self._filled.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, found.f_bfree * found.f_frsize - self.leave)

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
    said: Counter[str] = Counter()
    wrong = []
    tries = _amid(needed, files, steps) if case.amid else _small(needed, files, steps)
    for size, inodes, fill_at in tries:
        disk.new(PLENTY if fill_at else size, inodes)
        disk.fill_as_it_opens(fill_at, size)
        problem, words = _one(case, disk, expected)
        said[words] += 1
        if problem:
            wrong.append(f"{size} bytes, {inodes or 'any'} files, filled at {fill_at}: {problem}")
    print(f"{case.name}: {len(tries)} disks, {needed} bytes and {files} files needed; {dict(said)}")
    print("\n".join(f"  WRONG: {each}" for each in wrong) or "  all as promised", flush=True)
    return not wrong


def _small(needed: int, files: int, steps: int) -> list[tuple[int, int, int]]:
    """Disks of too few bytes, and of too few files."""
    sizes = sorted({max(PAGE, needed * k // steps // PAGE * PAGE) for k in range(1, steps + 1)})
    counts = sorted({max(2, files * k // steps) for k in range(1, steps + 1)})
    return [(size, 0, 0) for size in sizes] + [(PLENTY, count, 0) for count in counts]


def _amid(needed: int, files: int, steps: int) -> list[tuple[int, int, int]]:
    """What is left of a disk that is filled as each of the files is opened."""
    lefts = sorted({needed * k // steps // PAGE * PAGE for k in range(steps)})
    return [(left, 0, number) for number in range(1, files + 1) for left in lefts]


def _one(case: Case, disk: Disk, expected: dict[str, str]) -> tuple[str, str]:
    """Run a case on a disk that may be too small, and again with room; what is wrong, and what was said."""
    run = case.run()
    left = {path.name for path in disk.point.iterdir()} - case.stays - {".filled"}
    if run.returncode == 0:
        same = digests(disk.point / "out", TIMED) == expected
        return ("" if same else "other bytes, and exit code 0"), "it sufficed"
    message = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else ""
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
        subprocess.run(["umount", str(disk.point)], check=True)
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main())
