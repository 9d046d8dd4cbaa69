"""Judge a lot: a rule over the column that it judges by, the limit for the maps' pixels, a person's marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import LotError
from ..settings import RAW_SCORE, SCORE
from ..types import Array
from .judged_lot import MadeBy, ThresholdFrom
from .limits import NOT_FLAGGED, REJECT, VERDICTS, Limits, as_written
from .marks import BAD, GOOD, Mark
from .rules import Rule

OF_MARK = {BAD: REJECT, GOOD: NOT_FLAGGED}
"""A person's word outranks the rule's."""

MARKS_ALONE = "marks"
"""The rule's name where there are marks and no rule."""

UNMARKED = Limits(
    None,
    None,
    "A person's marks; nothing is said of images without one.",
    refused="no rule was asked for: images without a mark have no verdict",
)


@dataclass(frozen=True)
class Judgement:
    """The verdicts on a lot, and how they came about.

    Attributes
    ----------
    rule : str
        The rule's name: threshold, reject-rate, reject-count, threshold-from, auto; or marks.
    judged_by : {"score", "raw_score"}
        The column that the limits belong to.
    limits : Limits
        From which value on images are rejects or reviews, with the rule's promise and notes.
    pixel_limit : float, optional
        Value of a map from which a pixel belongs to a region (``pixel_limit``).
    verdicts : tuple of str, N of them
        reject, review or not flagged; empty where nothing could be said.
    marks : dict
        What a person said, by the image's name.
    min_region : int
        Pixels of an image below which a region is left out.
    """

    rule: str
    judged_by: str
    limits: Limits
    pixel_limit: float | None
    verdicts: tuple[str, ...]
    marks: Mapping[str, Mark]
    min_region: int = 1

    @property
    def counts(self) -> dict[str, int]:
        """How many images have each verdict."""
        found = Counter(self.verdicts)
        return {word: found[word] for word in VERDICTS}

    def cells(self) -> list[tuple[str, str]]:
        """Return what scores.csv has behind its other columns for each image: verdict and p."""
        p = (
            [""] * len(self.verdicts)
            if self.limits.p is None
            else [f"{value:.6g}" for value in self.limits.p]
        )
        return list(zip(self.verdicts, p, strict=True))

    def facts(self) -> dict[str, Any]:
        """Return what lot.json says as ``verdicts``."""
        limits = self.limits
        facts = {
            "rule": self.rule,
            "judged_by": self.judged_by,
            "reject_from": limits.reject_from,
            "review_from": limits.review_from,
            "pixel_limit": self.pixel_limit,
            "min_region": self.min_region,
            "promise": limits.promise,
            "counts": self.counts,
            "options": limits.options,
            "notes": list(limits.notes),
            "refused": limits.refused or None,
        }
        if self.marks:
            facts["marks"] = {name: mark.facts() for name, mark in self.marks.items()}
        return facts


def judge_lot(
    names: Sequence[str],
    raw_scores: Array,
    scores: Array,
    rule: Rule | None,
    made_by: MadeBy,
    marks: Mapping[str, Mark] | None = None,
    min_region: int = 1,
    judge_by: str = SCORE,
) -> Judgement:
    """Judge the images ``names`` (N) of a lot with these raw scores (N,) and scores (N,).

    Parameters
    ----------
    rule : None if there are marks alone.
    made_by : how the raw scores came about.
    marks : what a person said of some of the images.
    min_region : pixels of an image below which a region is left out.
    judge_by : the column that the lot is sorted by, for rules that name none.

    Returns
    -------
    Judgement, in which ``limits.refused`` says why nothing can be said of the lot, if so.
    """
    raw = as_written(raw_scores)
    by = rule.by or judge_by if rule else RAW_SCORE
    values = raw if by == RAW_SCORE else as_written(scores)
    limits = _limits(rule, values, made_by)
    verdicts = limits.verdicts(values)
    marks = {name: marks[name] for name in names if marks and name in marks}
    for row, name in enumerate(names):
        if name in marks:
            verdicts[row] = OF_MARK.get(marks[name].mark, verdicts[row])
    pixel = pixel_limit(limits, values, raw)
    return Judgement(
        rule.name if rule else MARKS_ALONE, by, limits, pixel, tuple(verdicts), marks, min_region
    )


def _limits(rule: Rule | None, values: Array, made_by: MadeBy) -> Limits:
    if rule is None:
        return UNMARKED
    limits = rule.judge(values)
    if isinstance(rule, ThresholdFrom):
        try:
            return replace(limits, notes=(*rule.lot.compare(made_by), *limits.notes))
        except LotError as error:
            return Limits(None, None, limits.promise, limits.options, refused=str(error).rstrip("."))
    return limits


def pixel_limit(limits: Limits, values: Array, raw_scores: Array) -> float | None:
    """Return the value of a map from which a pixel counts, tied to the limit of the images.

    It belongs to the lower of the limits, so that a review shows where to look too.  Judged by raw scores it
    is that limit, and each flagged image has a pixel on it, since its raw score is the largest of its map.
    Judged by rescored ones it is the raw score of the same rank: as many images have a pixel on it as are
    flagged, but an image that is flagged for its neighbors' sake may have none.
    """
    flag = limits.flag_from
    if flag is None:
        return None
    flagged = int((values >= flag).sum())
    if values is raw_scores or not flagged:
        return flag
    return float(np.sort(raw_scores)[-flagged])


def has(judgement: Judgement, least: str) -> bool:
    """Return whether an image has the verdict ``least`` (reject or review) or a worse one."""
    words = VERDICTS[: VERDICTS.index(least) + 1]
    return any(word in words for word in judgement.verdicts)
