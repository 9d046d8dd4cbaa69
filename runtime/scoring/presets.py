"""From one word to all settings of the method: what is chosen for a bundle when a user does not say.

    paper      what the authors chose, whatever the bundle
    default    what measurements on other ViTs and grids speak for (docs/accuracy.md); else the paper's

Each choice comes with its reason, for the summary and lot.json.  What a user gives by itself goes before
the preset's.
"""

from __future__ import annotations

from typing import Any

from ..errors import LotError
from ..settings import AUTO, DEFAULT, METHODS, PAPER, Choice, ScoreSettings
from ..types import Manifest

PAPER_GRID = 37
"""Patches a side of the authors' images, for which they chose the degrees."""


def settings_for(manifest: Manifest, method: str = DEFAULT, **given: Any) -> ScoreSettings:
    """Resolve a preset for a bundle into settings.

    Parameters
    ----------
    manifest : Manifest
        The bundle's (``open_bundle(folder).manifest``): of which kind the ViT is, and its grid.
    method : {"paper", "default"}
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
    values: dict[str, Any] = dict(given)
    chosen = [Choice("method", method, METHODS[method])]
    if values.get("degrees") == AUTO:
        found = degrees_for(manifest)
        values["degrees"] = found.value
        chosen.append(found)
    return ScoreSettings(**values, chosen=tuple(chosen))


def degrees_for(manifest: Manifest) -> Choice:
    """Choose the degrees by the grid: averages over r x r patches wipe out what is smaller than they."""
    rows, columns = manifest.grid
    if is_clip(manifest):
        return Choice("degrees", PAPER.degrees, "a ViT of CLIP, for which the authors chose them")
    if min(rows, columns) >= PAPER_GRID:
        return Choice("degrees", PAPER.degrees, f"{rows}x{columns} patches, as many as in the paper")
    return Choice("degrees", (1,), f"of {rows}x{columns} patches, 3x3 would hide small defects")


def is_clip(manifest: Manifest) -> bool:
    """Return whether a bundle's ViT is one of CLIP, as far as the bundle says."""
    return "open_clip" in manifest.made_with or "clip" in manifest.backbone.lower()
