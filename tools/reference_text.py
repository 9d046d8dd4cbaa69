"""Format what ``musc-edge`` prints on a reference and on checked images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from .._numbers import counted
from ..runtime.memory import size_text
from ..runtime.reference.check_facts import check_facts
from ..runtime.reference.checker import ALPHA, Check, Checker
from ..runtime.reference.files import ReferenceFolder
from ..runtime.reference.manifest import ReferenceManifest
from ..runtime.results.text import columns, printable
from ..runtime.settings import PAIRS, RESIDUAL

LEAST = round(1 / ALPHA) - 1
"""Images to calibrate by without which nothing can be rejected at the usual false-alarm rate."""


def _region_text(m: ReferenceManifest) -> str:
    """What of its images takes part."""
    parts = []
    if region := m.region:
        width, height = region.size
        share = f"{region.patches.mean():.0%}"
        parts.append(f"{share} of the patches of images of {width} x {height} pixels")
    if m.masks:
        parts.append("by a mask for each image")
    if m.mask_background:
        parts.append("without a plain background")
    return ", ".join(parts)


def reference_text(reference: ReferenceFolder) -> str:
    """Format the facts on a reference as text."""
    m, how = reference.manifest, reference.manifest.options
    n = len(m.calibration)
    left_out = how.get("suspects_left_out", 0)
    beside = f"; {counted(len(m.others), 'more image')} accepted but not kept" if m.others else ""
    patches, share = m.grid[0] * m.grid[1], how.get("position_median", 0.0)
    kept = "all patches" if m.whole else f"{m.patches} of {patches} patches for each layer and degree"
    bank = f"{counted(len(m.images), 'image')}, {kept}, {m.precision}{beside}"
    if m.by == RESIDUAL:
        bank = f"what {counted(len(m.images), 'image')} have in common; patches are scored by residual"
    disk = sum((reference.root / name).stat().st_size for name in m.files)
    rows = [
        ("reference", str(reference.root)),
        ("bank", bank),
        ("suspects", f"{counted(left_out, 'image')} left out of the bank"),
        (
            "calibrated",
            f"by {counted(n, 'image')} ({how.get('calibrated_by')}); the smallest p is {1 / (n + 1):.3g}"
            + ("" if (n + 1) * ALPHA >= 1 else f": too few to reject at {ALPHA:g}, which takes {LEAST}"),
        ),
        (
            "method",
            f"degrees {', '.join(map(str, m.degrees))}"
            + (f"; interval {m.interval[0]:g}, {m.interval[1]:g}" if m.by == PAIRS else "")
            + ("; burn-out" if m.burn_out else "")
            + (f"; {share:g} of each position's median" if share else "")
            + (f"; window {m.window}" if m.window is not None else ""),
        ),
        *([("tiles", f"{m.tiles}, a bank for each")] if m.tiles else []),
        *([("region", _region_text(m))] if m.excludes else []),
        ("size", f"{size_text(disk)} on disk, {size_text(m.bank_bytes)} in memory"),
        ("bundle", f"{m.backbone}, {m.bundle}"),
        ("made with", ", ".join(f"{k} {v}" for k, v in m.made_with.items())),
        ("sha256", reference.digest),
    ]
    return "\n".join(f"{label:<11} {printable(value)}" for label, value in rows)


def reference_json(reference: ReferenceFolder) -> str:
    """Format a reference as JSON: the manifest with path and identity, and the smallest p."""
    content = {
        "path": str(reference.root),
        "sha256": reference.digest,
        "smallest_p": 1 / (len(reference.calibration) + 1),
        **dataclasses.asdict(reference.manifest),
    }
    return json.dumps(content, indent=2)


def checks_facts(checks: Sequence[Check], checker: Checker, maps: dict[str, str]) -> dict[str, Any]:
    """Return what checking images gave for JSON; ``maps`` has the file of each image's map."""
    calibration = checker.calibration
    return {
        "reference": str(checker.reference.root),
        "reference_sha256": checker.reference.digest,
        "bundle_sha256": checker.bundle.digest,
        "computed_by": [*checker.computed_by],
        "alpha": calibration.alpha,
        "calibration_images": calibration.images,
        "smallest_p": calibration.smallest,
        "reject_above": calibration.reject_above,
        "promise": calibration.promise(),
        "warnings": [*checker.warnings],
        "notes": [*checker.notes],
        "images": [{**check_facts(check), "map": maps.get(check.name, "")} for check in checks],
    }


def checks_text(checks: Sequence[Check], checker: Checker) -> str:
    """Format what checking images gave as text: a table, warnings, and what the verdicts promise."""
    names = [printable(check.name) for check in checks]
    width = max(map(columns, names))
    lines = [f"{'image':<{width}}     raw       p  verdict"]
    for name, check in zip(names, checks, strict=True):
        numbers = f"{check.raw_score:6.4f}  {check.p:6.4f}  {check.verdict}"
        said = numbers if check.status == "ok" else f"{check.status} ({check.error})"
        lines.append(f"{name}{' ' * (width - columns(name))}  {said}")
    found = [f"warning: {text}" for text in checker.warnings]
    found += [
        f"warning: {name}: {text}"
        for name, check in zip(names, checks, strict=True)
        for text in check.warnings
    ]
    found += [f"note: {text}" for text in checker.notes]
    promise = ["", checker.calibration.promise()] if checker.calibration.rejects else []
    return "\n".join([*lines, *([""] if found else []), *found, *promise])
