"""Residuals by a second run of the ViT, where tokens fit nowhere: the same bytes, and said before."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from musc_edge import LotError, LotResult, ReadOptions, Resources, ScoreSettings, make_reference, score_lot
from musc_edge.runtime import planning
from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.forecast import Forecast
from musc_edge.runtime.planning import Planner
from musc_edge.runtime.scoring.residual_again import Measured
from support.command_line import run_here
from support.references import BUNDLE, part, write_lot

pytestmark = pytest.mark.slow
SETTINGS = ScoreSettings((1, 3), by="residual", position_median=0.5)
FEW = Resources(batch=3, threads=2)


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good parts, one with a spot, two files of the same picture, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("lots") / "lot"
    write_lot(folder, 20)
    part(30, spot=60).save(folder / "spot.png")
    (folder / "same.png").write_bytes((folder / "7.png").read_bytes())
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:-200])
    return folder


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokens fit."""
    monkeypatch.setattr(Planner, "_no_room", lambda *_, **__: True)


def score(lot: Path, **watch: Any) -> LotResult:
    return score_lot(lot, BUNDLE, SETTINGS, FEW, watch=Watch(**watch))


def test_scores_are_the_same_bytes(lot: Path, request: pytest.FixtureRequest) -> None:
    kept = score(lot)
    request.getfixturevalue("twice")
    forecasts: list[Forecast] = []
    stages: dict[str, float] = {}

    def progress(stage: str, done: float, total: float, unit: str) -> None:
        stages[stage] = done / total

    again = score(lot, announce=forecasts.append, progress=progress)
    for name in ("maps", "raw_scores", "scores", "lot_scores", "cls"):
        assert getattr(again, name).tobytes() == getattr(kept, name).tobytes(), name
    assert again.copies == kept.copies
    assert len(kept.copies) == 1
    assert [skipped.name for skipped in again.skipped] == ["5.png"]
    (forecast,) = forecasts
    assert (forecast.plan.twice, forecast.reads) == (True, 0)
    assert forecast.plan.token_bytes < forecast.plan.workspace_bytes
    assert forecast.seconds > forecast.vit_seconds
    assert stages["score"] == 1


@pytest.mark.usefixtures("twice")
def test_an_image_that_is_missing_in_the_second_run_is_an_error(lot: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(lot, tmp_path / "lot"))

    def progress(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "extract" and done == total:
            shutil.copy(changed / "5.png", changed / "3.png")

    with pytest.raises(LotError, match="of 21 images only 20 could be read"):
        score(changed, progress=progress)


def test_an_image_that_comes_back_in_the_second_run_is_an_error() -> None:
    with ThreadPoolExecutor(1) as pool:
        measured = Measured(lambda *_: None, [], (3, 4), pool)
        measured.take(0, np.zeros((0, 2, 4, 5)))
        with pytest.raises(LotError, match="more than 3 images can be read now"):
            measured.take(2, np.zeros((0, 2, 4, 5)))


def test_it_is_taken_only_where_tokens_fit_nowhere(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=10**12))
    plan = [
        "musc-edge",
        "plan",
        "100000",
        "-b",
        str(BUNDLE),
        "--score-by",
        "residual",
        "--memory-budget",
        "1G",
    ]
    monkeypatch.setattr(planning, "shutil", free)
    assert "the ViT runs twice" not in run_here(plan).stdout
    free.disk_usage = lambda _: SimpleNamespace(free=10**6)
    text = run_here(plan).stdout
    assert "only what tells copies, since all do not fit on the disk; the ViT runs twice" in text
    for more in (["--resume"], ["--rescore", "salient"]):
        assert "the ViT runs twice" not in run_here([*plan, *more]).stdout


def test_a_region_and_a_reference_keep_tokens(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the disk has, where nothing need go there."""
    seen = []
    no_room = Planner._no_room

    def judged(planner: Planner, plan: Any, survey: Any, *, keep: bool) -> bool:
        monkeypatch.setattr(planning, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=0)))
        seen.append(no_room(planner, replace(plan, tokens_on_disk=True), survey, keep=keep))
        return False

    monkeypatch.setattr(Planner, "_no_room", judged)
    score_lot(lot, BUNDLE, SETTINGS, FEW, reading=ReadOptions(roi=(0, 0, 30, 30)))
    make_reference(lot, BUNDLE, tmp_path / "ref", SETTINGS, FEW)
    assert not any(seen)
    score(lot)
    assert seen[-1]
    assert len(seen) >= 3
