"""Make docs/choices.md: what choices of the method do to lots that they were not made on.

    python tests/measure/choices.py WORK BUNDLES ELPV TEXTILE TILES > docs/choices.md

Folders are those of accuracy.py.  Variants are scored on the same lots, so that their differences are paired.
Labels are used by the metrics alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from musc_edge.runtime.scoring.position import HALF, alignment
from musc_edge.runtime.scoring.presets import MEASURED_DEGREES, PAPER_GRID
from musc_edge.runtime.scoring.residual import SHARE
from musc_edge.runtime.types import Array
from support.accuracy.choice_lots import EARLIER, FURTHER, JUDGING, LOTS, by_lot, pixel_rows, rows_of
from support.accuracy.choice_tables import METRICS, SECONDS_HEAD, kept_lines, rescoring_tables, seconds_table
from support.accuracy.drawn import score_drawn
from support.accuracy.measured import Row
from support.accuracy.paired import Paired, difference_head, difference_line, paired, spread
from support.accuracy.pool import Pool
from support.accuracy.products import GOOD
from support.accuracy.setup import Setup, parser, setup
from support.accuracy.variants import CLS, SALIENT, Variant

EARLIER_DRAWS, PIXEL_DRAWS = 5, 3
PAPER = Variant((1, 3, 5), rescore=CLS)
RAW = Variant((1, 3, 5))
FAST = Variant((1,), residual=SHARE)
DEFAULT = Variant(MEASURED_DEGREES, HALF)
VARIANTS = (
    PAPER, RAW, Variant((1, 3, 5), HALF), Variant((1, 3, 5), HALF, rescore=CLS),
    Variant((1,)), Variant((1,), HALF), Variant((1,), HALF, rescore=CLS),
    Variant((1, 3)), Variant((1, 3), HALF), Variant((1, 3), HALF, rescore=CLS),
    Variant((1, 5)), Variant((1, 5), HALF), Variant((1, 5), HALF, rescore=CLS),
    Variant((1, 5), rescore=CLS),
)  # fmt: skip
RESIDUALS = (FAST, Variant((1,), HALF, residual=SHARE), Variant((1,), residual=SHARE, rescore=CLS))
SALIENTS = tuple(
    Variant(degrees, share, rescore=SALIENT)
    for degrees, share in (((1, 3, 5), 0.0), ((1, 5), 0.0), ((1, 5), HALF), ((1,), HALF))
)
TIMED = {"paper": PAPER, "default": DEFAULT, "degree 1": Variant((1,)), "fast": FAST}
PATCH = 14


def variants(which: str) -> tuple[Variant, ...]:
    """All variants that lots are scored by; residuals and salient patches where tokens are kept."""
    return VARIANTS if which == EARLIER else (*VARIANTS, *RESIDUALS, *SALIENTS)


def measured(at: Setup, size: int, which: str, draws: int, only_kept: bool = False) -> list[Row]:
    """Image metrics of all lots of one size."""
    groups = [VARIANTS] if which == EARLIER else [VARIANTS, RESIDUALS, SALIENTS]
    return [
        row
        for each in groups
        for name in LOTS
        for row in rows_of(at, size, which, name, draws, each, only_kept)
    ]


def default_name(size: int) -> str:
    """What the default's choices are called: from the paper's grid on they are not the default."""
    return "default" if size // PATCH < PAPER_GRID else "default of smaller sizes"


def presets_table(rows: Sequence[Row], size: int) -> list[str]:
    """AUROC and AP of the three presets by lot, mean and standard deviation over draws."""
    presets = {"paper": PAPER, default_name(size): DEFAULT, "fast": FAST}
    columns = [
        (f"{name}, {METRICS[m]}", by_lot(rows, v, m)) for m in ("auroc", "ap") for name, v in presets.items()
    ]
    columns = [(title, values) for title, values in columns if values]
    lots = list(columns[0][1])
    return [
        f"| lots | {' | '.join(title for title, _ in columns)} |",
        f"|{'---|' * (len(columns) + 1)}",
        *(f"| {lot} | {' | '.join(_cell(values, lot) for _, values in columns)} |" for lot in lots),
        f"| **mean of lots** | {' | '.join(_mean_of_lots(values, lots) for _, values in columns)} |",
    ]


def _cell(values: Mapping[str, Array], lot: str) -> str:
    return spread(values[lot].tolist()) if lot in values else "–"


def _mean_of_lots(values: Mapping[str, Array], lots: Sequence[str]) -> str:
    return f"**{np.mean(list(values.values())):.3f}**" if len(values) == len(lots) else "–"


def differences(rows: Sequence[Row], which: str, of: Variant, metric: str = "auroc") -> dict[str, Paired]:
    """Each variant's paired differences from one of them."""
    base = by_lot(rows, of, metric)
    found = {v.name: by_lot(rows, v, metric) for v in variants(which) if v != of}
    return {name: paired(values, base) for name, values in found.items() if values}


def differences_table(rows: Sequence[Row], which: str, of: Variant) -> list[str]:
    """Lines of a table of all variants' differences from one of them."""
    found = differences(rows, which, of)
    lots = list(by_lot(rows, of, "auroc"))
    return [*difference_head(lots), *(difference_line(name, pair, lots) for name, pair in found.items())]


def falls(rows: Sequence[Row], size: int) -> list[str]:
    """A line for each preset that says which lots fall against the paper."""
    lines = []
    base = by_lot(rows, PAPER, "auroc")
    for name, variant in ((default_name(size), DEFAULT), ("fast", FAST)):
        if values := by_lot(rows, variant, "auroc"):
            pair = paired(values, base)
            low, veto = ", ".join(pair.lower) or "none", ", ".join(pair.vetoes) or "none"
            whole = len(values) == len(base)
            verdict = pair.verdict if whole else f"no verdict from {len(values)} of {len(base)} lots"
            lines.append(f"- {name} ({variant.name}): mean below −0.01: {low}; veto: {veto}; {verdict}.")
    return lines


def pixels_table(at: Setup, size: int, draws: int) -> list[str]:
    """Pixel metrics of the presets on further lots of tiles; a position's median changes no map."""
    presets = {"paper": RAW, "default": Variant(DEFAULT.degrees), "1,3": Variant((1, 3)),
               "1": Variant((1,)), "fast": FAST}  # fmt: skip
    lots = [name for name in LOTS if name.startswith("tiles")]
    rows = [row for name in lots for row in pixel_rows(at, size, name, draws, list(presets.values()))]
    titles = [f"{name}, {METRICS[m]}" for m in METRICS for name in presets]
    values = [by_lot(rows, v, m) for m in METRICS for v in presets.values()]
    return [
        f"| lots | {' | '.join(titles)} |",
        f"|{'---|' * (len(titles) + 1)}",
        *(f"| {lot} | {' | '.join(f'{of[lot].mean():.3f}' for of in values)} |" for lot in lots),
    ]


def alignment_table(at: Setup, sizes: Sequence[int]) -> list[str]:
    """How much of the maps the position explains, by product and size, and what half the median changes."""
    lines = [
        "| product | size | degrees | explained | AUROC, raw | less half the median |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        rows = measured(at, size, EARLIER, EARLIER_DRAWS)
        for degrees in ((1, 3, 5), (1, 5), (1,)):
            plain, less = (by_lot(rows, Variant(degrees, share), "auroc") for share in (0.0, HALF))
            for lot, product in zip(
                LOTS[:3] + LOTS[4:5], ("mono cells", "poly cells", "textiles", "magnetic tiles"), strict=True
            ):
                share = _alignment(at.pool(product, size), degrees)
                lines.append(
                    f"| {product} | {size} | {','.join(map(str, degrees))} | {share:.2f} "
                    f"| {plain[lot].mean():.3f} | {less[lot].mean():.3f} |"
                )
    return lines


def _alignment(pool: Pool, degrees: tuple[int, ...]) -> float:
    return alignment(score_drawn(pool, pool.of(GOOD)[:40]).maps(degrees))


def size_sections(at: Setup, size: int, further: int, judging: int, only_kept: bool) -> list[str]:
    """Tables of one size: further and judging lots where there are any, then the earlier ones."""
    lines = []
    for which, draws in ((FURTHER, further), (JUDGING, judging), (EARLIER, EARLIER_DRAWS)):
        if draws:
            rows = measured(at, size, which, draws, only_kept)
            if not rows:
                continue
            lines += [
                f"\n## {which.capitalize()} lots at {size} pixels, {draws} draws\n",
                *presets_table(rows, size),
                "",
                *falls(rows, size),
                "\nDifferences of AUROC from the paper's choices, rescored as there:\n",
                *differences_table(rows, which, PAPER),
                *(rescoring_tables(rows, SALIENTS) if which != EARLIER else []),
            ]
    return lines


def page(at: Setup, sizes: Mapping[int, int], judging: Mapping[int, int], only_kept: bool) -> list[str]:
    """The tables of the page; ``sizes`` has the draws of further lots at each size, ``judging`` of those."""
    measured_further = [size for size, draws in sizes.items() if draws]
    images = [
        line
        for size, draws in sizes.items()
        for line in size_sections(at, size, draws, judging.get(size, 0), only_kept)
    ]
    if only_kept:
        return images
    return [
        *images,
        "\n## Pixels: further lots of magnetic tiles\n",
        *(
            line
            for size in measured_further
            for line in (f"\n### {size} pixels\n", *pixels_table(at, size, min(sizes[size], PIXEL_DRAWS)))
        ),
        "\n## Alignment: good images of the earlier pools\n",
        *kept_lines(at.work / "choices" / "alignment.json", partial(alignment_table, at, list(sizes))),
        "\n## Time to score a lot, the ViT apart\n",
        *SECONDS_HEAD,
        *(
            line
            for size in measured_further
            for line in kept_lines(
                at.work / "choices" / f"seconds-{size}.json", partial(seconds_table, at, size, TIMED)
            )
        ),
    ]


def _draws(text: str) -> dict[int, int]:
    """Parse draws by size, such as "224:3,392:2"."""
    parts = (part.split(":") for part in text.split(","))
    return {int(size): int(count) for size, count in parts}


def main() -> None:
    """Print the page."""
    options = parser(__doc__)
    options.add_argument(
        "--further", default="224:3,294:0,392:3,518:0", help="draws of further lots at each image size"
    )
    options.add_argument("--judging", default="392:3", help="the same of judging lots")
    options.add_argument(
        "--kept", action="store_true", help="image tables alone, of what WORK has; compute nothing"
    )
    given = options.parse_args()
    lines = page(setup(given), _draws(given.further), _draws(given.judging), given.kept)
    head = Path(__file__).parents[1] / "data" / "choices_head.md"
    print(head.read_text(encoding="utf-8").strip(), *lines, sep="\n")


if __name__ == "__main__":
    main()
