"""Lots whose positions' level was subtracted: regions, maps, judging anew, limits from another lot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musc_edge import (
    LotError,
    LotResult,
    RejectCount,
    ScoreSettings,
    Threshold,
    ThresholdFrom,
    read_judged_lot,
)
from musc_edge.runtime.results.read_results import read_results
from musc_edge.runtime.results.rejudge import Request, rejudge
from musc_edge.runtime.results.report.content import part_content, parts_of
from musc_edge.runtime.results.write import POSITION
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.verdict.regions import SizedMap, find_regions
from support.lots import SPEC, lot_result

NAMES = [f"{k}.png" for k in range(6)]
SIZE = (24, 36)
RULE = RejectCount(2)


@pytest.fixture(scope="module")
def leveled(tmp_path_factory: pytest.TempPathFactory) -> LotResult:
    made = lot_result(tmp_path_factory.mktemp("lot") / "lot", NAMES, size=SIZE)
    level = np.array([[0.1, 0.4, 0.0], [0.2, 0.0, 0.3]], np.float32)
    settings = ScoreSettings(position_median=0.5, judge_by="raw_score")
    raw = raw_scores(made.maps - level, SPEC.size)
    return replace(made, raw_scores=raw, level=level, run=replace(made.run, settings=settings))


def table(out: Path) -> bytes:
    return (out / "regions.csv").read_bytes()


def test_regions_lie_where_the_map_is_above_its_position(leveled: LotResult, tmp_path: Path) -> None:
    judged = leveled.judge(RULE)
    judged.save(tmp_path / "out")
    assert judged.judgement is not None
    limit = judged.judgement.pixel_limit
    assert limit is not None
    assert leveled.level is not None
    lines = table(tmp_path / "out").decode("utf-8").splitlines()[1:]
    expected = [
        f"{region.x},{region.y},{region.width},{region.height}"
        for row in range(6)
        if judged.judgement.verdicts[row] == "reject"
        for region in find_regions(SizedMap(leveled.maps[row] - leveled.level, SIZE), limit)
    ]
    assert expected
    assert all(any(box in line for line in lines) for box in expected)
    assert len(lines) == len(expected)


@pytest.mark.parametrize("maps", ["grid", "pixel", "original"])
def test_judged_anew_they_are_the_same(leveled: LotResult, tmp_path: Path, maps: str) -> None:
    leveled.judge(RULE).save(tmp_path / "whole", maps=maps)
    leveled.save(tmp_path / "out", maps=maps)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / POSITION), leveled.level)
    rejudge(tmp_path / "out", Request(RULE))
    if maps == "grid":
        assert table(tmp_path / "out") == table(tmp_path / "whole")
    found, expected = (table(tmp_path / name).count(b"\n") for name in ("out", "whole"))
    assert found >= expected - 1  # maps in pixels are interpolated twice
    rejudge(tmp_path / "out", Request(RejectCount(1)))
    assert (tmp_path / "out" / POSITION).exists()


def test_maps_and_colours_are_those_of_the_maps(leveled: LotResult, tmp_path: Path) -> None:
    leveled.save(tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "maps" / "0.npy"), leveled.maps[0])
    scale = json.loads((tmp_path / "out" / "lot.json").read_text())["heatmap_scale"]
    assert scale["high"] == pytest.approx(float(leveled.maps.max()))


def test_the_page_is_told_the_level(leveled: LotResult, tmp_path: Path) -> None:
    leveled.save(tmp_path / "out")
    lots = read_results(tmp_path / "out")
    about, _ = part_content(parts_of(lots, tmp_path / "out")[0], None)
    assert about["level"]["grid"] == [2, 3]
    replace(leveled, level=None, run=replace(leveled.run, settings=ScoreSettings())).save(tmp_path / "plain")
    about, _ = part_content(parts_of(read_results(tmp_path / "plain"), tmp_path / "plain")[0], None)
    assert "level" not in about


def test_a_level_that_is_gone_is_said(leveled: LotResult, tmp_path: Path) -> None:
    leveled.save(tmp_path / "out")
    (tmp_path / "out" / POSITION).unlink()
    with pytest.raises(LotError, match=r"position\.npy cannot be read"):
        rejudge(tmp_path / "out", Request(Threshold(0.2)))


def test_limits_of_lots_with_another_share_are_refused(leveled: LotResult, tmp_path: Path) -> None:
    leveled.save(tmp_path / "out")
    rule = ThresholdFrom(read_judged_lot(tmp_path / "out"))
    assert leveled.judge(rule).judgement is not None
    plain = replace(
        leveled, run=replace(leveled.run, settings=replace(leveled.run.settings, position_median=0.0))
    )
    with pytest.raises(LotError, match=r"position median 0.5, this lot with 0.0"):
        plain.judge(rule)
