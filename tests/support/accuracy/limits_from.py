"""A limit on raw scores that comes from another lot of the same product, known to be good."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musc_edge.runtime.types import Array

from .drawn import score_drawn
from .pool import Pool
from .products import GOOD
from .verdict_lots import CASES

SIZES = ((60, 60), (30, 60), (90, 30), (30, 100))
"""Images of the good lot, and of the lot that its limit is used on."""
SHARES = (0.0, 0.10, 0.25)
DEGREES = {"1": (1,), "1,3,5": (1, 3, 5)}


@dataclass(frozen=True)
class PairOfLots:
    """Raw scores by degrees of a good lot, and of another lot (n,) with its labels (n,)."""

    case: str
    sizes: tuple[int, int]
    share: float
    good: Mapping[str, Array]
    other: Mapping[str, Array]
    labels: Array


def pairs_of_lots(pools: Mapping[str, Pool], folder: Path, draws: int) -> Iterator[PairOfLots]:
    """Yield pairs of lots without a common image; those that ``folder`` keeps are read from there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(draws):
        for case in CASES:
            for sizes in SIZES:
                for share in SHARES:
                    stem = case.replace(", ", "-").replace(" ", "-")
                    path = folder / f"{stem}-{sizes[0]}-{sizes[1]}-{share:.2f}-{number}.json"
                    if not path.exists():
                        found = _score(pools[CASES[case][0]], case, sizes, share, number)
                        new = path.with_suffix(".new")
                        new.write_text(json.dumps(found), encoding="ascii")
                        new.replace(path)
                        print(path.name, file=sys.stderr, flush=True)
                    yield _read(case, sizes, share, json.loads(path.read_text(encoding="ascii")))


def _score(pool: Pool, case: str, sizes: tuple[int, int], share: float, number: int) -> dict[str, Any]:
    rng = np.random.default_rng([zlib.crc32(case.encode()), *sizes, round(share * 100), number])
    bad = round(share * sizes[1])
    good = rng.permutation(pool.of(GOOD))[: sizes[0] + sizes[1] - bad]
    defects = rng.permutation(pool.of(*CASES[case][1]))[:bad]
    lot = score_drawn(pool, good[: sizes[0]])
    other = score_drawn(pool, np.concatenate([good[sizes[0] :], defects]))
    return {
        "good": {name: lot.raw(degrees).tolist() for name, degrees in DEGREES.items()},
        "other": {name: other.raw(degrees).tolist() for name, degrees in DEGREES.items()},
        "labels": other.labels.tolist(),
    }


def _read(case: str, sizes: tuple[int, int], share: float, kept: dict[str, Any]) -> PairOfLots:
    good, other = ({name: np.array(each) for name, each in kept[lot].items()} for lot in ("good", "other"))
    return PairOfLots(case, sizes, share, good, other, np.array(kept["labels"]))


def limit(scores: Array, quantile: float) -> float:
    """The limit that a good lot gives: a quantile of its scores, 1 for the largest."""
    return float(np.quantile(scores, quantile))


def rates(pairs: Sequence[PairOfLots], degrees: str, quantile: float) -> tuple[float, float, float]:
    """Share of good images rejected, of lots with such an image, and of defective images rejected."""
    good, lots, bad = [], [], []
    for pair in pairs:
        rejected = pair.other[degrees] > limit(pair.good[degrees], quantile)
        good.append(rejected[~pair.labels])
        lots.append(rejected[~pair.labels].any())
        bad.append(rejected[pair.labels])
    found = np.concatenate(bad)
    recall = float(found.mean()) if len(found) else float("nan")
    return float(np.concatenate(good).mean()), float(np.mean(lots)), recall
