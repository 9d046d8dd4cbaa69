"""The regions of a lot's images, as regions.csv has them."""

from __future__ import annotations

import math
from pathlib import Path

from ..region_files import REGIONS
from ..tables import read_table

COLUMNS = ("x", "y", "width", "height", "area", "peak", "peak_x", "peak_y", "centroid_x", "centroid_y")
Regions = dict[str, list[list[float]]]
"""Regions by image, those of an image in their order, the values of each in that of COLUMNS."""


def read_regions(folder: Path, form: str) -> Regions | None:
    """Return the regions of a lot's images, or None where there is no such file; ``form`` is the table's.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    if not (folder / REGIONS).exists():
        return None
    regions: Regions = {}
    for row in read_table(folder / REGIONS, form)[1]:
        values = [float(row[name]) for name in COLUMNS]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"a region of {row['image']} has values that are not finite")
        regions.setdefault(row["image"], []).append(values)
    return regions
