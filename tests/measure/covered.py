"""Run the tests and tell which lines of runtime/ they reached, by wing.

    python tests/measure/covered.py [--keep FOLDER] [PYTEST OPTIONS]

Needs coverage (``pip install 'coverage>=7.10'``).  Processes that the tests start or fork are measured too.
Without options the tests are those of ``make test``, in two processes.  What is printed are the lines that
can run, those that ran, and of each file below 95 % those that did not.  ``--keep`` names a folder for
coverage's data, from which ``coverage html`` makes pages; what an earlier run left there counts as well, so
that the tests can be run in parts.  Exit code 1 says that a test failed, or that runtime/ is below 95 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LEAST = 0.95
TESTS = ("-n", "2", "--dist", "worksteal", "-m", "not long")
SETTINGS = """[run]
source_pkgs = musc_edge.runtime
data_file = {folder}/data
parallel = true
concurrency = thread, multiprocessing
patch = subprocess, fork, _exit

[report]
exclude_also = if TYPE_CHECKING:
"""


def measured(folder: Path, tests: list[str]) -> tuple[bool, dict[str, Any]]:
    """Run ``tests``, and return whether they passed, and what coverage says of each file."""
    settings, report = folder / "coverage.ini", folder / "covered.json"
    settings.write_text(SETTINGS.format(folder=folder), encoding="utf-8")

    def coverage(verb: str, *rest: str) -> bool:
        command = [sys.executable, "-m", "coverage", verb, "--rcfile", str(settings), *rest]
        return subprocess.run(command, check=False, cwd=ROOT).returncode == 0

    passed = coverage("run", "-m", "pytest", *tests)
    coverage("combine", "--append", "--quiet")
    if not coverage("json", "-o", str(report), "--quiet"):
        raise SystemExit("coverage has nothing to tell: see above.")
    files: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["files"]
    return passed, files


def show(files: dict[str, Any]) -> float:
    """Print a table of the wings, and which lines are missing; returns the share of all lines that ran."""
    wings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    missing = []
    for path, file in files.items():
        name = path.rpartition("runtime/")[2]
        wing, is_wing, _ = name.partition("/")
        wings[f"{wing}/" if is_wing else "runtime/*.py"].append(file["summary"])
        if file["summary"]["percent_covered"] < 100 * LEAST:
            missing.append(f"{name}: {file['summary']['percent_covered']:.0f} %, without {ranges(file)}")
    wings["all of runtime/"] = [each for found in wings.values() for each in found]
    print("\n| wing | lines | ran | share |\n|---|---|---|---|")
    share = 0.0
    for wing, found in wings.items():
        lines, ran = (sum(each[key] for each in found) for key in ("num_statements", "covered_lines"))
        share = ran / lines
        print(f"| {wing} | {lines:,} | {ran:,} | {100 * share:.1f} % |")
    print("\n".join(["", *missing]))
    return share


def ranges(file: dict[str, Any]) -> str:
    """The lines of a file that did not run, as 3-5, 8."""
    found: list[list[int]] = []
    for line in file["missing_lines"]:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", type=Path, default=ROOT / ".work" / "covered", metavar="FOLDER")
    args, tests = parser.parse_known_args()
    folder = args.keep.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    passed, files = measured(folder, tests or list(TESTS))
    return int(show(files) < LEAST or not passed)


if __name__ == "__main__":
    sys.exit(main())
