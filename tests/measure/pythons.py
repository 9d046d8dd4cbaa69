"""Install the package for several Pythons, with pinned and with lowest versions, and compare what they score.

    python tests/measure/pythons.py BUNDLE LOT 3.11 3.10 3.12 3.13 [--lowest] [--images 12] [--keep FOLDER]

Needs uv (`pip install uv`), which finds each Python by its version or path, and the network.  A wheel of the
checkout is built once.  For each Python it is installed into a virtual environment of its own with the extras
cpu and fast: with the versions of constraints.txt and, with --lowest, also with the lowest ones that
pyproject.toml allows and that have a wheel for that Python.  Each environment scores the first images of LOT
by numba and by numpy.  The table has the largest difference from the first row's scores by numba.

Exit code 1: an environment could not be made, an image was not scored, or a raw score differs by more than
--tolerance.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
EXTRAS = "cpu,fast"
LIBRARIES = {
    "numpy": "numpy",
    "opencv-python-headless": "OpenCV",
    "pillow": "Pillow",
    "onnxruntime": "ONNX Runtime",
    "threadpoolctl": "threadpoolctl",
    "numba": "numba",
}
SCORERS = ("numba", "numpy")
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
VERSIONS = """
import json, platform, sys
from importlib.metadata import version
print(json.dumps([platform.python_version(), *map(version, sys.argv[1:])]))
"""
Scores = dict[str, float]


@dataclass
class Row:
    """What one environment has, pinned versions or the lowest, and what it gave."""

    kind: str
    python: str
    versions: list[str] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""


def run(command: Sequence[str | Path]) -> str:
    """Run a command outside of the checkout, whose modules it must not find; what it prints.

    Raises
    ------
    RuntimeError
        It failed: its last lines.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment, cwd=tempfile.gettempdir(), text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def prepare(args: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """A wheel of the checkout, and a list of the lot's first images, as files in ``work``."""
    names = sorted(path.name for path in args.lot.iterdir() if path.suffix.lower() in IMAGES)[: args.images]
    if len(names) < args.images:
        raise SystemExit(f"{args.lot} has {len(names)} images, fewer than {args.images}.")
    work.mkdir(parents=True, exist_ok=True)
    listed = work / "names.txt"
    listed.write_text("\n".join(names) + "\n", encoding="utf-8")
    run(["uv", "build", "--quiet", "--wheel", "--clear", "--out-dir", work / "wheel", CHECKOUT])
    [wheel] = work.glob("wheel/*.whl")
    return wheel, listed


def environment(place: Path, python: str, wheel: Path, lowest: bool) -> Path:
    """A virtual environment with the wheel in it: its folder of programs."""
    run(["uv", "venv", "--quiet", "--clear", "--python", python, place])
    wheels: list[str | Path] = ["--quiet", "--only-binary", ":all:", "--python", place / "bin/python"]
    versions = CHECKOUT / "constraints.txt"
    if lowest:  # of what pyproject.toml names, not of the wheel, which would be all that is named
        versions = place / "lowest.txt"
        extras = [f"--extra={name}" for name in EXTRAS.split(",")]
        lowest_ones: list[str | Path] = ["--resolution", "lowest-direct", "-o", versions]
        run(["uv", "pip", "compile", *wheels, *lowest_ones, *extras, CHECKOUT / "pyproject.toml"])
    run(["uv", "pip", "install", *wheels, "-c", versions, f"musc-edge[{EXTRAS}] @ {wheel.as_uri()}"])
    return place / "bin"


def score(
    program: Sequence[str | Path], args: argparse.Namespace, names: Path, out: Path, scorer: str
) -> Scores:
    """Raw scores of the listed images, by their names, from a command line of musc-edge."""
    settings = ["--scorer", scorer, "--backend", "cpu", "--maps", "none", "--overwrite"]
    lot = ["--bundle", args.bundle.resolve(), "--list", names, "--out", out, args.lot.resolve()]
    run([*program, "infer", *settings, *lot])
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if unscored := [row["image"] for row in rows if row["status"] != "ok"]:
        raise RuntimeError(f"not scored: {', '.join(unscored)}")
    return {row["image"]: float(row["raw_score"]) for row in rows}


def fill(row: Row, args: argparse.Namespace, work: Path, wheel: Path, names: Path) -> None:
    """Make an environment, and score in it by each scorer."""
    name = f"{row.python}-{row.kind}".replace("/", "_")
    try:
        programs = environment(work / name, row.python, wheel, row.kind == "lowest")
        row.versions = json.loads(run([programs / "python", "-c", VERSIONS, *LIBRARIES]))
        for scorer in SCORERS:
            start = time.perf_counter()
            out = work / f"{name}-{scorer}"
            row.scores[scorer] = score([programs / "musc-edge"], args, names, out, scorer)
            row.seconds[scorer] = time.perf_counter() - start
    except RuntimeError as error:
        row.failed = str(error)


def difference(scores: Scores, first: Scores) -> float:
    """The largest difference of a raw score."""
    if scores.keys() != first.keys():
        raise RuntimeError(f"other images were scored: {sorted(scores.keys() ^ first.keys())}")
    return max(abs(value - first[name]) for name, value in scores.items())


def line(row: Row, first: Scores) -> str:
    """A row of the table."""
    cells = [row.kind, *(row.versions or [row.python])]
    if row.failed:
        return f"| {' | '.join(cells)} | failed: {' '.join(row.failed.split())} |"
    off = [f"{difference(row.scores[scorer], first):.0e}" for scorer in SCORERS]
    return f"| {' | '.join([*cells, *off, *(f'{row.seconds[scorer]:.0f}' for scorer in SCORERS)])} |"


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("lot", type=Path)
    parser.add_argument("pythons", nargs="+", help="versions or paths; the first is compared with")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions as well")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--keep", type=Path, help="where environments and results stay (default: removed)")
    return parser.parse_args()


def main() -> int:
    """Print the table; 1 if something failed or differs."""
    args = arguments()
    kinds = ["pinned", "lowest"] if args.lowest else ["pinned"]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.keep or Path(temporary)).resolve()
        wheel, names = prepare(args, work)
        print(f"{args.images} images of {args.lot.name}, bundle {args.bundle.name}\n")
        heads = ["versions", "Python", *LIBRARIES.values()]
        heads += [f"largest difference by {scorer}" for scorer in SCORERS]
        heads += [f"s by {scorer}" for scorer in SCORERS]
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
        for kind in kinds:
            for python in args.pythons:
                rows.append(Row(kind, python))
                fill(rows[-1], args, work, wheel, names)
                print(line(rows[-1], rows[0].scores.get("numba", {})), flush=True)
    return int(not all(good(row, rows[0], args.tolerance) for row in rows))


def good(row: Row, first: Row, tolerance: float) -> bool:
    """Whether the environment scored, and scored as the first one."""
    if row.failed or first.failed:
        return False
    return all(difference(row.scores[scorer], first.scores["numba"]) <= tolerance for scorer in SCORERS)


if __name__ == "__main__":
    sys.exit(main())
