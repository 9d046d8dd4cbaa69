"""Verdicts on a lot: the column that is judged, the limit of the maps' pixels, marks above the rule."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge.runtime.verdict.auto import Auto
from musc_edge.runtime.verdict.judge import Judgement, has, judge_lot
from musc_edge.runtime.verdict.judged_lot import MadeBy
from musc_edge.runtime.verdict.marks import Mark
from musc_edge.runtime.verdict.rules import RejectCount, Rule, Threshold

MADE_BY = MadeBy("ab" * 32, (1,), (0.0, 0.3), 8, 4)
NAMES = ["a", "b", "c", "d", "e"]
RAW = np.array([0.5, 0.4, 0.3, 0.2, 0.1])
SCORES = np.array([0.2, 0.45, 0.41, 0.2, 0.1])


def judge(rule: Rule | None, marks: dict[str, Mark] | None = None) -> Judgement:
    return judge_lot(NAMES, RAW, SCORES, rule, MADE_BY, marks)


def test_by_raw_scores_the_pixels_limit_is_that_of_the_images() -> None:
    judged = judge(Threshold(0.4, by="raw_score"))
    assert judged.verdicts == ("reject", "reject", "not flagged", "not flagged", "not flagged")
    assert judged.pixel_limit == 0.4


def test_the_pixels_limit_shows_reviews_too() -> None:
    assert judge(Threshold(0.4, review_from=0.25, by="raw_score")).pixel_limit == 0.25


def test_by_rescored_ones_it_is_the_raw_score_of_the_same_rank() -> None:
    judged = judge(RejectCount(2))
    assert judged.verdicts == ("not flagged", "reject", "reject", "not flagged", "not flagged")
    assert judged.limits.reject_from == 0.41
    assert judged.pixel_limit == 0.4  # the second largest raw score


def test_a_limit_that_nobody_reaches_is_that_of_the_pixels() -> None:
    assert judge(Threshold(1.5)).pixel_limit == 1.5


def test_no_limit_no_pixels() -> None:
    judged = judge_lot(NAMES, np.full(5, 0.3), SCORES, RejectCount(2, by="raw_score"), MADE_BY)
    assert judged.pixel_limit is None
    assert judged.counts == {"reject": 0, "review": 0, "not flagged": 5}


def test_a_persons_word_goes_before_the_rules() -> None:
    marks = {"b": Mark("good", "a hair"), "e": Mark("bad"), "a": Mark("", "look again"), "x": Mark("bad")}
    judged = judge(Threshold(0.41), marks)
    assert judged.verdicts == ("not flagged", "not flagged", "reject", "not flagged", "reject")
    assert judged.facts()["marks"] == {
        "a": {"mark": "", "remark": "look again"},
        "b": {"mark": "good", "remark": "a hair"},
        "e": {"mark": "bad", "remark": ""},
    }
    assert judged.facts()["counts"] == {"reject": 2, "review": 0, "not flagged": 3}


def test_marks_alone_say_nothing_of_the_others() -> None:
    judged = judge(None, {"a": Mark("bad"), "b": Mark("good")})
    assert judged.verdicts == ("reject", "not flagged", "", "", "")
    assert (judged.rule, judged.pixel_limit, judged.facts()["reject_from"]) == ("marks", None, None)


def test_what_the_table_and_lot_json_get() -> None:
    judged = judge(Threshold(0.4, review_from=0.15))
    assert judged.cells() == [
        ("review", ""), ("reject", ""), ("reject", ""), ("review", ""), ("not flagged", "")
    ]  # fmt: skip
    facts = judged.facts()
    assert facts.keys() >= {
        "rule", "judged_by", "reject_from", "review_from", "pixel_limit", "promise", "counts", "options"
    }  # fmt: skip
    assert (facts["rule"], facts["judged_by"], facts["reject_from"]) == ("threshold", "score", 0.4)
    assert "marks" not in facts


def test_p_has_six_digits() -> None:
    raw = np.append(np.linspace(0.2, 0.21, 30), 0.5)
    judged = judge_lot([str(k) for k in range(31)], raw, raw, Auto(), MADE_BY)
    assert judged.cells()[-1][0] == "reject"
    assert 0 <= float(judged.cells()[-1][1]) < 1e-9


@pytest.mark.parametrize(("least", "count", "answer"), [("reject", 0.9, False), ("reject", 0.4, True)])
def test_has(least: str, count: float, answer: bool) -> None:
    assert has(judge(Threshold(count)), least) is answer
    assert has(judge(Threshold(1.9, review_from=0.2)), "review")
    assert not has(judge(Threshold(1.9, review_from=0.2)), "reject")


@pytest.mark.parametrize(("judge_by", "rejects"), [("score", {"b", "c"}), ("raw_score", {"a", "b"})])
def test_a_rule_that_names_no_column_takes_the_lots(judge_by: str, rejects: set[str]) -> None:
    judged = judge_lot(NAMES, RAW, SCORES, RejectCount(2), MADE_BY, judge_by=judge_by)
    assert judged.judged_by == judge_by
    assert {name for name, word in zip(NAMES, judged.verdicts, strict=True) if word == "reject"} == rejects


def test_a_column_that_a_rule_names_goes_before_the_lots() -> None:
    judged = judge_lot(NAMES, RAW, SCORES, RejectCount(2, by="score"), MADE_BY, judge_by="raw_score")
    assert judged.judged_by == "score"
