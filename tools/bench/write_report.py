"""Write a report as JSON, as CSV of every sample, as a table and as a picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from .picture import DRAWN, draw
from .report import PICTURE, REPORT, SAMPLES, TABLE, Report


def write_report(report: Report, table: str, folder: Path) -> None:
    """Write report.json, samples.csv, report.txt and, where there is something to draw, report.png."""
    (folder / REPORT).write_text(json.dumps(report.content(), indent=1) + "\n", encoding="ascii")
    (folder / TABLE).write_text(table + "\n", encoding="utf-8")
    if report.case in DRAWN and report.samples:
        draw(report, folder / PICTURE)
    with (folder / SAMPLES).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("case", "kind", "name", "number", "seconds"))
        for kind, found in (("round", report.samples), ("call", report.calls)):
            for name, seconds in found.items():
                rows.writerows((report.case, kind, name, k, f"{s:.9f}") for k, s in enumerate(seconds))
