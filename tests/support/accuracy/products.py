"""The products that accuracy is measured on, with what is known of each image; scoring sees none of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """An image of a product; ``kind`` is "good" or the kind of defect."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Sources:
    """Where the data are: unpacked packages, and a folder of magnetic tiles in MVTec AD's layout."""

    elpv: Path
    textile: Path
    tiles: Path


GRADES = {0.0: GOOD, 1 / 3: "grade 0.33", 2 / 3: "grade 0.67", 1.0: "defective"}
"""Solar cells: the probability of a defect by people's votes; 0 and 1 are the certain ones."""
PRODUCTS = ("mono cells", "poly cells", "textiles", "magnetic tiles")


def samples(product: str, sources: Sources) -> dict[str, list[Path]]:
    """All images of a product by kind, good ones first."""
    if product == "textiles":
        root = sources.textile / "conformal_clip_data/data/textile_images/simulated"
        folders = {GOOD: "nominal", "local": "local", "global": "global"}
        return {kind: sorted((root / name).iterdir()) for kind, name in folders.items()}
    if product == "magnetic tiles":
        kinds = sorted(path.name for path in (sources.tiles / "test").iterdir() if path.name != GOOD)
        return {kind: sorted((sources.tiles / "test" / kind).iterdir()) for kind in (GOOD, *kinds)}
    data = sources.elpv / "elpv_dataset/data"
    kind_of = {"mono cells": "mono", "poly cells": "poly"}[product]
    found: dict[str, list[Path]] = {kind: [] for kind in GRADES.values()}
    for line in (data / "labels.csv").read_text(encoding="ascii").splitlines():
        name, probability, cell = line.split()
        if cell == kind_of:
            grade = min(GRADES, key=lambda value: abs(value - float(probability)))
            found[GRADES[grade]].append(data / name)
    return found


def chosen(images: Mapping[str, Sequence[Path]], counts: Mapping[str, int]) -> list[Sample]:
    """So many images of each kind, drawn by a fixed seed: a smaller count gives the first of a larger one."""
    picked = []
    for kind, paths in images.items():
        order = np.random.RandomState(0).permutation(len(paths))[: counts.get(kind, 0)]
        picked += [Sample(paths[i], kind) for i in order]
    return picked


LARGE = {
    "mono cells": {GOOD: 200, "defective": 50, "grade 0.33": 25, "grade 0.67": 25},
    "poly cells": {GOOD: 150, "defective": 40, "grade 0.33": 15, "grade 0.67": 15},
    "textiles": {GOOD: 150, "local": 40, "global": 40},
    "magnetic tiles": {GOOD: 150, "blowhole": 15, "break": 15, "crack": 15, "fray": 14, "uneven": 15},
}
"""Images of each pool at 224 pixels."""
SMALL = {
    "mono cells": {GOOD: 40, "defective": 10},
    "poly cells": {GOOD: 40, "defective": 10},
    "textiles": {GOOD: 40, "local": 10, "global": 10},
    "magnetic tiles": {GOOD: 40, "blowhole": 8, "break": 5, "crack": 8, "fray": 5, "uneven": 5},
}
"""Images of each pool at larger sizes, the first of those at 224: a pair takes up to 30 times as long."""


SIZES = {
    "mono cells": (224, 294, 392, 518),
    "poly cells": (224, 294, 392, 518),
    "textiles": (224, 294, 392, 518),
    "magnetic tiles": (224, 294, 392, 518),
}
"""Image sizes at which each product is measured."""


def counts(product: str, size: int) -> dict[str, int]:
    """How many images of each kind a pool has."""
    return (LARGE if size == 224 else SMALL)[product]


FURTHER = {
    224: {
        "mono cells": {GOOD: 60, "defective": 15},
        "poly cells": {GOOD: 60, "defective": 15},
        "textiles": {GOOD: 60, "local": 15, "global": 15},
        "magnetic tiles": {GOOD: 50, "blowhole": 20, "break": 15, "crack": 9, "fray": 14, "uneven": 15},
    },
    392: {
        "mono cells": {GOOD: 24, "defective": 6},
        "poly cells": {GOOD: 24, "defective": 6},
        "textiles": {GOOD: 24, "local": 6, "global": 6},
        "magnetic tiles": {GOOD: 30, "blowhole": 8, "break": 6, "crack": 6, "fray": 6, "uneven": 4},
    },
}
"""Images of each pool of images that no other pool has, by image size.

There are 14 frays in all, so that those of the other pools are taken again.  294 and 518 take the
images of 392.
"""
FURTHER_DRAWS = 3
JUDGED = ("poly cells",)
"""Products that are judged by images that neither an earlier nor a further pool has.

Of mono cells and textiles there are such images too, of magnetic tiles none.
"""
ONLY_ONCE = ("magnetic tiles",)
"""Products with images for a single further pool."""


def further(product: str, images: Mapping[str, Sequence[Path]], size: int, number: int) -> list[Sample]:
    """Images that no other pool has: pool ``number`` shares none with another number, nor with ``LARGE``."""
    wanted = FURTHER[size if size in FURTHER else 392][product]
    picked = []
    for kind, count in wanted.items():
        order = np.random.RandomState(0).permutation(len(images[kind]))
        first = LARGE[product].get(kind, 0) + number * FURTHER[224][product][kind]
        if len(order) < first + count and number == 0:
            first = max(0, len(order) - count)
        rows = order[first : first + count]
        if len(rows) < count:
            raise SystemExit(f"{product}: no {count} further images of kind {kind} for pool {number}.")
        picked += [Sample(images[kind][i], kind) for i in rows]
    return picked


def judging(product: str, images: Mapping[str, Sequence[Path]], number: int) -> list[Sample]:
    """As many images as ``SMALL`` says, which neither ``LARGE`` nor a further pool nor another number has."""
    picked = []
    for kind, count in SMALL[product].items():
        order = np.random.RandomState(0).permutation(len(images[kind]))
        first = LARGE[product][kind] + FURTHER_DRAWS * FURTHER[224][product][kind] + number * count
        rows = order[first : first + count]
        if len(rows) < count:
            raise SystemExit(f"{product}: no {count} images of kind {kind} are left for pool {number}.")
        picked += [Sample(images[kind][i], kind) for i in rows]
    return picked
