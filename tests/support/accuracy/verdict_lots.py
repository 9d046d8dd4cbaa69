"""Lots that verdict rules are measured on, without defects and with 5 to 25 % of them; scored once."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.scoring.presets import MEASURED_DEGREES
from musc_edge.runtime.settings import AUTO
from musc_edge.runtime.types import Array

from .drawn import DrawnLot, draw, score_drawn
from .pool import Pool
from .products import GOOD
from .rules import mebin
from .variants import Variant

CASES = {
    "mono cells": ("mono cells", ("defective",)),
    "poly cells": ("poly cells", ("defective",)),
    "textiles, local": ("textiles", ("local",)),
    "textiles, global": ("textiles", ("global",)),
    "magnetic tiles": ("magnetic tiles", ("blowhole", "break", "crack", "fray", "uneven")),
}
"""Product and kinds of defect of each case."""
DEGREES = ((1,), (1, 3), (1, 3, 5))
DEFAULT_CHOICES = Variant(MEASURED_DEGREES, AUTO)
DEFAULT = "default"
"""What the names of scores by the default's choices of small grids begin with."""
SHARES = (0.05, 0.10, 0.15, 0.25)


@dataclass(frozen=True)
class Scored:
    """A lot's labels (n,) and, by choices and "raw" or "rescored", its scores (n,).

    ``mebin`` has by degrees whether MEBin leaves a pixel of each image.
    """

    case: str
    share: float
    labels: Array
    scores: Mapping[str, Array]
    mebin: Mapping[str, Array]


def plan(good_draws: int, draws: int) -> Iterator[tuple[str, int, float, int]]:
    """Case, number of images, share of defects and number of each lot, in rounds over all cases."""
    for number in range(max(good_draws, draws)):
        for case in CASES:
            if number < good_draws and case != "textiles, global":  # the same good images as with local ones
                yield from ((case, images, 0.0, number) for images in (60, 100, 140))
            if number < draws:
                yield from ((case, images, share, number) for images in (60, 120) for share in SHARES)


def name_of(degrees: tuple[int, ...], how: str) -> str:
    """Such as "1,3,5 raw"."""
    return f"{','.join(map(str, degrees))} {how}"


def scored_lots(
    pools: Mapping[str, Pool], folder: Path, good_draws: int, draws: int, default_draws: int
) -> Iterator[Scored]:
    """Yield all lots, the first ``default_draws`` of each kind with their scores by the default's choices.

    What ``folder`` keeps of them is read from there, what it lacks is added to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for case, images, share, number in plan(good_draws, draws):
        path = folder / f"{case.replace(', ', '-').replace(' ', '-')}-{images}-{share:.2f}-{number}.json"
        kept = json.loads(path.read_text(encoding="ascii")) if path.exists() else {}
        lacks_default = number < default_draws and f"{DEFAULT} raw" not in kept.get("scores", {})
        if not kept or lacks_default:
            lot = drawn(pools[CASES[case][0]], case, images, share, number)
            kept = kept or _by_degrees(lot, mebin_too=number < 5)
            if lacks_default:
                kept["scores"] |= by_default(lot)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(kept), encoding="ascii")
            new.replace(path)
            print(path.name, file=sys.stderr, flush=True)
        yield _read(case, share, kept)


def drawn(pool: Pool, case: str, images: int, share: float, number: int) -> DrawnLot:
    """Draw lot ``number`` of a case and score it."""
    rng = np.random.default_rng([zlib.crc32(case.encode()), images, round(share * 100), number])
    bad = max(1, round(share * images)) if share else 0
    return score_drawn(pool, draw(rng, (pool.of(GOOD), images - bad), (pool.of(*CASES[case][1]), bad)))


def by_default(lot: DrawnLot) -> dict[str, list[float]]:
    """Scores (n,) of a lot by what the product chooses for small grids, raw and rescored."""
    raw = DEFAULT_CHOICES.scores(lot)
    return {f"{DEFAULT} raw": raw.tolist(), f"{DEFAULT} rescored": lot.rescored(raw).tolist()}


def _by_degrees(lot: DrawnLot, mebin_too: bool) -> dict[str, Any]:
    raws = {degrees: lot.raw(degrees) for degrees in DEGREES}
    scores = {name_of(degrees, "raw"): raw.tolist() for degrees, raw in raws.items()}
    scores |= {name_of(degrees, "rescored"): lot.rescored(raw).tolist() for degrees, raw in raws.items()}
    return {"labels": lot.labels.tolist(), "scores": scores, "mebin": _mebin(lot) if mebin_too else {}}


def _mebin(lot: DrawnLot) -> dict[str, list[bool]]:
    return {
        name_of(degrees, "raw"): mebin(upsample(lot.maps(degrees), lot.pool.size)).tolist()
        for degrees in ((1,), (1, 3, 5))
    }


def _read(case: str, share: float, kept: dict[str, Any]) -> Scored:
    def arrays(values: dict[str, list[Any]]) -> dict[str, Array]:
        return {name: np.array(each) for name, each in values.items()}

    return Scored(case, share, np.array(kept["labels"]), arrays(kept["scores"]), arrays(kept["mebin"]))
