"""Fuzz a reader of the package with coverage guidance, and show how coverage rises and levels off.

    python tests/measure/fuzz.py TARGET [--runs 100000] [--seed 1] [--keep FOLDER]
    python tests/measure/fuzz.py --list

Needs atheris (``pip install atheris``, CPython 3.11 to 3.13).  Coverage counts the branches of this package
alone, and of all of it that is imported after atheris.  Inputs are changed by libFuzzer and by
``support/fuzz_mutators.py``, in turn by chance.  Whatever a target raises is a finding: it is told once for
each place that raises it, and its input is kept.  libFuzzer itself ends the run at a crash of the process, at
an input that takes over 20 s, and above 2 GB of memory.  Exit code 1 says that something was found.

"decoders" is the one target without coverage: the whole way from a file to RGB, Pillow, OpenCV and
imagecodecs included, in child processes of 3 GB of address space.  There a finding is a child that died, that
raised anything but a refusal, or that took over 20 s.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

PULSE = re.compile(r"#(\d+)\t\w+ +cov: (\d+) ft: (\d+) corp: (\d+)")
DECODERS = "decoders"
FOUND = "FINDING"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(".work/fuzz"), help="folder of inputs that fail")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list or not args.target:
        from support.fuzz_targets import TARGETS

        print("\n".join([*TARGETS, DECODERS]))
        return 0
    keep = (args.keep / args.target).resolve()
    keep.mkdir(parents=True, exist_ok=True)
    if args.inside:
        fuzz(args.target, args.runs, args.seed, keep, args.inside)
    with tempfile.TemporaryDirectory(prefix="fuzz_", dir="/dev/shm") as work:
        if args.target == DECODERS:
            from measure.fuzz_decoders import fuzz_decoders

            return fuzz_decoders(args.runs, args.seed, keep, Path(work))
        return watch(args.target, args.runs, args.seed, keep, Path(work))


# ---- inside of the process that is fuzzed ----------------------------------------------------


def fuzz(name: str, runs: int, seed: int, keep: Path, work: Path) -> None:
    """Run the target under libFuzzer; ends the process."""
    import atheris

    # For other targets than images, whose table of containers needs them, nothing else need be instrumented.
    with atheris.instrument_imports(include=["musc_edge"]):
        from support.fuzz_targets import SEEDS, TARGETS
    target = TARGETS[name]
    (work / "begin").mkdir()
    (work / "read").mkdir()
    kept = [path.read_bytes() for path in sorted((SEEDS / name).glob("*"))]
    for number, content in enumerate([*target.begin(work / "begin"), *kept]):
        (work / "corpus" / f"{number}").write_bytes(content)
    read = told_once(target.prepare(work / "read"), keep)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.3:
            changed: bytes = atheris.Mutate(data, longest)
            return changed
        return target.mutate(data, chance)[:longest]

    options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={target.longest}", "-timeout=20"]
    options += ["-rss_limit_mb=2048", f"-artifact_prefix={keep}/", str(work / "corpus")]
    atheris.Setup([sys.argv[0], *options], read, custom_mutator=mutate)
    atheris.Fuzz()


def told_once(read: Callable[[bytes], None], keep: Path) -> Callable[[bytes], None]:
    """Print each kind of error once, keep its input, and go on."""
    seen: set[str] = set()

    def reading(data: bytes) -> None:
        try:
            read(data)
        except Exception as error:
            raised = traceback.extract_tb(error.__traceback__)
            # Behind the frame of this function.  What a target itself asserts is not of the package.
            frames = [frame for frame in raised[1:] if "musc_edge" in frame.filename] or raised
            place = f"{Path(frames[-1].filename).name}_{frames[-1].name}"
            kind = f"{type(error).__name__}-{place}"
            if kind not in seen:
                seen.add(kind)
                (keep / kind).write_bytes(data)
                print(
                    f"{FOUND} {kind}: {str(error)[:200]} at {frames[-1].filename}:{frames[-1].lineno}",
                    flush=True,
                )

    return reading


# ---- outside ---------------------------------------------------------------------------------


def watch(name: str, runs: int, seed: int, keep: Path, work: Path) -> int:
    """Start the process that is fuzzed, and print a row each time that its executions have doubled."""
    (work / "corpus").mkdir()
    command = [sys.executable, __file__, name, "--runs", str(runs), "--seed", str(seed)]
    command += ["--keep", str(keep.parent), "--inside", str(work)]
    rows: list[tuple[int, int, int, int]] = []
    findings, start, tail = [], time.monotonic(), ""
    print(f"{'executions':>10} {'branches':>9} {'features':>9} {'inputs':>7} {'seconds':>8}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            tail = line.strip() or tail
            if found := PULSE.match(line):
                row = tuple(map(int, found.groups()))
                if not rows or row[0] >= 2 * rows[-1][0] or "DONE" in line:
                    rows.append(row)  # type: ignore[arg-type]
                    seconds = time.monotonic() - start
                    print(f"{row[0]:>10} {row[1]:>9} {row[2]:>9} {row[3]:>7} {seconds:>8.0f}", flush=True)
            elif line.startswith(FOUND) or "ERROR" in line:
                findings.append(line.strip())
                print(line.strip(), flush=True)
    if not rows or process.returncode:
        print(f"the fuzzed process ended with {process.returncode}: {tail}")
        return 1
    half = max((row for row in rows if row[0] <= rows[-1][0] / 2), default=rows[0])
    gained = 100 * (rows[-1][1] - half[1]) / max(1, rows[-1][1])
    print(
        f"{name}: {rows[-1][0]} executions, {rows[-1][1]} branches, {gained:.1f}% of them since execution "
        f"{half[0]}; {len(findings)} findings"
    )
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
