"""A limit on raw scores that comes from another lot of the same product, known to be good."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musc_edge.runtime.settings import PAPER
from musc_edge.runtime.types import Array
from musc_edge.runtime.verdict.judged_lot import JudgedLot, MadeBy, ThresholdFrom

from .drawn import score_drawn
from .pool import Pool
from .products import GOOD
from .variants import Variant, settled_share
from .verdict_lots import CASES, DEFAULT, DEFAULT_CHOICES

SIZES = ((60, 60, None), (40, 60, None), (30, 60, None), (90, 30, None), (30, 90, None), (30, 90, 29))
"""Images of the good lot, of the lot that its limit is used on, and the group size of both.

The product refuses the last but one and the one before: their images have three times as many judges.
"""
SHARES = (0.0, 0.10, 0.25)
Sizes = tuple[int, int, int | None]
DEGREES = {"1": (1,), "1,3,5": (1, 3, 5)}


@dataclass(frozen=True)
class PairOfLots:
    """Raw scores by degrees of a good lot, and of another lot (n,) with its labels (n,)."""

    case: str
    sizes: Sizes
    share: float
    good: Mapping[str, Array]
    other: Mapping[str, Array]
    labels: Array


def pairs_of_lots(
    pools: Mapping[str, Pool], folder: Path, draws: int, default_draws: int
) -> Iterator[PairOfLots]:
    """Yield pairs of lots without a common image, the first with their scores by the default's choices.

    What ``folder`` keeps of them is read from there, what it lacks is added to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(draws):
        for case in CASES:
            for sizes in SIZES:
                for share in SHARES:
                    stem = case.replace(", ", "-").replace(" ", "-")
                    made = "-".join(map(str, sizes))
                    path = folder / f"{stem}-{made}-{share:.2f}-{number}.json"
                    kept = json.loads(path.read_text(encoding="ascii")) if path.exists() else {}
                    default = number < default_draws
                    if not kept or (default and DEFAULT not in kept["good"]):
                        kept = _score(pools[CASES[case][0]], case, sizes, share, number, default)
                        new = path.with_suffix(".new")
                        new.write_text(json.dumps(kept), encoding="ascii")
                        new.replace(path)
                        print(path.name, file=sys.stderr, flush=True)
                    yield _read(case, sizes, share, kept)


def _score(pool: Pool, case: str, sizes: Sizes, share: float, number: int, default: bool) -> dict[str, Any]:
    rng = np.random.default_rng([zlib.crc32(case.encode()), *sizes[:2], round(share * 100), number])
    bad = round(share * sizes[1])
    good = rng.permutation(pool.of(GOOD))[: sizes[0] + sizes[1] - bad]
    defects = rng.permutation(pool.of(*CASES[case][1]))[:bad]
    lot = score_drawn(pool, good[: sizes[0]], sizes[2])
    other = score_drawn(pool, np.concatenate([good[sizes[0] :], defects]), sizes[2])
    choices = {name: Variant(degrees) for name, degrees in DEGREES.items()}
    if default:  # as the product does, the other lot takes the position's median as the good one has it
        aligned = settled_share(lot.maps(DEFAULT_CHOICES.degrees), DEFAULT_CHOICES.median_share)
        choices[DEFAULT] = replace(DEFAULT_CHOICES, median_share=aligned)
    return {
        "good": {name: choice.scores(lot).tolist() for name, choice in choices.items()},
        "other": {name: choice.scores(other).tolist() for name, choice in choices.items()},
        "labels": other.labels.tolist(),
    }


def _read(case: str, sizes: Sizes, share: float, kept: dict[str, Any]) -> PairOfLots:
    good, other = ({name: np.array(each) for name, each in kept[lot].items()} for lot in ("good", "other"))
    return PairOfLots(case, sizes, share, good, other, np.array(kept["labels"]))


def limit(good: Array, good_rejected: float) -> float:
    """The limit that the product takes from the raw scores of a good lot."""
    made_by = MadeBy("", (1, 3, 5), PAPER.interval, 8, len(good) - 1)
    lot = JudgedLot("a good lot", "given as good", tuple(good.tolist()), (), made_by)
    found = ThresholdFrom(lot, good_rejected).judge(good).reject_from
    assert found is not None
    return found


def rates(
    pairs: Sequence[PairOfLots], degrees: str, good_rejected: float
) -> tuple[float, float, float, float]:
    """Share of good images rejected, of lots with such an image, of defective ones; spread of the first."""
    good, bad = [], []
    for pair in pairs:
        rejected = pair.other[degrees] >= limit(pair.good[degrees], good_rejected)
        good.append(rejected[~pair.labels])
        bad.append(rejected[pair.labels])
    found = np.concatenate(bad)
    recall = float(found.mean()) if len(found) else float("nan")
    each = [float(flags.mean()) for flags in good]
    return float(np.concatenate(good).mean()), float(np.mean(np.array(each) > 0)), recall, max(each)
