"""Lots on which choices of the method are measured, and their metrics by variant.

"earlier" lots are those of docs/accuracy.md, which choices were made on: draws from one pool, which overlap.
"further" ones are made of images that no earlier pool has, each draw of cells and textiles of its own; the
draws of tiles overlap, since there is one such pool, and all frays were in the earlier one too.  "judging"
ones are of images that are in neither, for what was seen first on further lots.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.types import Array, FloatArray
from musc_edge.tools.evaluation.image_metrics import image_metrics
from musc_edge.tools.evaluation.pixel_metrics import pixel_metrics

from .drawn import DrawnLot, draw, score_drawn
from .measured import LARGE_LOTS, SMALL_LOTS, TILE_KINDS, Case, Row, kept, lots, tile_truth
from .pool import Pool
from .products import GOOD, JUDGED, SMALL
from .setup import Setup
from .variants import Variant

EARLIER, FURTHER, JUDGING = "earlier", "further", "judging"
LOTS = (
    "mono cells, certain", "poly cells, certain", "textiles, local", "textiles, global",
    "tiles, all kinds", "tiles, blowhole", "tiles, break", "tiles, crack", "tiles, fray",
)  # fmt: skip
"""Names of the lots; of the sizes above 224 there are no earlier lots of breaks and frays."""
_TILES = {TILE_KINDS: 10, ("blowhole",): 10, ("break",): 10, ("crack",): 8, ("fray",): 10}


def earlier_lots(at: Setup, size: int, name: str, draws: int) -> Iterator[tuple[Pool, Array]]:
    """Yield the pool and rows of each draw of an earlier lot; nothing where there is no such lot."""
    cases = LARGE_LOTS if size == 224 else SMALL_LOTS
    for case in (case for case in cases if case.name == name):
        pool = at.pool(case.product, size)
        within = None if size == 224 else SMALL[case.product]
        yield from ((pool, rows) for rows in lots(pool, case, draws, within))


def further_lots(at: Setup, size: int, name: str, draws: int) -> Iterator[tuple[Pool, Array]]:
    """Yield the pool and rows of each draw of a further lot."""
    case = next(case for case in LARGE_LOTS if case.name == name)
    for number in range(draws):
        if case.product == "magnetic tiles":
            pool = at.further_pool(case.product, size, 0)
            yield pool, tile_rows(pool, case, number)
        else:
            pool = at.further_pool(case.product, size, number)
            yield pool, pool.of(GOOD, *case.kinds)


def judging_lots(at: Setup, size: int, name: str, draws: int) -> Iterator[tuple[Pool, Array]]:
    """Yield the pool and rows of each draw of a judging lot; nothing for products that are not judged."""
    case = next(case for case in LARGE_LOTS if case.name == name)
    for number in range(draws if case.product in JUDGED else 0):
        pool = at.judging_pool(case.product, size, number)
        yield pool, pool.of(GOOD, *case.kinds)


def tile_rows(pool: Pool, case: Case, number: int) -> Array:
    """Draw a lot of tiles: four fifths of the pool's good ones, and up to 10 of the case's kinds."""
    rng = np.random.default_rng([zlib.crc32(f"further {case.name}".encode()), number])
    good, bad = pool.of(GOOD), pool.of(*case.kinds)
    return draw(rng, (good, len(good) * 4 // 5), (bad, min(_TILES[case.kinds], len(bad))))


def rows_of(
    at: Setup,
    size: int,
    which: str,
    name: str,
    draws: int,
    variants: Sequence[Variant],
    only_kept: bool = False,
) -> list[Row]:
    """Image metrics of a lot's draws by variant, from the folder ``work`` where it has them.

    With ``only_kept`` nothing is measured: where there are none, none come back.
    """
    stem = f"{which}-{name.replace(', ', '-').replace(' ', '-')}-{size}-{draws}"
    known = zlib.crc32("; ".join(variant.name for variant in variants).encode())
    path = at.work / "choices" / f"{stem}-{known:08x}.json"
    path.parent.mkdir(exist_ok=True)
    if only_kept and not path.exists():
        return []
    return kept(path, partial(_measure, at, size, which, name, draws, variants))


def _measure(
    at: Setup, size: int, which: str, name: str, draws: int, variants: Sequence[Variant]
) -> list[Row]:
    found: list[Row] = []
    drawn = {EARLIER: earlier_lots, FURTHER: further_lots, JUDGING: judging_lots}[which]
    for number, (pool, rows) in enumerate(drawn(at, size, name, draws)):
        lot = score_drawn(pool, rows)
        made = {(v.degrees, v.residual): v.maps(lot) for v in variants}
        for variant in variants:
            scores = variant.scores(lot, made[variant.degrees, variant.residual])
            found += image_rows(lot, name, number, variant.name, scores, which)
        print(f"{which} {name} {size}: draw {number}", file=sys.stderr, flush=True)
    return found


def image_rows(lot: DrawnLot, name: str, number: int, variant: str, scores: Array, which: str) -> list[Row]:
    """AUROC, AP and F1-max of a lot by one variant; ``which`` stands for its kind in the rows."""
    found = image_metrics(lot.labels, scores, 0)
    size, images = lot.pool.size[0], len(lot.rows)
    return [
        Row(name, size, number, images, variant, which, 0, metric, float(getattr(found, metric).value))
        for metric in ("auroc", "ap", "f1_max")
    ]


def pixel_rows(at: Setup, size: int, name: str, draws: int, variants: Sequence[Variant]) -> list[Row]:
    """Pixel metrics of further lots of tiles by variant, from the folder ``work`` where it has them."""
    known = zlib.crc32("; ".join(variant.name for variant in variants).encode())
    stem = f"pixels-{name.replace(', ', '-').replace(' ', '-')}-{size}-{draws}-{known:08x}"
    return kept(at.work / "choices" / f"{stem}.json", partial(_pixels, at, size, name, draws, variants))


def _pixels(at: Setup, size: int, name: str, draws: int, variants: Sequence[Variant]) -> list[Row]:
    found = []
    for number, (pool, rows) in enumerate(further_lots(at, size, name, draws)):
        lot = score_drawn(pool, rows)
        for variant in variants:
            values = pixel_metrics(_with_masks(at, lot, variant))
            metrics = {"auroc": values.auroc, "ap": values.ap, "aupro_0.3": values.aupro[0.3]}
            found += [
                Row(name, size, number, len(rows), variant.name, FURTHER, 0, metric, float(value))
                for metric, value in metrics.items()
            ]
        print(f"pixels {name} {size}: draw {number}", file=sys.stderr, flush=True)
    return found


def _with_masks(at: Setup, lot: DrawnLot, variant: Variant) -> Iterator[tuple[FloatArray, Array]]:
    truth, names = tile_truth(lot, at.sources.tiles)
    for name, one in zip(names, variant.maps(lot), strict=True):
        yield upsample(one[None], lot.pool.size)[0], truth.mask(name, lot.pool.size)


def by_lot(rows: Sequence[Row], variant: Variant, metric: str) -> Mapping[str, Array]:
    """Values (draws,) of one metric and variant by lot, in the order of the rows."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if (row.degrees, row.metric) == (variant.name, metric):
            found.setdefault(row.case, []).append(row.value)
    return {name: np.array(values) for name, values in found.items()}
