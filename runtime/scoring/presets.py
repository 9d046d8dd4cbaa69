"""From one word to all settings of the method: what is chosen for a bundle when a user does not say.

    paper      what the authors chose, whatever the bundle
    default    what measurements on other ViTs and grids speak for (docs/accuracy.md); else the paper's
    fast       the residual of what is common in the lot, of single patches, judged before rescoring

Each choice comes with its reason, for the summary and lot.json.  What a user gives by itself goes before
the preset's.
"""

from __future__ import annotations

from typing import Any

from ..errors import LotError
from ..settings import AUTO, DEFAULT, METHODS, PAPER, RAW_SCORE, RESIDUAL, Choice, ScoreSettings
from ..types import Manifest

BY_GRID = ((37, PAPER.degrees), (28, (1, 3)), (0, (1, 5)))
"""Degrees from so many patches a side on: of 37 the authors chose them, below they were measured."""

_PRESETS = {
    "fast": (
        Choice("by", RESIDUAL, "time grows with the lot, not with its square"),
        Choice("degrees", (1,), "as measured best without comparing"),
        Choice("judge_by", RAW_SCORE, "rescoring did not help where it was measured"),
    )
}
"""What each preset chooses that is not the paper's."""


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
    preset = [each for each in _PRESETS.get(method, ()) if each.option not in given]
    chosen = [Choice("method", method, METHODS[method]), *preset]
    values: dict[str, Any] = {each.option: each.value for each in preset} | given
    if values.get("degrees") == AUTO:
        found = degrees_for(manifest)
        values["degrees"] = found.value
        chosen.append(found)
    return ScoreSettings(**values, chosen=tuple(chosen))


def degrees_for(manifest: Manifest) -> Choice:
    """Choose the degrees by the grid: averages over r x r patches wipe out what is smaller than they."""
    if is_clip(manifest):
        return Choice("degrees", PAPER.degrees, "the paper's, for a ViT of CLIP")
    rows, columns = manifest.grid
    degrees = next(each for least, each in BY_GRID if min(rows, columns) >= least)
    why = "the paper's" if degrees == PAPER.degrees else "measured"
    return Choice("degrees", degrees, f"{why}, for a grid of {rows}x{columns} patches")


def is_clip(manifest: Manifest) -> bool:
    """Return whether a bundle's ViT is one of CLIP, as far as the bundle says."""
    return "open_clip" in manifest.made_with or "clip" in manifest.backbone.lower()
