"""What the terminal says of the method of a lot, and of its groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from musc_edge import settings_for
from musc_edge.runtime.settings import Choice
from musc_edge.tools.summary import Scored, summary_text
from support.lots import MANIFEST, lot_result

ABOUT = {"warnings": [], "notes": [], "resolution": {"text": "as it is"}, "timings_s": {"score": 1.0}}


def scored(root: Path, shares: list[float]) -> list[Scored]:
    """Groups that settled on these shares of the position median."""
    made = lot_result(root / "lot", ["a.png"])
    settings = settings_for(replace(MANIFEST, grid=(16, 16)))
    parts = []
    for number, share in enumerate(shares):
        own = settings.with_choice(Choice("position_median", share, "by its maps"))
        result = replace(made, run=replace(made.run, settings=own))
        parts.append(Scored(result, ABOUT, {}, f"groups/{number}"))
    return parts


def method_of(root: Path, shares: list[float]) -> str:
    text = " ".join(summary_text(scored(root, shares), root / "out").split())
    return text[text.index("method ") : text.index("resolution ")]


def test_groups_alike_share_a_line(tmp_path: Path) -> None:
    text = method_of(tmp_path, [0.5, 0.5])
    assert text.startswith("method default: degrees 1,5")
    assert text.count("position median 0.5 (by its maps)") == 1


def test_groups_that_differ_are_told_apart(tmp_path: Path) -> None:
    text = method_of(tmp_path, [0.5, 0.0, 0.5])
    first, second = text.split("method ")[1:]
    assert first.startswith("groups/0: default:")
    assert "position median 0.5" in first
    assert second.startswith("groups/1: default:")
    assert "position median 0.0" in second
    assert "... and 2 more: see chosen in lot.json" in method_of(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5])
