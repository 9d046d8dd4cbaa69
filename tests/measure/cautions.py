"""Make docs/warnings.md: how often each warning comes where it should, and where it should not.

    python tests/measure/cautions.py WORK BUNDLES ELPV TEXTILE TILES > docs/warnings.md

The arguments are those of accuracy.py, with which it shares the compared images in WORK.  Lots are drawn at
random from solar cells of two kinds, textiles and magnetic tiles, with and without defective images.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge.runtime.scoring.cautions import STAND_OUT, separate_group, stand_out
from musc_edge.runtime.scoring.presets import MEASURED_DEGREES
from musc_edge.runtime.types import Array
from support.accuracy.drawn import draw, score_drawn
from support.accuracy.measured import TILE_KINDS
from support.accuracy.pool import Pool
from support.accuracy.products import GOOD
from support.accuracy.setup import parser, setup
from support.accuracy.variants import Variant

LOTS, SCORED_LOTS, IMAGES = 100, 30, 30
DEFECTS = (0, 1, 3, 9)
KINDS = {
    "mono cells": ("defective",), "poly cells": ("defective",), "textiles": ("local",),
    "magnetic tiles": TILE_KINDS,
}  # fmt: skip
CHOICES = (Variant(MEASURED_DEGREES), Variant())
"""The default's degrees and the paper's; warnings look at maps from which no median is subtracted."""
Part = tuple[Pool, Sequence[str], int]
"""A pool, kinds of its images, and how many of them are drawn."""


def lot_of(pool: Pool, images: int, defects: int) -> list[Part]:
    """The parts of a lot of one product."""
    return [(pool, (GOOD,), images - defects), (pool, KINDS[pool.product], defects)]


def mixed_table(pools: Mapping[str, Pool]) -> list[str]:
    """How often lots count as mixed."""
    mono, poly, textile = (pools[name] for name in ("mono cells", "poly cells", "textiles"))
    lots: dict[str, list[Part]] = {
        **{f"60 {name}, 12 of them defective": lot_of(pool, 60, 12) for name, pool in pools.items()},
        **{f"60 {name}, none defective": lot_of(pool, 60, 0) for name, pool in pools.items()},
        **{f"20 {name}, 4 of them defective": lot_of(pool, 20, 4) for name, pool in pools.items()},
        "mixed: 30 mono and 30 poly cells": [(mono, (GOOD,), 30), (poly, (GOOD,), 30)],
        "mixed: 30 mono cells and 30 textiles": [(mono, (GOOD,), 30), (textile, (GOOD,), 30)],
        "mixed: 30 poly cells and 30 textiles": [(poly, (GOOD,), 30), (textile, (GOOD,), 30)],
        "mixed: 50 mono cells and 10 textiles": [(mono, (GOOD,), 50), (textile, (GOOD,), 10)],
        "mixed: 10 mono cells and 10 textiles": [(mono, (GOOD,), 10), (textile, (GOOD,), 10)],
    }
    rows = ["| lot | warned |", "|---|---|"]
    for name, parts in lots.items():
        rng = np.random.default_rng(2)
        warned = sum(separate_group(_cls(rng, parts)) > 0 for _ in range(LOTS))
        rows.append(f"| {name} | {warned} of {LOTS} |")
    return rows


def _cls(rng: np.random.Generator, parts: Sequence[Part]) -> Array:
    return np.concatenate(
        [pool.cls[rng.permutation(pool.of(*kinds))[:count]] for pool, kinds, count in parts]
    )


def even_table(pools: Mapping[str, Pool], folder: Path) -> list[str]:
    """How often nothing stands out, by the default's degrees and the paper's; ``folder`` keeps the ratios."""
    folder.mkdir(exist_ok=True)
    rows = [
        "| lot | degrees 1,5: warned | largest over median raw score: least, middle, most "
        "| degrees 1,3,5: warned | least, middle, most |",
        "|---|---|---|---|---|",
    ]
    for name, pool in pools.items():
        for defects in DEFECTS:
            path = folder / f"{name.replace(' ', '-')}-{defects}.json"
            if not path.exists():
                path.write_text(json.dumps(ratios(pool, defects).tolist()), encoding="ascii")
            cells = [_cells(np.array(values)) for values in json.loads(path.read_text(encoding="ascii"))]
            rows.append(f"| {name}, {defects} of {IMAGES} defective | {' | '.join(cells)} |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def ratios(pool: Pool, defects: int) -> Array:
    """Largest over median raw score (choices, lots) of lots of a product."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(SCORED_LOTS):
        parts = [(pool.of(*kinds), count) for _, kinds, count in lot_of(pool, IMAGES, defects)]
        lot = score_drawn(pool, draw(rng, *parts))
        found.append([stand_out(choice.scores(lot)) for choice in CHOICES])
    return np.transpose(found)


def _cells(values: Array) -> str:
    least, middle, most = values.min(), np.median(values), values.max()
    return f"{(values < STAND_OUT).sum()} of {len(values)} | {least:.2f}, {middle:.2f}, {most:.2f}"


def main() -> None:
    """Print the page."""
    at = setup(parser(__doc__).parse_args())
    pools = at.pools()
    even, mixed = even_table(pools, at.work / "cautions"), mixed_table(pools)
    print((Path(__file__).parents[1] / "data" / "warnings_head.md").read_text(encoding="utf-8").strip())
    print("\n## Mixed products\n", *mixed, sep="\n")
    print("\n## Nothing stands out\n", *even, sep="\n")


if __name__ == "__main__":
    main()
