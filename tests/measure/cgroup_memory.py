"""Run ``musc-edge infer`` in cgroups with less and less memory: is it ever killed, and does its plan follow?

    python tests/measure/cgroup_memory.py [--limits 600,400,...] [--images 80]

Needs root, and a hierarchy of cgroups, version 2 or 1, with the controller of memory.  Each limit, in MB, is
that of a new cgroup, in which the command begins; the kernel enforces it, page cache included, and swap may
not help.  Every run must end by itself: with the bytes of the run without a limit (exit code 0), or refuse
before the work and say what would suffice (6).  The kernel's own count of processes killed must stay 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.fault_lots import EDGE, EXPORT, digests, small_lot, tool
from support.random_vit import Shape, random_vit

ROOT = Path("/sys/fs/cgroup")
LIMITS = "600,400,300,250,220,200,180,160,140,120,100,80,60"
_ENTER = "import os; open({!r}, 'w').write(str(os.getpid())); "


class Group:
    """A cgroup with a limit of memory."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self._new = folder, (folder.parent / "cgroup.controllers").exists()
        folder.mkdir()
        names = ("memory.max", "memory.swap.max") if self._new else ("memory.limit_in_bytes",)
        for name, value in zip(names, (limit, 0), strict=False):
            (folder / name).write_text(str(value), encoding="ascii")

    @property
    def killed(self) -> int:
        """Processes that the kernel killed for want of memory."""
        file = self.folder / ("memory.events" if self._new else "memory.oom_control")
        words = dict(map(str.split, file.read_text(encoding="ascii").splitlines()))
        return int(words["oom_kill"])

    @property
    def peak(self) -> int:
        """Bytes that were in use at most, those of the page cache included."""
        file = self.folder / ("memory.peak" if self._new else "memory.max_usage_in_bytes")
        return int(file.read_text(encoding="ascii"))


def hierarchy() -> Path:
    """The folder in which a cgroup with a limit of memory can be made."""
    for folder in (ROOT, ROOT / "unified"):
        file = folder / "cgroup.subtree_control"
        if file.exists() and "memory" in file.read_text(encoding="ascii").split():
            return folder
    if (ROOT / "memory" / "memory.limit_in_bytes").exists():
        return ROOT / "memory"
    raise SystemExit(f"no hierarchy in {ROOT} has the controller of memory")


@contextmanager
def limited(megabytes: int) -> Iterator[Group]:
    group = Group(hierarchy() / f"musc_edge_{os.getpid()}_{megabytes}", megabytes * 1_000_000)
    try:
        yield group
    finally:
        for _ in range(100):  # what the process held goes a moment after it
            try:
                group.folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def wide_bundle(folder: Path) -> Path:
    """A ViT of two blocks whose tokens take as much memory as those of DINOv2-S."""
    import onnx

    onnx.save(random_vit(Shape(384, 2, 6, 14, 224)), folder / "vit.onnx")
    options = ["--layers", "0,1", "--taps", "block_{layer}", "--cls", "cls", "--image-size", "224"]
    command = tool(EXPORT, "onnx", folder / "vit.onnx", *options, "-o", folder / "bundle")
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bundle"


def run(command: list[str], out: Path, group: Group | None) -> subprocess.CompletedProcess[str]:
    """Run a command in a cgroup, from its first statement on."""
    command = [*command, "-o", str(out)]
    if group:
        command[2] = _ENTER.format(str(group.folder / "cgroup.procs")) + command[2]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def plan_of(out: Path) -> str:
    plan = json.loads((out / "lot.json").read_text(encoding="ascii"))["plan"]
    return "tokens on disk" if plan["tokens_on_disk"] else "tokens in memory"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limits", default=LIMITS)
    parser.add_argument("--images", type=int, default=80)
    args = parser.parse_args()
    wrong = 0
    print(f"in {hierarchy()}")
    with tempfile.TemporaryDirectory(prefix="cgroup_") as folder:
        work = Path(folder)
        lot = small_lot(work / "lot", args.images)
        options = ["--scorer", "numpy", "--degrees", "1", "--threads", "2", "--overlays"]
        command = tool(EDGE, "infer", lot, "-b", wide_bundle(work), *options)
        assert run(command, work / "free", None).returncode == 0
        expected = digests(work / "free")
        for limit in map(int, args.limits.split(",")):
            with limited(limit) as group:
                begin = time.monotonic()
                ended = run(command, work / f"{limit}", group)
                killed, peak, seconds = group.killed, group.peak / 1e6, time.monotonic() - begin
            if ended.returncode == 0:
                said, well = plan_of(work / f"{limit}"), digests(work / f"{limit}") == expected
            else:
                said, well = (ended.stderr.strip().splitlines() or [""])[-1], ended.returncode in (5, 6)
            wrong += killed > 0 or not well
            print(
                f"{limit:>5} MB: exit code {ended.returncode}, {killed} killed, at most {peak:.0f} MB, "
                f"{seconds:.0f} s; {said}{'' if well and not killed else '  WRONG'}",
                flush=True,
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
