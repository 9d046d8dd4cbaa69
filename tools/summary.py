"""What ``musc-edge`` prints at the end: the worst images, where things are, what a bundle is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..runtime.results import CONTACT_SHEET, SCORES, warnings
from ..runtime.types import Bundle, LotResult
from .progress import duration

SKIPPED_EXIT = 3
_WORST = 10
_SKIPPED_SHOWN = 10


def summary_text(result: LotResult, out: Path) -> str:
    """For people: the most suspicious images, what was skipped, the files."""
    order = result.order()[:_WORST]
    name_width = max(len(printable(result.images[i].name)) for i in order)
    lines = [
        "",
        f"most suspicious of {len(result.images)} images",
        f"   # {'image':<{name_width}}   score     raw",
    ]
    lines += [
        f"{place:>4} {printable(result.images[i].name):<{name_width}}"
        f"  {result.scores[i]:6.4f}  {result.raw_scores[i]:6.4f}"
        for place, i in enumerate(order, 1)
    ]
    lines += _skipped_lines(result)
    lines += [
        "",
        f"scores         {out / SCORES}",
        f"contact sheet  {out / CONTACT_SHEET}",
        _time_line(result),
    ]
    return "\n".join(lines)


def summary_json(result: LotResult, out: Path, description: dict[str, Any]) -> str:
    """For machines: lot.json's content with the output folder and every image's scores, worst first."""
    ranked = [
        {
            "image": result.images[i].name,
            "raw_score": round(float(result.raw_scores[i]), 6),
            "score": round(float(result.scores[i]), 6),
            "lot_score": round(float(result.lot_scores[i]), 6),
        }
        for i in result.order()
    ]
    return json.dumps({"out": str(out), **description, "ranked": ranked}, indent=2)


def bundle_text(bundle: Bundle) -> str:
    """For people: what a bundle is and how well its numbers are proved."""
    m = bundle.manifest
    size, grid = ("x".join(map(str, pair)) for pair in (m.preprocess.size, m.grid))
    rows = [
        ("bundle", str(bundle.root)),
        ("backbone", f"{m.backbone} ({m.pretrained})"),
        ("image size", f"{size}, {m.preprocess.resize} {m.preprocess.interpolation}"),
        ("grid", f"{grid} patches of {m.patch_size} pixels"),
        (
            "layers",
            f"{', '.join(map(str, m.layers))}; {m.tap}, width {m.token_width}, CLS width {m.cls_width}",
        ),
        ("precision", m.precision),
        ("activation", m.activation),
        (
            "parity",
            f"raw scores within {m.parity.get('raw_score_max_change', float('nan')):.1e} of the source "
            f"on {m.parity.get('images', 0)} images",
        ),
        ("made with", ", ".join(f"{k} {v}" for k, v in m.made_with.items() if k != "source_sha256")),
        ("sha256", bundle.digest),
    ]
    rows += [
        ("file", f"{name}  {(bundle.root / name).stat().st_size / 1e6:.1f} MB, hash ok") for name in m.files
    ]
    return "\n".join(f"{label:<11} {value}" for label, value in rows)


def bundle_json(bundle: Bundle) -> str:
    """For machines: the manifest with the bundle's path and identity."""
    data = {"path": str(bundle.root), "sha256": bundle.digest, **dataclasses.asdict(bundle.manifest)}
    return json.dumps(data, indent=2)


def printable(name: str) -> str:
    """A file name on one line, whatever bytes are in it."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def _skipped_lines(result: LotResult) -> list[str]:
    if not result.skipped:
        return []
    lines = ["", *(f"warning: {text}" for text in warnings(result))]
    shown = result.skipped[:_SKIPPED_SHOWN]
    lines += [f"  {printable(image.name)}: {image.status} ({image.reason})" for image in shown]
    if len(result.skipped) > len(shown):
        lines.append(f"  ... and {len(result.skipped) - len(shown)} more")
    return lines


def _time_line(result: LotResult) -> str:
    total = sum(result.timings.values())
    parts = ", ".join(
        f"{stage} {seconds:.1f}" for stage, seconds in result.timings.items() if seconds >= 0.05
    )
    return f"took           {duration(total)} ({parts})"
