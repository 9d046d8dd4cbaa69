"""From one word to all settings of the method: what is chosen for a bundle when a user does not say.

    paper      what the authors chose, whatever the bundle
    default    what measurements on other ViTs and grids speak for (docs/accuracy.md); else the paper's
    fast       the residual of what is common in the lot, of single patches, judged before rescoring

Each choice comes with its reason, for the summary and lot.json.  What a user gives by itself goes before
the preset's, and is said beside it; a rescoring that is asked for is also what a lot is judged by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import LotError
from ..settings import (
    AUTO,
    DEFAULT,
    GIVEN,
    METHODS,
    PAPER,
    RAW_SCORE,
    RESCORE,
    RESIDUAL,
    SCORE,
    Choice,
    ScoreSettings,
)
from ..types import Manifest

PAPER_GRID = 28
"""Patches a side from which on the authors' choices stay; their images have 37.

At 28 others are better in the mean, but cracks in tiles lose by them (docs/choices.md).
"""

MEASURED_DEGREES = (1, 5)
"""Degrees of smaller grids (docs/accuracy.md): 1 for small defects, 5 for large and faint ones."""

_DEFAULT = (
    Choice("degrees", MEASURED_DEGREES, f"measured for fewer than {PAPER_GRID} patches a side"),
    Choice("position_median", AUTO, "where the lot is aligned"),
    Choice("judge_by", RAW_SCORE, "measured better than rescored"),
)
_FAST = (
    Choice("by", RESIDUAL, "time grows with the lot, not with its square"),
    Choice("degrees", (1,), "measured"),
    Choice("judge_by", RAW_SCORE, "before rescoring"),
)
_FOR_PAIRS = "measured for pairs, not by residual,"


def settings_for(manifest: Manifest, method: str = DEFAULT, **given: Any) -> ScoreSettings:
    """Resolve a preset for a bundle into settings.

    Parameters
    ----------
    manifest : Manifest
        The bundle's (``open_bundle(folder).manifest``): of which kind the ViT is, and its grid.
    method : {"paper", "default", "fast"}
        The preset.
    given : fields of ScoreSettings
        What is set whatever the preset; ``degrees`` may be "auto", which chooses by the grid.

    Raises
    ------
    LotError
        If there is no such preset, or a value cannot be used.
    """
    if method not in METHODS:
        raise LotError(f"method {method!r}: expected one of {', '.join(METHODS)}.")
    kept = paper_because(manifest) if method == DEFAULT else ""
    preset = () if kept else {DEFAULT: _DEFAULT, "fast": _FAST}.get(method, ())
    whole = {each.option: each for each in preset}
    if _asks_to_rescore(given) and "judge_by" in whole:
        whole["judge_by"] = Choice("judge_by", SCORE, "since a rescoring is asked for")
    if given.get("degrees") == AUTO:
        whole["degrees"] = degrees_for(manifest)
        given = {name: value for name, value in given.items() if name != "degrees"}
    chosen = [each for each in whole.values() if each.option not in given]
    if method == DEFAULT and given.get("by") == RESIDUAL:
        chosen = [replace(each, why=each.why.replace("measured", _FOR_PAIRS)) for each in chosen]
    values: dict[str, Any] = {each.option: each.value for each in chosen} | given
    chosen.insert(0, Choice("method", method, kept or METHODS[method]))
    chosen += _departures(ScoreSettings(**{each.option: each.value for each in preset}), given)
    return ScoreSettings(**values, chosen=tuple(chosen))


def _asks_to_rescore(given: dict[str, Any]) -> bool:
    """Return whether a user gives a rescoring, which would have no part in order and verdicts otherwise."""
    return "neighbors" in given or given.get("rescore", RESCORE[-1]) != RESCORE[-1]


def _departures(preset: ScoreSettings, given: dict[str, Any]) -> list[Choice]:
    """What a user gave that is not as the preset has it."""
    return [
        Choice(name, value, GIVEN) for name, value in given.items() if value != getattr(preset, name, value)
    ]


def degrees_for(manifest: Manifest) -> Choice:
    """Choose the degrees by the grid: averages over r x r patches wipe out what is smaller than they."""
    kept = paper_because(manifest)
    if kept:
        return Choice("degrees", PAPER.degrees, kept)
    return Choice("degrees", MEASURED_DEGREES, f"measured for fewer than {PAPER_GRID} patches a side")


def paper_because(manifest: Manifest) -> str:
    """Say why the paper's choices stay for a bundle; empty where measurements may speak for others."""
    rows, columns = manifest.grid
    if is_clip(manifest):
        return "the paper's, for a ViT of CLIP"
    return f"the paper's, for a grid of {rows}x{columns} patches" if min(rows, columns) >= PAPER_GRID else ""


def is_clip(manifest: Manifest) -> bool:
    """Return whether a bundle's ViT is one of CLIP, as far as the bundle says."""
    return "open_clip" in manifest.made_with or "clip" in manifest.backbone.lower()
