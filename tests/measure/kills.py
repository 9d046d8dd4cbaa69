"""Kill ``musc-edge infer``, ``reference`` and ``musc-export`` at random moments, and start them again.

    python tests/measure/kills.py [--kills 200] [--seed 0] [--only NAME]

Kills are spread over the cases below.  Each run is ended by SIGKILL (half of them), SIGINT or SIGTERM at a
moment that is drawn from its beginning to 1.2 of what an undisturbed run took; the same command is started
again.  Results are there as a whole or not at all: those of the undisturbed run, by every byte, or, where
earlier ones are replaced, those; after SIGKILL alone these may be away until the next run.  A run that
completes leaves nothing else beside the results, in the folder of temporary files, in the lot.  What one
leaves that SIGKILL ends behind its results is gone when the same command has been started again.

Commands are forked from a process that has imported the libraries (``support/forks.py``), and their time
counts from where they begin.  The last case starts Python itself, and kills it in its first second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.fault_lots import BUNDLE, EDGE, EXPORT, digests, fresh, onnx_source, small_lot, tool
from support.forks import Forked
from support.places import listen_to_interrupts

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
ENDS = (*(-int(each) for each in SIGNALS), 130, 143)
IMAGES = 60
_TOLD = "open({!r}, 'w').close(); "
"""Goes before a command, so that it can be seen that the process that was forked is the command by now."""
PYTHONS_OWN = "init_import_site"
"""An interrupt before Python has started: exit code 1 and this, which no program can change."""


@dataclass
class Case:
    """A command without its output.

    ``earlier`` writes the results that it replaces.  ``real`` starts Python itself, of which the first
    ``seconds`` are tried.
    """

    name: str
    command: list[str]
    earlier: list[str] = field(default_factory=list)
    real: bool = False
    seconds: float = 0.0


def cases(work: Path) -> list[Case]:
    lot = small_lot(work / "lot", IMAGES)
    infer = ["infer", lot, "-b", BUNDLE, "--overlays", "--report"]
    pairs = [*infer, "--scorer", "numpy"]
    (work / "source").mkdir()
    export = onnx_source(work / "source")
    earlier = tool(EDGE, "infer", lot, "-b", BUNDLE, "--maps", "none", "--interval", "0,0.5", "--overwrite")
    return [
        Case("infer", tool(EDGE, *pairs)),
        Case("infer --resume", tool(EDGE, *pairs, "--resume")),
        Case("infer --overwrite --resume", tool(EDGE, *pairs, "--overwrite", "--resume"), earlier),
        Case("infer --group-by folder --resume", tool(EDGE, *pairs, "--group-by", "folder", "--resume")),
        Case("infer --tiles 2x2 --resume", tool(EDGE, *pairs, "--tiles", "2x2", "--resume")),
        Case("infer --method fast --resume", tool(EDGE, *infer, "--method", "fast", "--resume")),
        Case("infer --score-by residual --resume", tool(EDGE, *infer, "--score-by", "residual", "--resume")),
        Case("reference", tool(EDGE, "reference", lot, "-b", BUNDLE)),
        Case("export", tool(EXPORT, *export)),
        Case("start of infer", tool(EDGE, *pairs, "--resume"), real=True, seconds=1.0),
    ]


class Killing:
    """The folder of one case: where it writes, and its folder of temporary files."""

    def __init__(self, case: Case, root: Path, chance: random.Random) -> None:
        self.case, self.root, self.chance = case, root, chance
        self.out, self.temporary = root / "results" / "out", root / "tmp"
        self.expected: dict[str, str] = {}
        self.earlier: dict[str, str] = {}

    def start(self, command: list[str]) -> Forked | subprocess.Popen[str]:
        command, env = [*command, "-o", str(self.out)], {"TMPDIR": str(self.temporary)}
        if self.case.real:
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            return subprocess.Popen(command, env={**os.environ, **env}, text=True, **pipes)
        began = self.root / "began"
        began.unlink(missing_ok=True)
        command[2] = _TOLD.format(str(began)) + command[2]
        run = Forked(command, env=env, prepare=listen_to_interrupts)
        while not began.exists() and run.poll() is None:
            time.sleep(0.001)
        return run

    def undisturbed(self, command: list[str]) -> tuple[dict[str, str], float]:
        """Digests of what a run without kills writes, and its seconds from where it begins."""
        code, err, _, seconds = self._run(command, None)
        assert code == 0, err
        return digests(self.out), seconds

    def kill(self, kills: int) -> str:
        """Kill ``kills`` runs, complete the last one, and return what is wrong, or nothing."""
        for folder in (self.out.parent, self.temporary):
            fresh(folder)
        self.expected, seconds = self.undisturbed(self.case.command)
        self._begin_anew()
        done = completed = behind = 0
        while True:
            after = self.chance.uniform(0, self.case.seconds or 1.2 * seconds) if done < kills else None
            code, err, sent, took = self._run(self.case.command, after)
            done += sent != 0
            if not sent:  # the machine may be less busy now
                seconds = min(seconds, took)
            found = digests(self.out) if self.out.exists() else None
            if found == self.expected:
                completed += 1
                behind += sent == signal.SIGKILL and bool(self._left())
                if problem := self._behind(sent):
                    return problem
                self._begin_anew()
                if after is None:
                    break
            elif problem := self._unfinished(found, code, err, sent):
                return problem
        times = f"{done} kills, {completed} times the same bytes, {behind} times with something to clear away"
        print(f"{self.case.name}: {seconds:.1f} s alone; {times}")
        return ""

    def _run(self, command: list[str], after: float | None) -> tuple[int | None, str, int, float]:
        """Run a command, killed ``after`` seconds.

        Returns its exit code, what it complained of, the signal or 0, and its seconds.
        """
        sent = 0
        with self.start(command) as run:
            begin = time.monotonic()
            try:
                run.wait(after)
            except subprocess.TimeoutExpired:
                sent = self.chance.choice(SIGNALS)
                run.send_signal(sent)
                run.wait()
            _, err = run.communicate()
            return run.returncode, err, sent, time.monotonic() - begin

    def _begin_anew(self) -> None:
        """Results are away, or the earlier ones are there."""
        if self.out.exists():
            shutil.rmtree(self.out)
        if self.case.earlier:
            self.earlier, _ = self.undisturbed(self.case.earlier)

    def _unfinished(self, found: dict[str, str] | None, code: int | None, err: str, sent: int) -> str:
        """What is wrong with a run that has not completed."""
        if found is not None and found != self.earlier:
            names = sorted(
                n for n in found.keys() | self.expected.keys() if found.get(n) != self.expected.get(n)
            )
            return f"other bytes: {names[:5]}"
        if found is None and self.case.earlier and sent != signal.SIGKILL:
            return "the earlier results are away"
        if code not in ENDS and not (code == 1 and self.case.real and PYTHONS_OWN in err):
            return f"exit code {code}: {err[-500:]}"
        return ""

    def _behind(self, sent: int) -> str:
        """What is wrong beside results that are complete."""
        if sent == signal.SIGKILL and self._left():
            code, err, *_ = self._run([part for part in self.case.command if part != "--overwrite"], None)
            if code != 7 or digests(self.out) != self.expected:
                return f"started again: exit code {code}: {err[-500:]}"
        return f"left behind: {self._left()}" if self._left() else ""

    def _left(self) -> list[str]:
        left = [path.name for path in self.out.parent.iterdir() if path != self.out]
        return left + [f"TMPDIR/{path.name}" for path in self.temporary.iterdir()]


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
