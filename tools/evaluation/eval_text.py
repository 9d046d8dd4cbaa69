"""Format an evaluation: a table for people, JSON for machines, CSV with a row for each kind of defect."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...runtime.results.text import printable
from .evaluate import Category
from .image_metrics import ImageMetrics, Measured
from .pixel_metrics import LIMITS, PixelMetrics
from .published import published

HEAD = (
    "images", "defects", "AUROC", "AP", "F1-max", "raw AUROC",
    "px AUROC", "px AP", "px F1-max", "PRO-200", *(f"AUPRO@{limit}" for limit in LIMITS),
)  # fmt: skip
MEAN = "mean"


def values_of(image: ImageMetrics, raw: ImageMetrics | None, pixel: PixelMetrics | None) -> list[float]:
    """The numbers of a row, in the order of ``HEAD``; metrics in %."""
    nothing = float("nan")
    pixels = [pixel.auroc, pixel.ap, pixel.f1_max, pixel.pro_200, *pixel.aupro.values()] if pixel else []
    metrics = [
        image.auroc.value,
        image.ap.value,
        image.f1_max.value,
        raw.auroc.value if raw else nothing,
        *(pixels or [nothing] * (4 + len(LIMITS))),
    ]
    return [image.good + image.defective, image.defective, *(100 * value for value in metrics)]


def rows(categories: Sequence[Category], layout: str) -> list[tuple[str, list[float]]]:
    """The rows of the table: products with their kinds of defect, the mean, and what the authors report."""
    table = []
    for category in categories:
        table.append((category.name, values_of(category.image, category.raw, category.pixel)))
        table += [
            (f"  {kind}", values_of(image, None, pixel)) for kind, (image, pixel) in category.kinds.items()
        ]
    if len(categories) > 1:
        table.append((MEAN, mean_of(categories)))
    theirs = published(layout, categories[0].lot.about["bundle"])
    if theirs:
        auroc, f1, ap = theirs.image
        px_auroc, px_f1, px_ap, pro = theirs.pixel
        nothing = float("nan")
        values = [nothing, nothing, auroc, ap, f1, nothing, px_auroc, px_ap, px_f1, pro]
        name = f"authors, {theirs.data} ({theirs.categories} products)"
        table.append((name, values + [nothing] * len(LIMITS)))
    return table


def mean_of(categories: Sequence[Category]) -> list[float]:
    """The mean over products, each counted once, as published tables have it; NaN where one has none."""
    of_each = [values_of(category.image, category.raw, category.pixel) for category in categories]
    columns = list(zip(*of_each, strict=True))
    return [sum(column) if k < 2 else sum(column) / len(column) for k, column in enumerate(columns)]


def evaluation_text(categories: Sequence[Category], layout: str) -> str:
    """Format the table, the confusion of each product, and remarks."""
    table = rows(categories, layout)
    width = max(len(printable(name)) for name, _ in table)
    lines = [" " * width + "  " + "  ".join(HEAD) + "    (in %)"]
    for name, values in table:
        cells = [
            f"{_number(value, whole=k < 2):>{len(head)}}"
            for k, (head, value) in enumerate(zip(HEAD, values, strict=True))
        ]
        lines.append(f"{printable(name):<{width}}  {'  '.join(cells)}")
    for category in categories:
        lines += ["", *_details(category)]
    return "\n".join(lines)


def _details(category: Category) -> list[str]:
    """Format intervals, confusion and remarks of one product."""
    image = category.image
    parts = [("AUROC", image.auroc), ("AP", image.ap), ("F1-max", image.f1_max)]
    intervals = [f"{name} {_interval(value)}" for name, value in parts if math.isfinite(value.low)]
    lines = [f"{printable(category.name)}: {category.lot.folder}"]
    if intervals:
        lines.append(f"  95 % of bootstrap draws of the images: {', '.join(intervals)}")
    if category.confusion:
        c = category.confusion
        at = "" if math.isnan(c.threshold) else f" {c.threshold:.4f}"
        lines.append(
            f"  at{at} ({category.verdict}): {c.found} defects found, {c.missed} missed, "
            f"{c.false_alarms} false alarms, {c.passed} good passed"
        )
    if category.review:
        defective, good = category.review
        lines.append(f"  for review, of those missed or passed: {defective} defects, {good} good")
    return lines + [f"  note: {printable(remark)}" for remark in category.remarks]


def _interval(value: Measured) -> str:
    return f"{100 * value.low:.1f} to {100 * value.high:.1f}"


def _number(value: float, *, whole: bool) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if whole else f"{value:.2f}"


def evaluation_csv(categories: Sequence[Category], layout: str) -> str:
    """Format the table as CSV; kinds of defect have their product's name in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["product", "kind", *HEAD])
    product = ""
    for name, values in rows(categories, layout):
        kind = name.removeprefix("  ") if name.startswith("  ") else ""
        product = product if kind else name
        numbers = ["" if math.isnan(value) else f"{value:.4f}".rstrip("0").rstrip(".") for value in values]
        writer.writerow([product, kind, *numbers])
    return text.getvalue()


def evaluation_facts(categories: Sequence[Category], layout: str) -> dict[str, Any]:
    """An evaluation as JSON values, metrics from 0 to 1; null where one is not defined."""
    theirs = published(layout, categories[0].lot.about["bundle"])
    facts = {
        "layout": layout,
        "products": [_facts(category) for category in categories],
        "mean_percent": dict(zip(HEAD, mean_of(categories), strict=True)) if len(categories) > 1 else None,
        "authors_percent": asdict(theirs) if theirs else None,
    }
    defined: dict[str, Any] = _defined(facts)
    return defined


def _facts(category: Category) -> dict[str, Any]:
    return {
        "name": category.name,
        "results": str(category.lot.folder),
        "bundle": category.lot.about["bundle"],
        "image": asdict(category.image),
        "image_raw": asdict(category.raw),
        "pixel": _pixel_facts(category.pixel),
        "kinds": {
            kind: {"image": asdict(image), "pixel": _pixel_facts(pixel)}
            for kind, (image, pixel) in category.kinds.items()
        },
        "confusion": asdict(category.confusion) if category.confusion else None,
        "verdict": category.verdict,
        "review": dict(zip(("defective", "good"), category.review, strict=True)) if category.review else None,
        "remarks": list(category.remarks),
    }


def _pixel_facts(pixel: PixelMetrics | None) -> dict[str, Any] | None:
    if pixel is None:
        return None
    facts = {name: value for name, value in vars(pixel).items() if name not in ("curves", "aupro")}
    return {**facts, "aupro": {str(limit): value for limit, value in pixel.aupro.items()}}


def _defined(value: Any) -> Any:
    """Replace NaN, which JSON has no word for, by None."""
    if isinstance(value, dict):
        return {key: _defined(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
