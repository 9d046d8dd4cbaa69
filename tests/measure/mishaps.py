"""Meddle with the output or the lot at random moments of ``musc-edge infer``, and look at what comes of it.

    python tests/measure/mishaps.py [--tries 60] [--seed 0] [--only NAME]

As root, or where users may have namespaces: the output lies on a tmpfs, which one of the mishaps makes
read-only.  The moment is drawn from the command's beginning to where an undisturbed run ends; a run that has
ended by then does not count.  No run may end by a traceback, or by an exit code that is not told.

A run whose output was meddled with completes, with the bytes of an undisturbed one, or ends with exit code 7,
and leaves what somebody else put there and nothing of its own; once that is away, the same command completes.
A run whose lot was meddled with scores the lot as it was, as it is now, or without the image: the scores and
maps of one of these, by every byte.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.fault_lots import BUNDLE, EDGE, digests, fresh, small_lot, tool
from support.forks import Forked
from support.references import part

IMAGES = 60
VICTIM = "a/7.png"
_TOLD = "open({!r}, 'w').close(); "
Found = dict[str, str]


class Place:
    """A lot, and a disk for the output."""

    def __init__(self, root: Path) -> None:
        self.root, self.lot, self.disk = root, root / "lot", root / "disk"
        self.out = self.disk / "results" / "out"
        self.partial = self.out.with_name(".out.partial")
        self.victim = self.lot / VICTIM
        small_lot(self.lot, IMAGES)
        self._whole = shutil.copytree(self.lot, root / "whole")
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(self.disk)], check=True)

    def begin_anew(self) -> None:
        self.mount("rw")
        fresh(self.out.parent)
        shutil.rmtree(self.lot)
        shutil.copytree(self._whole, self.lot)

    def mount(self, mode: str) -> None:
        """Make the disk writable, or not, as soon as no file is open to write."""
        while subprocess.run(
            ["mount", "-o", f"remount,{mode}", str(self.disk)], check=False, capture_output=True
        ).returncode:
            time.sleep(0.001)

    def start(self, *options: str) -> Forked:
        """The command, once it has begun."""
        began = self.root / "began"
        began.unlink(missing_ok=True)
        command = tool(EDGE, "infer", self.lot, "-b", BUNDLE, "-o", self.out, "--scorer", "numpy", *options)
        command[2] = _TOLD.format(str(began)) + command[2]
        run = Forked(command)
        while not began.exists() and run.poll() is None:
            time.sleep(0.001)
        return run

    def results(self) -> Found:
        """Digests of the maps, and the lines of scores, without those of the victim."""
        maps = {f"maps/{name}": value for name, value in digests(self.out / "maps").items()}
        lines = (self.out / "scores.csv").read_text(encoding="utf-8").splitlines()
        rows = {line.split(",")[0]: line for line in lines}
        return {
            name: value
            for name, value in {**maps, **rows}.items()
            if VICTIM.split(".", maxsplit=1)[0] not in name
        }

    def complete(self) -> Found:
        """The results of a run that nobody meddles with."""
        fresh(self.out.parent)
        with self.start("--overlays", "--report") as run:
            code = run.wait(600)
            assert code in (0, 3), run.communicate()[1]
        assert [path.name for path in self.out.parent.iterdir()] == ["out"]
        return self.results()


# ---- what may happen -------------------------------------------------------------------------


def taken(place: Place) -> None:
    place.out.mkdir()
    (place.out / "theirs").write_text("theirs", encoding="utf-8")


def replaced(place: Place) -> None:
    shutil.rmtree(place.partial)
    place.partial.mkdir()
    (place.partial / "theirs").write_text("theirs", encoding="utf-8")


def another_image(place: Place) -> None:
    part(99, 200.0).save(place.root / "other.png")
    (place.root / "other.png").rename(place.victim)


def appended(place: Place) -> None:
    with place.victim.open("ab") as file:
        file.write(b"more" * 100)


def folder_instead(place: Place) -> None:
    place.victim.unlink()
    place.victim.mkdir()


def pipe_instead(place: Place) -> None:
    place.victim.unlink()
    os.mkfifo(place.victim)


OF_OUTPUT: dict[str, Callable[[Place], object]] = {
    "output: its name is taken": taken,
    "output: what is half written is removed": lambda p: shutil.rmtree(p.partial),
    "output: what is half written is moved": lambda p: p.partial.rename(p.disk / "moved"),
    "output: what is half written is replaced": replaced,
    "output: its folder is removed": lambda p: shutil.rmtree(p.out.parent),
    "output: its folder is moved": lambda p: p.out.parent.rename(p.disk / "elsewhere"),
    "output: its disk becomes read-only": lambda p: p.mount("ro"),
}
OF_LOT: dict[str, Callable[[Place], object]] = {
    "lot: an image is removed": lambda p: p.victim.unlink(),
    "lot: an image is replaced": another_image,
    "lot: an image is appended to": appended,
    "lot: an image is cut": lambda p: os.truncate(p.victim, 300),
    "lot: an image becomes a folder": folder_instead,
    "lot: an image becomes a pipe": pipe_instead,
}


def try_once(
    name: str, place: Place, expected: Found, seconds: float, chance: random.Random
) -> tuple[str, str]:
    """Meddle once: what is wrong, or nothing, and how the run ended; nothing if it had ended before."""
    place.begin_anew()
    options = ["--overlays", "--report", *(["--resume"] if chance.random() < 0.5 else [])]
    with place.start(*options) as run:
        time.sleep(chance.uniform(0, seconds))
        if run.poll() is not None:
            return "", ""
        with suppress(OSError):  # what is not there (yet, or any more) cannot be removed
            {**OF_OUTPUT, **OF_LOT}[name](place)
        code = run.wait(120)
        err = run.communicate()[1]
    if code not in (0, 3, 6, 7) or "Traceback" in err:
        return f"exit code {code}: {err[-600:]}", "not as promised"
    looked = _output(place, code, expected) if name in OF_OUTPUT else _lot(place, code, expected)
    return looked, f"exit code {code}"


def _output(place: Place, code: int, expected: Found) -> str:
    """What is wrong after somebody meddled with the output."""
    place.mount("rw")
    if code == 0:  # or it was meddled with behind it
        wrong = (place.out / "scores.csv").exists() and place.results() != expected
        return "other results" if wrong else ""
    if code != 7:
        return f"exit code {code}"
    for path in list(place.disk.rglob("theirs")):
        if path.read_text(encoding="utf-8") != "theirs":
            return "what somebody else had there was changed"
        shutil.rmtree(path.parent)
    for name in ("moved", "elsewhere"):
        shutil.rmtree(place.disk / name, ignore_errors=True)
    place.out.parent.mkdir(exist_ok=True)
    left = {path.name for path in place.out.parent.iterdir()} - {".out.kept", ".out.lock", ".out.partial"}
    if left:
        return f"left behind: {left}"
    with place.start("--overlays", "--report", "--resume") as run:
        code = run.wait(120)
        err = run.communicate()[1]
    if code != 0 or place.results() != expected:
        return f"started again: exit code {code}: {err[-400:]}"
    left = {path.name for path in place.out.parent.iterdir()} - {"out"}
    return f"left behind in the end: {left}" if left else ""


def _lot(place: Place, code: int, expected: Found) -> str:
    """What is wrong after somebody meddled with the lot."""
    if code not in (0, 3):
        return f"exit code {code}"
    left = {path.name for path in place.out.parent.iterdir()} - {"out"}
    if left:
        return f"left behind: {left}"
    found = place.results()
    if found == expected or found == place.complete():
        return ""
    with suppress(OSError):
        shutil.rmtree(place.victim) if place.victim.is_dir() else place.victim.unlink()
    return "" if found == place.complete() else "scores of no lot that there was"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.inside:
        alone = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
        os.execvp("unshare", [*alone, sys.executable, *sys.argv, "--inside"])
    chance = random.Random(args.seed)
    names = [name for name in (*OF_OUTPUT, *OF_LOT) if name.startswith(args.only)]
    ends: dict[str, Counter[str]] = {name: Counter() for name in names}
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="mishaps_") as folder:
        place = Place(Path(folder))
        try:
            place.complete()
            begin = time.monotonic()
            expected = place.complete()
            seconds = time.monotonic() - begin
            while (done := sum(map(Counter.total, ends.values()))) < args.tries:
                name = names[done % len(names)]
                problem, ended = try_once(name, place, expected, seconds, chance)
                if not ended:  # the machine is less busy now
                    seconds *= 0.9
                    continue
                ends[name][ended] += 1
                if problem:
                    wrong += 1
                    print(f"  WRONG: {name}: {problem}", flush=True)
        finally:
            subprocess.run(["umount", "--lazy", str(place.disk)], check=True)
    for name, each in ends.items():
        print(f"{name}: {dict(sorted(each.items()))}")
    print(f"{args.tries} mishaps, {seconds:.1f} s alone; {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
