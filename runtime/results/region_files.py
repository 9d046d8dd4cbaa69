"""Write the regions of flagged images as a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..verdict.regions import Region
from .tables import write_table

REGIONS = "regions.csv"
NUMBERS = ("x", "y", "width", "height", "area", "peak", "peak_x", "peak_y", "centroid_x", "centroid_y")
"""The columns that say what a region is."""
COLUMNS = ("image", "region", *NUMBERS)


def write_regions(path: Path, found: Iterable[tuple[str, list[Region]]], form: str = "plain") -> None:
    """Write the regions of images as CSV in one of CSV_FORMS, each image's numbered from the highest peak."""
    write_table(path, region_rows(found), form, COLUMNS)


def region_rows(found: Iterable[tuple[str, list[Region]]]) -> list[list[str]]:
    """Return the rows of regions.csv."""
    return [
        [name, str(number), *_cells(region)]
        for name, regions in found
        for number, region in enumerate(regions, 1)
    ]


def _cells(region: Region) -> list[str]:
    r = region
    box = [r.x, r.y, r.width, r.height, r.area]
    peak = [f"{r.peak:.6f}", str(r.peak_x), str(r.peak_y)]
    return [*map(str, box), *peak, f"{r.centroid_x:.2f}", f"{r.centroid_y:.2f}"]
