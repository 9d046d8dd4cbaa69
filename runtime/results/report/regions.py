"""The regions of a lot's images, as regions.csv has them."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from ...._files import read_regular

REGIONS = "regions.csv"
COLUMNS = ("x", "y", "width", "height", "area", "peak", "peak_x", "peak_y", "centroid_x", "centroid_y")
_LARGEST = 1 << 28  # bytes


Regions = dict[str, list[list[float]]]
"""Regions by image, those of an image in their order, the values of each in that of COLUMNS."""


def read_regions(folder: Path) -> Regions | None:
    """Return the regions of a lot's images, or None where there is no such file.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    path = folder / REGIONS
    if not path.exists():
        return None
    text = read_regular(path, _LARGEST).decode("utf-8-sig", "surrogateescape")
    regions: Regions = {}
    for row in csv.DictReader(io.StringIO(text, newline="")):
        values = [float(row[name]) for name in COLUMNS]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"{path}: a region of {row['image']} has values that are not finite")
        regions.setdefault(row["image"], []).append(values)
    return regions
