"""What the page is told of a lot: rows, maps, settings and remarks as JSON; pictures come in later."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import LotError
from ...scoring.anomaly_map import to_grid
from ...types import Array, FloatArray
from ...verdict.limits import FARTHEST
from ..heatmap import colours
from ..read_results import ScoredLot, read_rows
from .regions import Regions, read_regions

_TOP = 65535
_UNKNOWN_GRID = 32
"""Rows and columns of a map that was written in pixels by a version that did not note its grid."""
_FACTS = ("warnings", "notes", "copies", "settings", "bundle", "timings_s", "versions", "backend", "scorer")
_MORE_FACTS = ("resolution", "time", "judges_per_image", "verdicts", "left_out")

Grids = Mapping[str, FloatArray]
"""Maps on the grid (Gh,Gw) by the images' names, where they are at hand."""


@dataclass(frozen=True)
class Part:
    """One lot of a page, or a group: its results, the rows of its images, and what the page calls it."""

    lot: ScoredLot
    name: str
    rows: tuple[dict[str, str], ...]


def parts_of(lots: list[ScoredLot], out: Path) -> list[Part]:
    """Return the lots of one folder of results, with the rows of images in groups that were not scored."""
    grouped = lots[0].folder != out
    parts = [
        Part(lot, lot.folder.name if grouped else "", tuple(read_rows(lot.folder, lot.about))) for lot in lots
    ]
    if grouped:
        known = {row["image"] for part in parts for row in part.rows}
        rest = [row for row in read_rows(out, lots[0].about) if row["image"] not in known]
        parts[0] = Part(parts[0].lot, parts[0].name, (*parts[0].rows, *rest))
    return parts


def part_content(part: Part, grids: Grids | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the page is told of a lot, and of each of its images."""
    about, lot = part.lot.about, part.lot
    regions = read_regions(lot.folder, lot.settings.get("csv", "plain"))
    facts = {name: about[name] for name in (*_FACTS, *_MORE_FACTS) if name in about}
    if lot.level is not None:
        facts["level"] = {"grid": list(lot.level.shape), "map": encoded(lot.level, down=True)}
    return (
        {"name": part.name, "lot": str(about["lot"]), "scale": about["heatmap_scale"], **facts},
        [_row_content(lot, row, grids, regions) for row in part.rows],
    )


def _row_content(
    lot: ScoredLot, row: dict[str, str], grids: Grids | None, regions: Regions | None
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": row["image"],
        "status": row["status"],
        "verdict": row.get("verdict") or "",
        "error": row["error"],
    }
    if row["status"] != "ok":
        return content
    content |= {"raw": float(row["raw_score"]), "score": float(row["score"])}
    if size := _size(lot, row["image"]):
        content["size"] = size
    if p := row.get("p"):
        content["p"] = float(p)
    if repeated := _repeated(lot, row["image"]):
        content["repeated"] = repeated
    if regions is not None:
        content["regions"] = regions.get(row["image"], [])
    try:
        grid = grid_of(lot, row["image"], row["map"], grids)
    except LotError as error:
        content["error"] = "; ".join(filter(None, (row["error"], str(error))))
    else:
        if grid is not None:
            content |= {"grid": list(grid.shape), "map": encoded(grid)}
            if (outside := np.isnan(grid)).any():
                content["inside"] = _base64((~outside).astype(np.uint8))
    return content


def _repeated(lot: ScoredLot, image: str) -> dict[str, Any] | None:
    """The grid of an image and its repeated patches, as lot.json has them; None if there are none."""
    about = lot.about.get("repeated")
    if not about or image not in about["patches"]:
        return None
    return {"grid": [int(side) for side in about["grid"]], "at": [int(k) for k in about["patches"][image]]}


def _size(lot: ScoredLot, image: str) -> list[int] | None:
    """Width and height of an image as lot.json has them, or None; its file may say it too."""
    sizes = lot.about.get("image_sizes")
    return [int(side) for side in str(sizes[image]).split("x")] if sizes and image in sizes else None


def grid_of(lot: ScoredLot, image: str, file: str, grids: Grids | None) -> FloatArray | None:
    """Return the map of an image on the grid, or None if there is none.

    Raises
    ------
    LotError
        If its ``file`` cannot be read.
    """
    if grids is not None:
        return grids.get(image)
    if not file:
        return None
    values = lot.stored_map(file)
    if lot.settings.get("maps") == "grid":
        return values
    grid = lot.about.get("map_grid") or lot.about["bundle"].get("grid")
    height, width = grid or (_UNKNOWN_GRID, _UNKNOWN_GRID)
    return to_grid(values, (min(int(height), len(values)), min(int(width), values.shape[1])))


def encoded(grid: FloatArray, *, down: bool = False) -> str:
    """Return a map (Gh,Gw) as base64 of 16-bit codes up to FARTHEST, the least significant byte first.

    Rounded up, so that a value at a limit does not fall below it; ``down``, where it is subtracted.  What is
    outside of a region, NaN, has 0.
    """
    exact = np.clip(np.nan_to_num(grid.astype(np.float64), nan=0.0) / FARTHEST, 0, 1) * _TOP
    codes = np.floor(exact + 1e-3) if down else np.ceil(exact - 1e-3)
    return _base64(codes.astype("<u2"))


def colour_maps() -> dict[str, str]:
    """Return the colour maps of the page: 256 RGB values each, as base64; the first is that of overlays."""
    ramp = np.arange(256, dtype=np.uint8)[None]
    gray = np.repeat(ramp[..., None], 3, axis=-1)
    cividis = cv2.applyColorMap(ramp, cv2.COLORMAP_CIVIDIS)[..., ::-1]
    inferno = colours(ramp.astype(np.float32) / np.float32(255))
    maps: dict[str, Array] = {"inferno": inferno, "cividis": cividis, "gray": gray}
    return {name: _base64(values) for name, values in maps.items()}


def _base64(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
