"""Metrics of lots drawn from a pool: rows that the tables of docs/accuracy.md are made of."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.types import Array, FloatArray
from musc_edge.tools.evaluation.image_metrics import image_metrics
from musc_edge.tools.evaluation.pixel_metrics import pixel_metrics
from musc_edge.tools.evaluation.truth import Truth, find_truth

from .drawn import DrawnLot, draw, score_drawn
from .pool import Pool
from .products import GOOD

ALL_DEGREES = ((1,), (1, 3), (1, 3, 5))
PAPER_DEGREES = (1, 3, 5)
TILE_KINDS = ("blowhole", "break", "crack", "fray", "uneven")


@dataclass(frozen=True)
class Case:
    """Lots of a product: so many good and defective images, the latter of some kinds."""

    name: str
    product: str
    kinds: tuple[str, ...]
    good: int
    bad: int


LARGE_LOTS = (
    Case("mono cells, certain", "mono cells", ("defective",), 96, 24),
    Case("mono cells, grade 0.67", "mono cells", ("grade 0.67",), 96, 12),
    Case("mono cells, grade 0.33", "mono cells", ("grade 0.33",), 96, 12),
    Case("poly cells, certain", "poly cells", ("defective",), 96, 24),
    Case("poly cells, grade 0.67", "poly cells", ("grade 0.67",), 96, 12),
    Case("poly cells, grade 0.33", "poly cells", ("grade 0.33",), 96, 12),
    Case("textiles, local", "textiles", ("local",), 96, 24),
    Case("textiles, global", "textiles", ("global",), 96, 24),
    Case("tiles, all kinds", "magnetic tiles", TILE_KINDS, 96, 24),
    *(Case(f"tiles, {kind}", "magnetic tiles", (kind,), 96, 12) for kind in TILE_KINDS),
)
"""Lots at 224 pixels."""
MAIN = tuple(case for case in LARGE_LOTS if case.bad == 24)
"""Those of them with certain defects of all kinds."""
SMALL_LOTS = (
    Case("mono cells, certain", "mono cells", ("defective",), 32, 8),
    Case("poly cells, certain", "poly cells", ("defective",), 32, 8),
    Case("textiles, local", "textiles", ("local",), 32, 8),
    Case("textiles, global", "textiles", ("global",), 32, 8),
    Case("tiles, all kinds", "magnetic tiles", TILE_KINDS, 32, 10),
    Case("tiles, blowhole", "magnetic tiles", ("blowhole",), 32, 6),
    Case("tiles, crack", "magnetic tiles", ("crack",), 32, 6),
)
"""The lots that are compared over image sizes: each is the same images at every size."""


@dataclass(frozen=True)
class Row:
    """One metric of one lot; ``how`` is "raw" or "rescored", ``group`` the group size or 0 for all."""

    case: str
    size: int
    draw: int
    images: int
    degrees: str
    how: str
    group: int
    metric: str
    value: float


def kept(path: Path, measure: Callable[[], Sequence[Row]]) -> list[Row]:
    """Rows from the file where they are kept; else they are measured, and kept."""
    if not path.exists():
        rows = [asdict(row) for row in measure()]
        new = path.with_suffix(".new")
        new.write_text(json.dumps(rows), encoding="ascii")
        new.replace(path)
    return [Row(**row) for row in json.loads(path.read_text(encoding="ascii"))]


def lots(pool: Pool, case: Case, draws: int, within: Mapping[str, int] | None = None) -> Iterator[Array]:
    """Draw lots of a case; ``within`` limits each kind to its first images in the pool."""

    def first(kind: str) -> Array:
        rows = pool.of(kind)
        return rows if within is None else rows[: within.get(kind, 0)]

    good, bad = first(GOOD), np.concatenate([first(kind) for kind in case.kinds])
    for number in range(draws):
        # Seed and draw know places within a kind, not rows of the pool: a smaller pool gives the same lots.
        rng = np.random.default_rng([zlib.crc32(case.name.encode()), case.good, number])
        yield draw(rng, (good, case.good), (bad, case.bad))


def name_of(degrees: Sequence[int]) -> str:
    """Such as "1,3,5"."""
    return ",".join(map(str, degrees))


def image_rows(
    lot: DrawnLot, case: str, number: int, degree_sets: Sequence[tuple[int, ...]], group: int = 0
) -> Iterator[Row]:
    """AUROC, AP and F1-max of a lot, raw and rescored."""
    for degrees in degree_sets:
        raw = lot.raw(degrees)
        for how, scores in (("raw", raw), ("rescored", lot.rescored(raw))):
            found = image_metrics(lot.labels, scores, 0)
            for metric in ("auroc", "ap", "f1_max"):
                value = float(getattr(found, metric).value)
                yield Row(
                    case, lot.pool.size[0], number, len(raw), name_of(degrees), how, group, metric, value
                )


def image_table(
    pool: Pool, cases: Sequence[Case], draws: int, within: Mapping[str, int] | None = None
) -> list[Row]:
    """Image metrics of several lots of each case that the pool's product has."""
    return [
        row
        for case in cases
        if case.product == pool.product
        for number, rows in enumerate(lots(pool, case, draws, within))
        for row in image_rows(score_drawn(pool, rows), case.name, number, ALL_DEGREES)
    ]


def group_table(pool: Pool, cases: Sequence[Case], draws: int, groups: Sequence[int | None]) -> list[Row]:
    """Image metrics of the same lots, each image judged by fewer others."""
    return [
        row
        for case in cases
        if case.product == pool.product
        for number, rows in enumerate(lots(pool, case, draws))
        for group in groups
        for row in image_rows(
            score_drawn(pool, rows, group), case.name, number, ((1,), PAPER_DEGREES), group or 0
        )
    ]


def rescoring_table(pool: Pool, cases: Sequence[Case], draws: int, sizes: Sequence[int]) -> list[Row]:
    """AUROC before and after RsCIN of lots of several sizes, a fifth of each defective."""
    found: list[Row] = []
    for case in (case for case in cases if case.product == pool.product):
        for images in sizes:
            bad = images // 5
            sized = Case(case.name, case.product, case.kinds, images - bad, bad)
            available = len(pool.of(GOOD)), len(pool.of(*case.kinds))
            if sized.good > available[0] or sized.bad > available[1]:
                continue
            whole = available == (sized.good, sized.bad)  # then there is but one lot
            for number, rows in enumerate(lots(pool, sized, 1 if whole else draws)):
                found += image_rows(score_drawn(pool, rows), case.name, number, ((1,), PAPER_DEGREES))
    return [row for row in found if row.metric == "auroc"]


def pixel_table(
    pool: Pool,
    cases: Sequence[Case],
    draws: int,
    tiles: Path,
    within: Mapping[str, int] | None = None,
) -> list[Row]:
    """Pixel metrics of lots of magnetic tiles against their masks."""
    found = []
    for case in (case for case in cases if case.product == pool.product):
        for number, rows in enumerate(lots(pool, case, draws, within)):
            lot = score_drawn(pool, rows)
            for degrees in ALL_DEGREES:
                values = pixel_metrics(with_masks(lot, degrees, tiles))
                metrics = {
                    "auroc": values.auroc, "ap": values.ap, "f1_max": values.f1_max,
                    "pro_200": values.pro_200,
                    **{f"aupro_{limit}": area for limit, area in values.aupro.items()},
                }  # fmt: skip
                found += [
                    Row(case.name, pool.size[0], number, len(rows), name_of(degrees), "raw", 0, metric, value)
                    for metric, value in metrics.items()
                ]
    return found


def tile_truth(lot: DrawnLot, tiles: Path) -> tuple[Truth, list[str]]:
    """What is known of a lot's tiles, and their names in order."""
    names = [f"{lot.pool.samples[i].kind}/{lot.pool.samples[i].path.name}" for i in lot.rows]
    return find_truth(tiles / "ground_truth", "mvtec", tiles / "test", names), names


def with_masks(lot: DrawnLot, degrees: Sequence[int], tiles: Path) -> Iterator[tuple[FloatArray, Array]]:
    """Yield each map (H,W) of a lot with its mask (H,W)."""
    truth, names = tile_truth(lot, tiles)
    for name, one in zip(names, lot.maps(degrees), strict=True):
        yield upsample(one[None], lot.pool.size)[0], truth.mask(name, lot.pool.size)
