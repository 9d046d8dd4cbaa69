"""Measure for docs/small-defects.md what ``--window`` gains and loses, on the further lots of choices.py.

    python tests/measure/windows.py WORK BUNDLES ELPV TEXTILE TILES

The arguments are those of accuracy.py.  The tokens that WORK keeps of further images are compared anew within
each window, at 224 pixels, and the same lots are scored by the default's choices and by degree 1.  Tables in
Markdown go to standard output.  Labels are used by the metrics alone.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge.runtime.scoring.position import alignment
from musc_edge.runtime.scoring.presets import MEASURED_DEGREES
from musc_edge.runtime.settings import AUTO
from musc_edge.runtime.types import Array
from support.accuracy.choice_lots import FURTHER, LOTS, by_lot, image_rows, tile_rows
from support.accuracy.drawn import draw, score_drawn
from support.accuracy.measured import LARGE_LOTS, Case, Row, kept
from support.accuracy.paired import difference_head, difference_line, paired
from support.accuracy.pool import Pool, within
from support.accuracy.products import GOOD
from support.accuracy.setup import Setup, parser, setup
from support.accuracy.variants import Variant

SIZE, DRAWS = 224, 3
ALL, WINDOWS = 0, (4, 2)
"""All patches, and those so many rows and columns apart, of 16 x 16."""
POOLS = {"mono cells": 3, "magnetic tiles": 1, "textiles": 1}
"""Pools of each product that are compared anew; draws from a single one overlap."""
CHOICES = {"the default's choices": Variant(MEASURED_DEGREES, AUTO), "degree 1, raw": Variant((1,))}
EXPLAINED = "alignment"


def pool_rows(at: Setup, product: str, number: int, window: int) -> list[Row]:
    """Image metrics of the lots of one pool within one window, which is the rows' ``group``."""
    pool = at.further_pool(product, SIZE, number)
    if window != ALL:
        folder = at.work / "windows" / f"{product.replace(' ', '-')}-{number}-{window}"
        pool = within(folder, pool, window)
    found: list[Row] = []
    for drawn, name, rows in _lots(pool, number):
        lot = score_drawn(pool, rows)
        for choice in CHOICES.values():
            of_choice = image_rows(lot, name, drawn, choice.name, choice.scores(lot), FURTHER)
            explained = alignment(lot.maps(choice.degrees))
            of_choice.append(replace(of_choice[0], metric=EXPLAINED, value=explained))
            found += [replace(row, group=window) for row in of_choice]
    print(f"{product} {number}, window {window}", file=sys.stderr, flush=True)
    return found


def _lots(pool: Pool, number: int) -> list[tuple[int, str, Array]]:
    """Draw, name and rows of the lots that are made of pool ``number`` of a product."""
    cases = [case for case in LARGE_LOTS if case.product == pool.product and case.name in LOTS]
    if POOLS[pool.product] > 1:
        return [(number, case.name, pool.of(GOOD, *case.kinds)) for case in cases]
    of_case = tile_rows if pool.product == "magnetic tiles" else _part
    return [(place, case.name, of_case(pool, case, place)) for case in cases for place in range(DRAWS)]


def _part(pool: Pool, case: Case, number: int) -> Array:
    """Draw four fifths of a case's images of a pool."""
    rng = np.random.default_rng([zlib.crc32(f"window {case.name}".encode()), number])
    good, bad = pool.of(GOOD), pool.of(*case.kinds)
    return draw(rng, (good, len(good) * 4 // 5), (bad, len(bad) * 4 // 5))


def measured(at: Setup) -> list[Row]:
    """Rows of all lots, without and within windows, from WORK where it has them."""
    found: list[Row] = []
    for window in (ALL, *WINDOWS):
        for product, pools in POOLS.items():
            for number in range(pools):
                path = at.work / "windows" / f"{product.replace(' ', '-')}-{number}-{window}.json"
                path.parent.mkdir(exist_ok=True)
                found += kept(path, partial(pool_rows, at, product, number, window))
    return found


def table(rows: Sequence[Row], title: str, choice: Variant) -> list[str]:
    """Lines of a table: AUROC of lots without a window, and paired differences of each window."""
    of = {window: [row for row in rows if row.group == window] for window in (ALL, *WINDOWS)}
    base = by_lot(of[ALL], choice, "auroc")
    explained = by_lot(of[ALL], choice, EXPLAINED)
    lines = [
        *difference_head(list(base), title),
        _means("explained by the position", explained, 2),
        _means("AUROC without a window", base, 3),
    ]
    for window in WINDOWS:
        if values := by_lot(of[window], choice, "auroc"):
            lines.append(difference_line(f"--window {window}", paired(values, base), list(base)))
    return lines


def _means(title: str, values: Mapping[str, Array], digits: int) -> str:
    """A line of a table: the mean over draws of each lot."""
    return f"| {title} | {' | '.join(f'{of.mean():.{digits}f}' for of in values.values())} | | |"


def main() -> None:
    """Print the tables."""
    rows = measured(setup(parser(__doc__).parse_args()))
    for title, choice in CHOICES.items():
        print(*table(rows, title, choice), "", sep="\n")


if __name__ == "__main__":
    main()
