"""Write what a lot's scoring gave: scores.csv, lot.json, a contact sheet, and files per image."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..._version import __version__
from ..images.left_out import facts_on
from ..images.listing import Listing, natural_key
from ..images.reading import BACKGROUND
from ..images.resolution import Resolution
from ..images.roi import roi_text
from ..scoring.anomaly_map import map_size
from ..scoring.repeated import repeated_patches
from ..timing import StageTimer
from ..types import LotRoot, Plan, Progress, SkippedImage, no_progress
from ..verdict.flagged import flagged_regions
from ..verdict.limits import as_written
from ..verdict.regions import Region, SizedMap
from .contact_sheet import draw_contact_sheet, drawn_rows
from .image_files import (
    MAPS,
    OVERLAYS,
    Missing,
    OutputOptions,
    Written,
    map_scale,
    optional,
    write_image_files,
    writing_room,
)
from .lettering import font_note
from .lot_scores import LotScores, Unscored
from .region_files import REGIONS, write_regions
from .tables import write_table

COLUMNS = ("image", "status", "raw_score", "score", "lot_score", "map", "error", "verdict", "p")
MAP_COLUMN = COLUMNS.index("map")
CONTACT_SHEET = "contact_sheet.png"
SCORES = "scores.csv"
_NAMED = 10  # missing files that a warning of its own names
LOT = "lot.json"
GROUPS = "groups"
REPORT, REPORT_FILES = "report.html", "report-files"
POSITION = "position.npy"
"""What was subtracted at each position (Gh,Gw), where something was."""
NAMES = frozenset(
    {SCORES, LOT, CONTACT_SHEET, MAPS, OVERLAYS, GROUPS, REGIONS, REPORT, REPORT_FILES, POSITION}
)
"""Everything that a folder of results holds."""


def write_results(
    result: LotScores,
    folder: Path,
    root: LotRoot,
    options: OutputOptions,
    progress: Progress = no_progress,
    timer: StageTimer | None = None,
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Write all results of a lot into ``folder``, which exists.

    Parameters
    ----------
    root : the lot's folder or URL, noted in lot.json.

    Returns
    -------
    The content of lot.json, and the rows of scores.csv by image.
    """
    timer = timer or StageTimer()
    with timer.stage("write"):
        written = write_image_files(result, folder, options, progress)
        failed: list[Missing] = []
        with optional("contact sheet", folder / CONTACT_SHEET, failed, folder) as target:
            threads, room, _ = writing_room(result, options)
            draw_contact_sheet(result, target, options.top, threads, room)
    result = dataclasses.replace(
        result, run=dataclasses.replace(result.run, timings={**result.run.timings, **timer.seconds})
    )
    rows = score_rows(result, written)
    write_table(folder / SCORES, list(rows.values()), options.csv, COLUMNS)
    if result.level is not None:
        np.save(folder / POSITION, result.level)
    if result.judgement and written.maps:
        write_regions(folder / REGIONS, _regions(result, written), options.csv)
    about = describe(result, root, options)
    about["warnings"] += [*written.problems, *map(str, failed), *_missing(written.missing)]
    write_json(folder / LOT, about)
    return about, rows


def combine(
    folder: Path,
    root: LotRoot,
    groups: dict[str, tuple[dict[str, list[str]], dict[str, Any]]],
    unscored: Sequence[Unscored] = (),
    listing: Listing | None = None,
    form: str = "plain",
) -> None:
    """Write scores.csv and lot.json of a lot that was scored in groups.

    Parameters
    ----------
    groups : rows and lot.json's content of each group, by the folder with its own results.
    unscored : the groups that could not be scored.
    listing : the images of the whole lot, with what was left out.
    form : one of CSV_FORMS.
    """
    table = {}
    for subfolder, (rows, _) in groups.items():
        for name, row in rows.items():
            mapped = row[MAP_COLUMN] and f"{subfolder}/{row[MAP_COLUMN]}"
            table[name] = [*row[:MAP_COLUMN], mapped, *row[MAP_COLUMN + 1 :]]
    skipped = [image for group in unscored for image in group.images]
    table.update({image.name: _unscored_row(image) for image in skipped})
    write_table(folder / SCORES, [table[name] for name in sorted(table, key=natural_key)], form, COLUMNS)
    abouts = {subfolder: about for subfolder, (_, about) in groups.items()}
    content = {
        "lot": str(root),
        "time": max((about["time"] for about in abouts.values()), default=""),
        "images": sum(about["images"] for about in abouts.values()),
        "skipped": [skip for about in abouts.values() for skip in about["skipped"]] + [*map(asdict, skipped)],
        "warnings": [f"{name}: {text}" for name, about in abouts.items() for text in about["warnings"]]
        + [str(group) for group in unscored],
        "notes": listing.notes() if listing else [],
        **_left_out(listing),
        "groups": abouts,
        "groups_not_scored": [
            {"folder": g.name, "status": g.status, "reason": g.reason, "images": len(g.images)}
            for g in unscored
        ],
    }
    write_json(folder / LOT, content)


def _regions(result: LotScores, written: Written) -> Iterator[tuple[str, list[Region]]]:
    """The regions of the flagged images whose maps were written."""
    names = [image.name for image in result.images]

    def map_of(row: int) -> SizedMap | None:
        header = result.survey.headers[names[row]]
        size = header.height, header.width
        return SizedMap(result.above(row), size) if names[row] in written.maps else None

    if result.judgement:
        yield from flagged_regions(names, as_written(result.raw_scores), result.judgement, map_of)


def describe(result: LotScores, root: LotRoot, options: OutputOptions) -> dict[str, Any]:
    """The content of lot.json: how the scores came about, and what was left out."""
    manifest = result.run.bundle.manifest
    settings = asdict(result.run.settings)
    chosen = settings.pop("chosen")
    resolution = resolution_of(result)
    return {
        "lot": str(root),
        "time": result.run.time,
        "images": len(result.images),
        "skipped": [asdict(image) for image in result.skipped],
        "warnings": list(result.warnings),
        "notes": [
            *result.survey.notes(),
            *([resolution.caution] if resolution.caution and not resolution.drastic else []),
            *_unwritable(result, options),
            *result.run.notes,
        ],
        **_left_out(result.survey.listing),
        "copies": [asdict(group) for group in result.copies],
        "repeated": _repeated(result),
        "verdicts": result.judgement.facts() if result.judgement else None,
        "image_sizes": _sizes(result),
        "chosen": chosen,
        "resolution": resolution.facts(),
        "settings": {
            **settings,
            "bit_depth": result.survey.bit_depth,
            "max_pixels": result.survey.max_pixels,
            "roi": roi_text(result.survey.roi),
            "mask_background": result.survey.mask_background,
            "background": BACKGROUND,
            "maps": options.maps,
            "map_format": options.map_format,
            "csv": options.csv,
        },
        "png_map_scale": asdict(map_scale(result.maps)),
        "heatmap_scale": asdict(result.heat),
        "backend": result.run.backend,
        "scorer": result.run.scorer,
        "compared_in": result.run.compared_in,
        "judges_per_image": result.run.judges,
        "bundle": {
            "path": str(result.run.bundle.root.resolve()),
            "sha256": result.run.bundle.digest,
            "backbone": manifest.backbone,
            "precision": manifest.precision,
            "image_size": list(manifest.preprocess.size),
            "layers": list(manifest.layers),
            "grid": list(manifest.grid),
        },
        "map_grid": list(result.maps.shape[1:]),
        "map_size": list(map_size(result.maps.shape, manifest)),
        "plan": plan_facts(result.run.plan),
        "timings_s": {stage: round(seconds, 4) for stage, seconds in result.run.timings.items()},
        "versions": {
            "musc-edge": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "computed_by": list(result.run.computed_by),
        },
    }


def _sizes(result: LotScores) -> dict[str, str]:
    """Width and height of each image as it was scored, its orientation applied, such as 640x480."""
    headers = {image.name: result.survey.headers[image.name] for image in result.images}
    return {name: f"{header.width}x{header.height}" for name, header in headers.items()}


def _repeated(result: LotScores) -> dict[str, Any] | None:
    """Where burn-out acted: the repeated patches of each image, numbered row by row of the grid."""
    if result.later is None:
        return None
    patches = repeated_patches(result.later)
    found = {i.name: np.flatnonzero(row).tolist() for i, row in zip(result.images, patches, strict=True)}
    return {
        "share": round(float(patches.mean()), 6),
        "grid": list(result.later.shape[1:]),
        "patches": {name: at for name, at in found.items() if at},
    }


def _left_out(listing: Listing | None) -> dict[str, Any]:
    """What was not taken for an image, where the lot's folder was searched."""
    return {} if listing is None else {"left_out": facts_on(listing.left_out)}


def resolution_of(result: LotScores) -> Resolution:
    """How the images that were scored came to the ViT."""
    headers, manifest = result.survey.headers, result.run.bundle.manifest
    seen = Resolution.of([headers[image.name] for image in result.images], manifest)
    return seen.at(map_size(result.maps.shape, manifest))


def _unwritable(result: LotScores, options: OutputOptions) -> list[str]:
    """A note on letters that the contact sheet, or overlays, show as numbers."""
    rows = range(len(result.images)) if options.overlays else drawn_rows(result, options.top)
    note = font_note(result.images[row].name for row in rows)
    return [note] if note else []


def plan_facts(plan: Plan) -> dict[str, Any]:
    """A memory plan as JSON, with what follows from it."""
    facts = {**asdict(plan), "memory_bytes": plan.memory_bytes, "disk_bytes": plan.disk_bytes}
    if plan.cluster is None:
        del facts["cluster"]
    if plan.device is None:
        del facts["device"]
    else:
        facts["device"]["memory_bytes"] = plan.device.memory_bytes
    return facts


def _missing(missing: dict[str, list[Missing]]) -> list[str]:
    """A line for each of the first files that are missing, and one for the rest."""
    lines = [
        f"no {each.what} of {name}: {each.reason}" for name, all_of in missing.items() for each in all_of
    ]
    rest = len(lines) - _NAMED
    return lines[:_NAMED] + [f"{rest} more maps or overlays are missing: see {SCORES}"] * (rest > 0)


def score_rows(result: LotScores, written: Written) -> dict[str, list[str]]:
    """Rows of scores.csv by image, in the lot's order."""
    rows = {}
    verdicts = result.judgement.cells() if result.judgement else [("", "")] * len(result.images)
    for i, image in enumerate(result.images):
        name = image.name
        scores = [f"{values[i]:.6f}" for values in (result.raw_scores, result.scores, result.lot_scores)]
        missing = "; ".join(map(str, written.missing.get(name, ())))
        rows[name] = [name, "ok", *scores, written.maps.get(name, ""), missing, *verdicts[i]]
    for skip in result.skipped:
        rows[skip.name] = _unscored_row(skip)
    return {name: rows[name] for name in sorted(rows, key=natural_key)}


def _unscored_row(skip: SkippedImage) -> list[str]:
    return [skip.name, skip.status, "", "", "", "", skip.reason, "", ""]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in ASCII, which holds any file name."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")
