"""Make docs/accuracy.md: how well lots of three products are told apart, and where the method fails.

    python tests/measure/accuracy.py WORK BUNDLES ELPV TEXTILE TILES \\
        --authors CHECKOUT --pictures docs/pictures > docs/accuracy.md

BUNDLES holds what `musc-export dinov2-small --image-size S -o BUNDLES/dinov2-small-S` made, CHECKOUT the
authors' code (github.com/xrli-U/MuSc).  The images of a product are compared once, pair by pair, which takes
most of the time and is kept in WORK; lots are then drawn from them.  Labels are used by the metrics alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge.runtime.types import Array
from support.accuracy import checks, measured
from support.accuracy.drawn import score_drawn
from support.accuracy.measured import LARGE_LOTS, MAIN, PAPER_DEGREES, SMALL_LOTS, Row, kept, name_of
from support.accuracy.pictures import highest_good, missed, sheet
from support.accuracy.pool import Pool
from support.accuracy.products import LARGE, PRODUCTS, SIZES, SMALL
from support.accuracy.setup import Setup, parser, setup
from support.accuracy.tables import Column, pairs, table

DRAWS, PIXEL_DRAWS, RESCORED_DRAWS = 5, 1, 3
GROUPS = (10, 20, 40, 0)
RESCORED_SIZES = (30, 60, 120, 180, 250)
_TITLES = {
    "auroc": "AUROC", "ap": "AP", "f1_max": "F1-max", "pro_200": "PRO-200", "aupro_0.05": "AUPRO@0.05",
    "aupro_0.3": "AUPRO@0.3",
}  # fmt: skip
_SHOWN: dict[str, tuple[str, tuple[str, ...], Sequence[tuple[int, ...]]]] = {
    "tiles": ("magnetic tiles", ("blowhole", "crack", "uneven"), ((1, 3, 5), (1,))),
    "textiles": ("textiles", ("local",), ((1, 3, 5), (1,))),
    "poly-cells": ("poly cells", ("defective",), ((1, 3, 5), (1,))),
}


def title(row: Row) -> str:
    """The title of a metric's column."""
    return _TITLES[row.metric]


def titled(row: Row) -> str:
    """The title of a metric's column, with the kind of score."""
    return f"{_TITLES[row.metric]}, {row.how}"


def at_224(at: Setup, pool: Pool) -> dict[str, list[Row]]:
    """All rows of one product's lots at 224 pixels, by table."""

    def of(name: str, measure: partial[list[Row]]) -> list[Row]:
        print(f"{pool.product}: {name}", file=sys.stderr, flush=True)
        return kept(at.work / f"{pool.product.replace(' ', '-')}-224-{name}.json", measure)

    groups = [group or None for group in GROUPS]
    return {
        "image": of("image", partial(measured.image_table, pool, LARGE_LOTS, DRAWS)),
        "pixel": of(
            "pixel", partial(measured.pixel_table, pool, _tiles(LARGE_LOTS), PIXEL_DRAWS, at.sources.tiles)
        ),
        "groups": of("groups", partial(measured.group_table, pool, MAIN, RESCORED_DRAWS, groups)),
        "rescored": of(
            "rescored", partial(measured.rescoring_table, pool, MAIN, RESCORED_DRAWS, RESCORED_SIZES)
        ),
    }


def over_sizes(at: Setup, size: int) -> dict[str, list[Row]]:
    """Image and pixel rows of the small lots at one size."""
    found: dict[str, list[Row]] = {"image": [], "pixel": []}
    for product in (product for product in PRODUCTS if size in SIZES[product]):
        pool, within = at.pool(product, size), SMALL[product]
        stem = f"{product.replace(' ', '-')}-{size}-small"
        image = partial(measured.image_table, pool, SMALL_LOTS, DRAWS, within)
        pixel = partial(measured.pixel_table, pool, _tiles(SMALL_LOTS), PIXEL_DRAWS, at.sources.tiles, within)
        found["image"] += kept(at.work / f"{stem}-image.json", image)
        found["pixel"] += kept(at.work / f"{stem}-pixel.json", pixel)
    return found


def _tiles(cases: Sequence[measured.Case]) -> list[measured.Case]:
    """The cases of which there are masks."""
    return [case for case in cases if case.product == "magnetic tiles"]


def draw_pictures(at: Setup, folder: Path) -> None:
    """Write a picture for each product: the lowest ranked defects, and the highest ranked good image."""
    for name, (product, kinds, degree_sets) in _SHOWN.items():
        pool = at.pool(product)
        case = next(case for case in MAIN if case.product == product and set(kinds) <= set(case.kinds))
        lot = score_drawn(pool, next(measured.lots(pool, case, 1)))
        raw = lot.raw(PAPER_DEGREES)
        tiles = at.sources.tiles if product == "magnetic tiles" else None
        picked = [*missed(lot, raw, 3), *highest_good(lot, raw, 1)]
        sheet(lot, picked, degree_sets, tiles).save(folder / f"missed_{name}.jpg", quality=85)


def pools_table(sizes: Sequence[int]) -> list[str]:
    """How many images of each kind the pools have."""

    def listed(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in counts.items())

    return [
        "| product | images at 224 | images at larger sizes | sizes |",
        "|---|---|---|---|",
        *(
            f"| {product} | {listed(LARGE[product])} | {listed(SMALL[product])} "
            f"| {', '.join(str(size) for size in SIZES[product] if size in sizes)} |"
            for product in PRODUCTS
        ),
    ]


_CASE: Column = ("lots", lambda row: row.case)
_DEGREES: Column = ("degrees", lambda row: row.degrees)


def large_sections(at: Setup) -> list[str]:
    """Tables of the lots at 224 pixels."""
    large = [at_224(at, pool) for pool in at.pools().values()]

    def rows(name: str, **wanted: str) -> list[Row]:
        found = [row for tables in large for row in tables[name]]
        return [row for row in found if all(getattr(row, key) == value for key, value in wanted.items())]

    return [
        "\n## Images at 224 pixels\n",
        *table(rows("image", degrees=name_of(PAPER_DEGREES)), [_CASE], titled),
        "\n## Degrees: AUROC at 224 pixels\n",
        *table(rows("image", metric="auroc"), [_CASE], lambda row: f"{row.degrees} {row.how}"),
        "\n## Pixels at 224: magnetic tiles\n",
        *table(rows("pixel"), [_CASE, _DEGREES], title),
        "\n## Group size: AUROC before rescoring, of lots of 120\n",
        *table(
            rows("groups", metric="auroc", how="raw"),
            [_CASE, _DEGREES],
            lambda row: str(row.group) if row.group else "all 119",
        ),
        "\n## Rescoring, lot by lot\n",
        *pairs(rows("rescored")),
        checks.golden_line(),
    ]


def size_sections(at: Setup, sizes: Sequence[int]) -> list[str]:
    """Tables of the same lots at several image sizes."""
    small = {size: over_sizes(at, size) for size in sizes}
    images = sorted((row for size in sizes for row in small[size]["image"]), key=_by_case)
    pixels = sorted((row for size in sizes for row in small[size]["pixel"]), key=_by_case)
    lines = []
    for how in ("raw", "rescored"):
        chosen = [row for row in images if (row.metric, row.how) == ("auroc", how)]
        lines += [
            f"\n## Image size: AUROC of the same lots, {how}\n",
            *table(chosen, [_CASE, _DEGREES], lambda row: str(row.size)),
        ]
    down: list[Column] = [_CASE, _DEGREES, ("size", lambda row: str(row.size))]
    return [*lines, "\n## Image size: pixels, magnetic tiles\n", *table(pixels, down, title)]


def page(at: Setup, sizes: Sequence[int], authors: Path) -> list[str]:
    """The tables of the page."""
    return [
        "\n## Pools\n",
        *pools_table(sizes),
        *large_sections(at),
        *(size_sections(at, sizes) if len(sizes) > 1 else []),
        "\n## Beside the authors' code\n",
        *checks.authors_table(at, authors),
        "\n## Beside `infer`\n",
        *checks.infer_table(at, sizes),
    ]


def _by_case(row: Row) -> tuple[int, str]:
    names: Array = np.array([case.name for case in SMALL_LOTS])
    return int(np.flatnonzero(names == row.case)[0]), row.degrees


def main() -> None:
    """Print the page."""
    options = parser(__doc__)
    options.add_argument("--authors", type=Path, required=True, help="a checkout of the authors' code")
    options.add_argument("--pictures", type=Path, required=True, help="folder for the pictures")
    options.add_argument("--sizes", default="224,294,392,518", help="image sizes that are compared")
    given = options.parse_args()
    at = setup(given)
    lines = page(at, [int(size) for size in given.sizes.split(",")], given.authors)
    draw_pictures(at, given.pictures)
    head = Path(__file__).parents[1] / "data" / "accuracy_head.md"
    print(head.read_text(encoding="utf-8").strip(), *lines, sep="\n")


if __name__ == "__main__":
    main()
