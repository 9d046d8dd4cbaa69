"""Write what a lot's scoring gave: scores.csv, lot.json, the anomaly maps and a contact sheet."""

from __future__ import annotations

import csv
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from .anomaly_map import upsample
from .contact_sheet import draw_contact_sheet
from .lot import natural_key
from .types import LotResult, Progress, no_progress

COLUMNS = ("image", "status", "raw_score", "score", "lot_score", "map", "error")
MAP_KINDS = ("grid", "pixel", "none")
CONTACT_SHEET = "contact_sheet.png"
SCORES = "scores.csv"
LOT = "lot.json"


def write_results(
    result: LotResult, folder: Path, root: Path, maps: str = "grid", progress: Progress = no_progress
) -> None:
    """Write all results of a lot into ``folder``, which exists and is empty.

    Parameters
    ----------
    root : the lot's folder, noted in lot.json.
    maps : "grid" for maps on the patch grid, "pixel" for maps at model size, "none" for no maps;
        float32 .npy, one file per image.
    """
    map_names = _write_maps(result, folder, maps, progress)
    _write_scores(result, folder / SCORES, map_names)
    draw_contact_sheet(result, folder / CONTACT_SHEET)
    text = json.dumps(describe(result, root, maps), indent=2)
    (folder / LOT).write_text(text + "\n", encoding="utf-8")


def describe(result: LotResult, root: Path, maps: str) -> dict[str, Any]:
    """The content of lot.json: how the scores came about, and what was left out."""
    manifest = result.bundle.manifest
    return {
        "lot": str(root),
        "images": len(result.images),
        "skipped": [asdict(image) for image in result.skipped],
        "warnings": warnings(result),
        "settings": {**asdict(result.settings), "maps": maps},
        "backend": result.backend,
        "scorer": "numpy",
        "bundle": {
            "path": str(result.bundle.root.resolve()),
            "sha256": result.bundle.digest,
            "backbone": manifest.backbone,
            "precision": manifest.precision,
            "image_size": list(manifest.preprocess.size),
            "layers": list(manifest.layers),
        },
        "plan": {**asdict(result.plan), "memory_bytes": result.plan.memory_bytes},
        "timings_s": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
        "versions": {"musc-edge": __version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def warnings(result: LotResult) -> list[str]:
    """What the user has to know before trusting the scores."""
    if not result.skipped:
        return []
    total = len(result.images) + len(result.skipped)
    return [f"{len(result.skipped)} of {total} images could not be scored; they are listed in {SCORES}"]


def _write_maps(result: LotResult, folder: Path, kind: str, progress: Progress) -> dict[str, str]:
    """Write one map per image; returns the file of each, relative to ``folder``."""
    if kind == "none":
        return {}
    size = result.bundle.manifest.preprocess.size
    names = {}
    for i, image in enumerate(result.images):
        names[image.name] = f"maps/{image.name}.npy"
        path = folder / names[image.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, result.maps[i] if kind == "grid" else upsample(result.maps[i : i + 1], size)[0])
        progress("write", i + 1, len(result.images), "maps")
    return names


def _write_scores(result: LotResult, path: Path, maps: dict[str, str]) -> None:
    """Write scores.csv, one row per listed image in the lot's order."""
    rows = {
        image.name: [
            "ok",
            *(f"{v[i]:.6f}" for v in (result.raw_scores, result.scores, result.lot_scores)),
            maps.get(image.name, ""),
            "",
        ]
        for i, image in enumerate(result.images)
    }
    rows |= {image.name: [image.status, "", "", "", "", image.reason] for image in result.skipped}
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in sorted(rows, key=natural_key):
            writer.writerow([name, *rows[name]])
