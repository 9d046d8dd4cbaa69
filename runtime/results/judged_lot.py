"""Take limits from another lot's results: which of its images count as good."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LotError
from ..verdict.judged_lot import JudgedLot
from ..verdict.limits import FLAGGED, NOT_FLAGGED
from ..verdict.marks import BAD, GOOD, marks_of
from .read_results import ScoredImage, ScoredLot, read_results


def read_judged_lot(results: str | os.PathLike[str]) -> JudgedLot:
    """Read results to take limits on raw scores for other lots (``ThresholdFrom``).

    Where a person marked images good, those count as good; where a person marked bad ones alone, all others
    do.  Else the images that were judged ``not flagged``, or, in a lot without verdicts, all.

    Parameters
    ----------
    results : str or path
        A folder that ``musc-edge infer`` or ``LotResult.save`` wrote, of one lot or one group.

    Raises
    ------
    LotError
        If there are no results of one lot, they are damaged, or no image counts as good.
    """
    out = Path(results)
    lots = read_results(out)
    if len(lots) > 1 or lots[0].folder != out:
        raise LotError(
            f"{out} holds the results of {len(lots)} groups. Give one of them, such as {lots[0].folder}."
        )
    (lot,) = lots
    known, good, bad = _known(lot)
    if not good:
        raise LotError(f"{out} has no image that counts as good ({known}), to take a limit from.")
    good_scores, bad_scores = (tuple(image.raw_score for image in part) for part in (good, bad))
    return JudgedLot(str(out), known, good_scores, bad_scores, lot.made_by)


def _known(lot: ScoredLot) -> tuple[str, list[ScoredImage], list[ScoredImage]]:
    """Say why images count as good, and which are good and bad."""
    marks = {name: mark.mark for name, mark in marks_of(lot.about.get("verdicts")).items()}
    bad = [image for image in lot.images if marks.get(image.name) == BAD]
    if GOOD in marks.values():
        return "marked good", [image for image in lot.images if marks.get(image.name) == GOOD], bad
    if bad:
        return "not marked bad", [image for image in lot.images if image not in bad], bad
    if any(image.verdict for image in lot.images):
        good = [image for image in lot.images if image.verdict == NOT_FLAGGED]
        return "not flagged", good, [image for image in lot.images if image.verdict == FLAGGED[0]]
    return "all of them: the lot has no verdicts", list(lot.images), []
