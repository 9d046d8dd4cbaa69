"""Presets: one word to all settings, for each kind of bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from musc_edge import LotError, ScoreSettings, settings_for
from musc_edge.runtime.tiling import Tiles
from musc_edge.runtime.types import Manifest
from musc_edge.tools.summary import method_lines
from support.lots import MANIFEST

SMALL = replace(MANIFEST, backbone="DINOv2-S/14", grid=(16, 16))
FINE = replace(SMALL, grid=(37, 37))
CLIP = replace(SMALL, backbone="ViT-L-14-336", made_with={"open_clip": "2.32.0"})
CLIP_OF_TIMM = replace(SMALL, backbone="vit_base_patch16_clip_224.openai")


@pytest.mark.parametrize("manifest", [SMALL, FINE, CLIP, CLIP_OF_TIMM])
def test_the_paper_is_the_paper_whatever_the_bundle(manifest: Manifest) -> None:
    settings = settings_for(manifest, "paper")
    assert settings == ScoreSettings()
    assert (settings.degrees, settings.interval, settings.neighbors) == ((1, 3, 5), (0.0, 0.3), (1, 2, 3))


@pytest.mark.parametrize("manifest", [FINE, CLIP, CLIP_OF_TIMM])
def test_default_is_the_paper_where_nothing_else_was_measured(manifest: Manifest) -> None:
    assert settings_for(manifest) == ScoreSettings()


@pytest.mark.parametrize(
    ("manifest", "degrees", "why"),
    [
        (SMALL, (1, 5), "fewer than 28 patches"),
        (replace(SMALL, grid=(27, 40)), (1, 5), "fewer than 28 patches"),
        (replace(SMALL, grid=(28, 28)), (1, 3, 5), "28x28 patches"),
        (FINE, (1, 3, 5), "37x37 patches"),
        (CLIP, (1, 3, 5), "CLIP"),
        (CLIP_OF_TIMM, (1, 3, 5), "CLIP"),
    ],
)
def test_degrees_by_the_grid(manifest: Manifest, degrees: tuple[int, ...], why: str) -> None:
    settings = settings_for(manifest, "paper", degrees="auto")
    assert settings.degrees == degrees
    (said,) = [choice for choice in settings.chosen if choice.option == "degrees"]
    assert said.value == degrees
    assert why in said.why


def test_what_is_given_goes_before_the_preset() -> None:
    given = settings_for(SMALL, "paper", degrees=(3,), interval=(0.1, 0.5), neighbors=(1,), group_size=9)
    assert given == ScoreSettings((3,), (0.1, 0.5), (1,), 9)
    assert [choice.option for choice in given.chosen] == [
        *("method", "degrees", "interval", "neighbors", "group_size")
    ]
    assert {choice.why for choice in given.chosen[1:]} == {"as given"}


def text(settings: ScoreSettings) -> str:
    return " ".join(" ".join(method_lines(settings)).split())


def test_what_is_given_is_said_beside_the_preset() -> None:
    given = {"degrees": (1,), "rescore": "none", "judge_by": "raw_score", "interval": (0.0, 0.3)}
    said = text(settings_for(SMALL, "paper", **given))
    assert said == (
        "method paper: the authors' choices, but degrees 1, rescore none, judge by raw_score as given"
    )
    assert text(settings_for(CLIP, degrees=(1,))).endswith("for a ViT of CLIP, but degrees 1 as given")
    assert "copies" not in text(settings_for(SMALL, copies_judge=True))
    assert text(settings_for(SMALL, burn_out=True, tiles=Tiles(2, 3))).endswith(
        "but burn out, 2 x 3 tiles as given"
    )


def test_what_was_measured_for_pairs_is_said_so_by_residual() -> None:
    said = text(settings_for(SMALL, by="residual"))
    assert "degrees 1,5 (measured for pairs, not by residual, for fewer than 28 patches a side)" in said
    assert "judge by raw_score (measured for pairs, not by residual, better than rescored)" in said
    assert said.endswith("but by residual as given")


@pytest.mark.parametrize("given", [{"rescore": "salient"}, {"rescore": "cls"}, {"neighbors": (1, 4)}])
def test_a_rescoring_that_is_asked_for_judges(given: dict[str, Any]) -> None:
    settings = settings_for(SMALL, **given)
    assert settings.judge_by == "score"
    (said,) = [choice for choice in settings.chosen if choice.option == "judge_by"]
    assert "rescoring is asked for" in said.why
    assert settings_for(SMALL, judge_by="raw_score", **given).judge_by == "raw_score"
    assert settings_for(SMALL, rescore="none").judge_by == "raw_score"


def test_default_is_what_was_measured_elsewhere() -> None:
    settings = settings_for(SMALL)
    assert settings == ScoreSettings((1, 5), position_median="auto", judge_by="raw_score")
    assert settings_for(SMALL, degrees=(1, 3, 5), position_median=0.0, judge_by="score") == ScoreSettings()
    assert "CLIP" in settings_for(CLIP).chosen[0].why


def test_fast_compares_no_images() -> None:
    assert settings_for(CLIP, "fast") == ScoreSettings((1,), by="residual", judge_by="raw_score")
    changed = settings_for(SMALL, "fast", degrees=(3,))
    assert changed.degrees == (3,)
    assert [choice.option for choice in changed.chosen] == ["method", "by", "judge_by", "degrees"]
    with pytest.raises(LotError, match="group size 9 has no meaning by residual"):
        settings_for(SMALL, "fast", group_size=9)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(LotError, match=r"'best': expected one of paper, default, fast"):
        settings_for(SMALL, "best")
