"""Kill ``musc-edge infer``, ``reference`` and ``musc-export`` at random moments, and start them again.

    python tests/measure/kills.py [--kills 200] [--seed 0] [--only NAME]

Kills are spread over the cases below.  Each run is ended by SIGKILL (half of them), SIGINT or SIGTERM at a
moment that is drawn from its beginning to 1.2 of what an undisturbed run took; the same command is started
again.  A run that completes in spite of it, and the last one, must have written the bytes of the undisturbed
run, and nothing else may be left: beside the results, in the folder of temporary files, in the lot.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.fault_lots import BUNDLE, EDGE, EXPORT, digests, fresh, onnx_source, small_lot, tool
from support.forks import Forked
from support.places import listen_to_interrupts

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
ENDS = (*(-int(each) for each in SIGNALS), 130, 143)
IMAGES = 60
_BEGUN = 0.15  # seconds after which the process that was forked is the command, and ends as it does


@dataclass
class Case:
    """A command without its output."""

    name: str
    command: list[str]


def cases(work: Path) -> list[Case]:
    lot = small_lot(work / "lot", IMAGES)
    infer = ["infer", lot, "-b", BUNDLE, "--overlays", "--report"]
    pairs = [*infer, "--scorer", "numpy"]
    (work / "source").mkdir()
    export = onnx_source(work / "source")
    return [
        Case("infer", tool(EDGE, *pairs)),
        Case("infer --resume", tool(EDGE, *pairs, "--resume")),
        Case("infer --group-by folder --resume", tool(EDGE, *pairs, "--group-by", "folder", "--resume")),
        Case("infer --tiles 2x2 --resume", tool(EDGE, *pairs, "--tiles", "2x2", "--resume")),
        Case("infer --method fast --resume", tool(EDGE, *infer, "--method", "fast", "--resume")),
        Case("infer --score-by residual --resume", tool(EDGE, *infer, "--score-by", "residual", "--resume")),
        Case("reference", tool(EDGE, "reference", lot, "-b", BUNDLE)),
        Case("export", tool(EXPORT, *export)),
    ]


class Killing:
    """The folder of one case: where it writes, and its folder of temporary files."""

    def __init__(self, case: Case, root: Path, chance: random.Random) -> None:
        self.case, self.root, self.chance = case, root, chance
        self.out, self.temporary = root / "results" / "out", root / "tmp"

    def start(self) -> Forked:
        command = [*self.case.command, "-o", str(self.out)]
        return Forked(command, env={"TMPDIR": str(self.temporary)}, prepare=listen_to_interrupts)

    def undisturbed(self) -> tuple[dict[str, str], float]:
        """Digests of what a run without kills writes, and its seconds."""
        for folder in (self.out.parent, self.temporary):
            fresh(folder)
        begin = time.monotonic()
        with self.start() as run:
            code = run.wait(600)
            assert code == 0, run.communicate()[1]
        return digests(self.out), time.monotonic() - begin

    def kill(self, kills: int) -> str:
        """Kill ``kills`` runs, complete the last one, and return what is wrong, or nothing."""
        expected, seconds = self.undisturbed()
        for folder in (self.out.parent, self.temporary):
            fresh(folder)
        done = completed = 0
        while True:
            with self.start() as run:
                try:
                    run.wait(None if done == kills else self.chance.uniform(_BEGUN, 1.2 * seconds))
                except subprocess.TimeoutExpired:
                    run.send_signal(self.chance.choice(SIGNALS))
                    run.wait()
                    done += 1
                code, (_, err) = run.returncode, run.communicate()
            if self.out.exists():
                completed += 1
                if problem := self._problem(expected):
                    return problem
                shutil.rmtree(self.out)
                if done == kills:
                    break
            elif code not in ENDS:
                return f"exit code {code}: {err[-500:]}"
        print(f"{self.case.name}: {seconds:.1f} s alone; {done} kills, {completed} times the same bytes")
        return ""

    def _problem(self, expected: dict[str, str]) -> str:
        """What is wrong with results that are there."""
        found = digests(self.out)
        if found != expected:
            names = sorted(
                name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
            )
            return f"other bytes: {names[:5]}"
        left = [path.name for path in self.out.parent.iterdir() if path != self.out]
        left += [f"TMPDIR/{path.name}" for path in self.temporary.iterdir()]
        return f"left behind: {left}" if left else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    chance, wrong = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory(prefix="kills_") as work:
        found = [case for case in cases(Path(work)) if case.name.startswith(args.only)]
        lot = digests(Path(work) / "lot")
        for number, case in enumerate(found):
            kills = args.kills // len(found) + (number < args.kills % len(found))
            if problem := Killing(case, Path(work) / f"case{number}", chance).kill(kills):
                wrong += 1
                print(f"{case.name}: WRONG: {problem}")
            sys.stdout.flush()
        wrong += digests(Path(work) / "lot") != lot
    print(json.dumps({"kills": args.kills, "cases": len(found), "wrong": wrong}))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
