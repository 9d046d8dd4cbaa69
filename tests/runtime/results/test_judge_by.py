"""The column that a lot is judged by: order, verdicts, texts and pages follow it, in new and old results."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musc_edge import LotError, LotResult, RejectCount, ScoreSettings
from musc_edge.runtime.results.annotations import label_studio
from musc_edge.runtime.results.read_results import read_results
from musc_edge.runtime.results.rejudge import Request, judged_results, rejudge
from musc_edge.tools.verdict import verdict_text
from support.lots import lot_result
from support.places import DATA

NAMES = [f"{k}.png" for k in range(6)]


@pytest.fixture(scope="module")
def by_raw(tmp_path_factory: pytest.TempPathFactory) -> LotResult:
    """A lot in which raw scores fall from the first image to the last, and scores rise."""
    made = lot_result(tmp_path_factory.mktemp("lot") / "lot", NAMES, scores=np.linspace(0.2, 0.7, 6).tolist())
    maps = np.sort(made.maps, axis=0)[::-1]
    run = replace(made.run, settings=ScoreSettings(judge_by="raw_score"))
    return replace(made, maps=maps, raw_scores=maps.max(axis=(1, 2)).astype(np.float64), run=run)


def test_order_and_texts_follow(by_raw: LotResult) -> None:
    assert by_raw.order() == [0, 1, 2, 3, 4, 5]
    assert replace(by_raw, run=replace(by_raw.run, settings=ScoreSettings())).order() == [5, 4, 3, 2, 1, 0]
    head, first = str(by_raw).splitlines()[1:3]
    assert head.split() == ["#", "image", "raw", "score"]
    assert first.split() == ["1", "0.png", f"{by_raw.raw_scores[0]:.4f}", "0.2000"]


def test_verdicts_follow(by_raw: LotResult) -> None:
    judged = by_raw.judge(RejectCount(1)).judgement
    assert judged is not None
    assert (judged.judged_by, judged.verdicts[0]) == ("raw_score", "reject")
    assert judged.pixel_limit == judged.limits.reject_from  # of the raw scores themselves


def test_results_that_are_judged_anew_follow(by_raw: LotResult, tmp_path: Path) -> None:
    by_raw.save(tmp_path / "out")
    rejudge(tmp_path / "out", Request(RejectCount(2)))
    (each,) = judged_results(tmp_path / "out", Request())
    assert each.lot.judge_by == "raw_score"
    assert [image.name for image in each.lot.images if image.verdict == "reject"] == ["0.png", "1.png"]
    assert "# image     raw   score  verdict" in verdict_text([each], tmp_path / "out")
    (first, *_) = [task["predictions"] for task in label_studio([each]) if task["predictions"]]
    assert first[0]["score"] == each.lot.images[0].raw_score


def test_results_of_earlier_versions_are_judged_by_score(tmp_path: Path) -> None:
    out = shutil.copytree(DATA / "schema1" / "results", tmp_path / "old")
    (lot,) = read_results(Path(out))
    assert "judge_by" not in lot.settings
    assert lot.judge_by == "score"


def test_a_column_that_is_none_is_refused(by_raw: LotResult, tmp_path: Path) -> None:
    with pytest.raises(LotError, match=r"'lot_score': expected score or raw_score"):
        ScoreSettings(judge_by="lot_score")
    by_raw.save(tmp_path / "out")
    path = tmp_path / "out" / "lot.json"
    about = json.loads(path.read_text())
    about["settings"]["judge_by"] = "lot_score"
    path.write_text(json.dumps(about))
    with pytest.raises(LotError, match="judge_by"):
        judged_results(tmp_path / "out", Request(RejectCount(1)))
