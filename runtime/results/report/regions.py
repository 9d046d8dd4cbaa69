"""The regions of a lot's images, as regions.csv has them."""

from __future__ import annotations

import math
from pathlib import Path

from ..region_files import NUMBERS, REGIONS
from ..tables import read_table

Regions = dict[str, list[list[float]]]
"""Regions by image, those of an image in their order, the values of each in that of NUMBERS."""


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
        values = [float(row[name]) for name in NUMBERS]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"a region of {row['image']} has values that are not finite")
        regions.setdefault(row["image"], []).append(values)
    return regions
