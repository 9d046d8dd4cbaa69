"""Read a folder of results with the standard library and numpy: ``python read_results.py OUT``."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np


def main(out: str) -> None:
    """Print the worst images with the patch that made them so, then what was not scored, and warnings."""
    folder = Path(out)
    with (folder / "scores.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    scored = [row for row in rows if row["status"] == "ok"]
    about = json.loads((folder / "lot.json").read_text())
    by = about["settings"].get("judge_by", "score")  # "raw_score", if the lot was scored so
    for row in sorted(scored, key=lambda row: -float(row[by]))[:5]:
        where = ""
        if row["map"].endswith(".npy"):  # as written by default; empty with --maps none
            values = np.load(folder / row["map"])  # (Gh, Gw), distances
            where = (
                f" at row {values.argmax() // values.shape[1]}, column {values.argmax() % values.shape[1]}"
            )
        print(f"{row[by]} {row['image']}{where}")
    for row in rows:
        if row["status"] != "ok":  # never take these for good
            print(f"not scored: {row['image']}, {row['status']}: {row['error']}")
    print(f"by {about['bundle']['backbone']}, musc-edge {about['versions']['musc-edge']}")
    for text in about["warnings"]:
        print(f"warning: {text}")


if __name__ == "__main__":
    main(sys.argv[1])
