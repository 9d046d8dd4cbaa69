"""A limit from another lot: where it lies, whether two lots can be compared, and what is promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.tiling import Tiles
from musc_edge.runtime.verdict.judge import judge_lot
from musc_edge.runtime.verdict.judged_lot import JudgedLot, MadeBy, ThresholdFrom

MADE_BY = MadeBy("ab" * 32, (1, 3, 5), (0.0, 0.3), 8, judges=99)
GOOD = tuple(round(0.2 + k / 1000, 3) for k in range(100))  # 0.2 to 0.299
OTHER = JudgedLot("other", "all", GOOD, (), MADE_BY)


def test_the_limit_lies_just_above_the_highest_good_one() -> None:
    values = np.array([0.299, 0.299001, 0.1, 0.5])
    limits = ThresholdFrom(OTHER).judge(values)
    assert limits.reject_from == 0.299001
    assert limits.verdicts(values) == ["not flagged", "reject", "not flagged", "reject"]
    assert "1 in 101" in limits.promise
    assert "no guarantee" in limits.promise


def test_p_is_the_rank_among_the_good_ones() -> None:
    limits = ThresholdFrom(OTHER).judge(np.array([0.5, 0.299, 0.2, 0.1, 0.25]))
    assert limits.p == pytest.approx(np.array([1, 2, 101, 101, 51]) / 101)


@pytest.mark.parametrize(("share", "limit"), [(0.05, 0.294001), (0.009, 0.299001), (0.01, 0.298001)])
def test_a_share_of_the_good_ones_may_be_rejected(share: float, limit: float) -> None:
    assert ThresholdFrom(OTHER, share).judge(np.array([0.1])).reject_from == limit
    assert sum(value >= limit for value in GOOD) == int(100 * share)


def test_bad_ones_below_the_limit_are_said() -> None:
    rule = ThresholdFrom(replace(OTHER, good=GOOD[-5:], bad=(0.25, 0.4, 0.5)))
    limits = rule.judge(np.array([0.1]))
    assert limits.notes == (
        "the limit comes from 5 good images alone",
        "1 of the 3 bad images of other lie below the limit",
    )
    assert (limits.options["good"], limits.options["bad"], limits.options["bad_at_or_above"]) == (5, 3, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bundle": "cd" * 32}, "bundle"),
        ({"degrees": (1,)}, "degrees"),
        ({"interval": (0.0, 0.2)}, "interval"),
        ({"roi": "0,0,8,8"}, "over whole images, this lot within the region 0,0,8,8"),
        ({"mask_background": "auto"}, "with no masked background, this lot with mask background auto"),
        ({"tiles": Tiles(2, 3)}, "with no tiles, this lot with 2 x 3 tiles"),
        ({"window": 2}, "with no window, this lot with window 2"),
        ({"judges": 400}, "--group-size, such as 99"),
        ({"judges": 24}, "--group-size, such as 24"),
    ],
)
def test_lots_that_cannot_be_compared_are_refused(change: dict[str, object], said: str) -> None:
    lot = replace(MADE_BY, **change)  # type: ignore[arg-type]
    with pytest.raises(LotError, match=said):
        OTHER.compare(lot)
    judged = judge_lot(["a"], np.array([0.4]), np.array([0.4]), ThresholdFrom(OTHER), lot)
    assert said in judged.limits.refused
    assert judged.verdicts == ("",)
    assert judged.pixel_limit is None


@pytest.mark.parametrize(("change", "said"), [({"judges": 60}, "99 judges each and these have 60"),
                                              ({"bit_depth": 12}, "--bit-depth"),
                                              ({"copies_judge": False}, "this lot with copies apart")],
)  # fmt: skip
def test_small_differences_are_said(change: dict[str, int], said: str) -> None:
    lot = replace(MADE_BY, **change)  # type: ignore[arg-type]
    (note,) = OTHER.compare(lot)
    assert said in note
    judged = judge_lot(["a"], np.array([0.4]), np.array([0.4]), ThresholdFrom(OTHER), lot)
    assert note in judged.limits.notes
    assert judged.verdicts == ("reject",)


def test_two_regions_are_a_note() -> None:
    masked = replace(OTHER, made_by=replace(MADE_BY, roi="/lots/a/masks"))
    (note,) = masked.compare(replace(MADE_BY, roi="/lots/b/masks"))
    assert "within the region /lots/a/masks, this lot within the region /lots/b/masks" in note


def test_lots_of_earlier_versions_name_the_method() -> None:
    default = replace(MADE_BY, degrees=(1, 5), position_median=0.5)
    with pytest.raises(LotError, match=r"Score this lot as other was, with --method paper\."):
        OTHER.compare(default)
    with pytest.raises(LotError, match=r"Score both alike\."):
        replace(OTHER, made_by=default).compare(MADE_BY)


def test_lots_alike_have_no_notes() -> None:
    assert OTHER.compare(MADE_BY) == ()


def test_judged_lots_that_make_no_sense() -> None:
    with pytest.raises(LotError, match="no image that counts as good"):
        ThresholdFrom(replace(OTHER, good=()))
    with pytest.raises(LotError, match="expected a share"):
        ThresholdFrom(OTHER, 1.0)
