"""What checking an image gave, as it is written: to JSON, to a log, to who is told."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..verdict.regions import Region
from .checker import Check


def check_facts(check: Check) -> dict[str, Any]:
    """Return what checking an image gave, for JSON, without its map; numbers that it has none of are None."""
    scored = check.status == "ok"
    return {
        "image": check.name,
        "status": check.status,
        "raw_score": round(check.raw_score, 6) if scored else None,
        "p": check.p if scored else None,
        "verdict": check.verdict,
        "regions": [_region(region) for region in check.regions],
        "cls_distance": round(check.cls_distance, 6) if scored else None,
        "brightness": round(check.brightness, 6) if scored else None,
        "sharpness": round(check.sharpness, 6) if scored else None,
        "warnings": list(check.warnings),
        "error": check.error,
    }


def _region(region: Region) -> dict[str, Any]:
    """A region as regions.csv has it."""
    facts = {**dataclasses.asdict(region)}
    del facts["runs"]
    return {key: round(value, 6) for key, value in facts.items()}
