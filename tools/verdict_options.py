"""The options by which images are judged, of ``musc-edge infer`` and ``musc-edge verdict``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import LotError
from .arguments import positive
from .usage import UsageError

if TYPE_CHECKING:
    from ..runtime.verdict.judge import Judgement
    from ..runtime.verdict.rules import Rule

FLAGGED_EXIT = 9
_RULES = ("threshold", "reject_rate", "reject_count", "threshold_from", "verdict")


def add_verdicts(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options, as a group to which more can be added."""
    group = parser.add_argument_group(
        "verdicts", "reject, review or not flagged; none says that an image is good. One rule at most:"
    )
    add = group.add_argument
    add("--threshold", type=distance, metavar="T", help="reject from this score on, a distance from 0 to 2")
    add("--reject-rate", type=share, metavar="R",
        help="reject the worst images, at most this share of the lot, such as 0.05 or 5%%")  # fmt: skip
    add("--reject-count", type=positive, metavar="K", help="reject the worst images, at most K")
    add("--threshold-from", type=Path, metavar="OUT",
        help="reject what has a higher raw score than the good images of another lot, whose results are in "
        "OUT: those marked good, or not flagged, or all")  # fmt: skip
    add("--verdict", choices=("auto",),
        help="auto: reject what stands out of a lot of which nothing is known, which may be nothing; 20 "
        "images or more")  # fmt: skip
    add("--review-from", type=distance, metavar="T", help="with --threshold: review from this score on")
    add("--good-rejected", type=share_from_0, metavar="R",
        help="with --threshold-from: the share of those good images that the limit may reject (default: "
        "0)")  # fmt: skip
    add("--by", choices=("score", "raw_score"),
        help="the column that is judged (default: raw_score for auto and --threshold-from, else "
        "what the lot is sorted by)")  # fmt: skip
    add("--min-region", type=positive, metavar="PIXELS",
        help="leave out smaller regions of flagged images, in pixels of the image (default: 1)")  # fmt: skip
    add("--fail-on", choices=("reject", "review"),
        help="exit with code 9 if an image is a reject (or a review), or a lot could not be "
        "judged")  # fmt: skip
    return group


def rule_of(args: argparse.Namespace) -> Rule | None:
    """Make the rule that the options ask for; None if they ask for none.

    Raises
    ------
    UsageError
        If they ask for two, or one does not belong to the rule.
    LotError
        If the other lot of --threshold-from cannot be read.
    """
    given = [name for name in _RULES if getattr(args, name) is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(map(_option, given))} exclude each other: give one rule.")
    for name, belongs in (("review_from", "threshold"), ("good_rejected", "threshold_from")):
        if getattr(args, name) is not None and given != [belongs]:
            raise UsageError(f"{_option(name)} belongs to {_option(belongs)}.")
    if args.by and not given:
        raise UsageError("--by belongs to a rule, such as --threshold.")
    return _rule(args, given[0]) if given else None


def _rule(args: argparse.Namespace, name: str) -> Rule:
    from ..runtime.results.judged_lot import read_judged_lot
    from ..runtime.verdict.auto import Auto
    from ..runtime.verdict.judged_lot import ThresholdFrom
    from ..runtime.verdict.rules import RejectCount, RejectRate, Threshold

    by = {"by": args.by} if args.by else {}
    if name == "threshold":
        return _usage(lambda: Threshold(args.threshold, args.review_from, **by))
    if name == "reject_rate":
        return RejectRate(args.reject_rate, **by)
    if name == "reject_count":
        return RejectCount(args.reject_count, **by)
    if name == "verdict":
        return Auto(**by)
    if args.by == "score":
        raise UsageError(
            "--threshold-from judges by raw_score: rescored ones depend on neighbors in their lot."
        )
    if not args.threshold_from.is_dir():
        raise UsageError(f"{args.threshold_from} is no folder: give results of musc-edge infer.")
    return ThresholdFrom(read_judged_lot(args.threshold_from), args.good_rejected or 0.0)


def _usage(make: Callable[[], Rule]) -> Rule:
    """Make a rule; one that options cannot make is a UsageError."""
    try:
        return make()
    except LotError as error:
        raise UsageError(str(error)) from error


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def distance(text: str) -> float:
    """Parse a distance between unit vectors, 0 to 2."""
    return _number(text, lambda value: 0 <= value <= 2, "a distance from 0 to 2, such as 0.45")


def share(text: str) -> float:
    """Parse a share such as '0.05' or '5%', above 0 and at most 1."""
    return _share(text, lambda value: 0 < value <= 1)


def share_from_0(text: str) -> float:
    """Parse a share such as '0.01' or '1%', from 0 up to, not including, 1."""
    return _share(text, lambda value: 0 <= value < 1)


def _share(text: str, fits: Callable[[float], bool]) -> float:
    plain = text.strip()
    percent = plain.endswith("%")
    # By tens and not by a division: 7% is 0.07 and not 0.07000000000000001.
    number = f"{plain[:-1].strip()}e-2" if percent else plain
    return _number(number, fits, "a share such as 0.05 or 5%", text)


def _number(text: str, fits: Callable[[float], bool], expected: str, given: str | None = None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{given or text!r}: expected {expected}")
    return value


def failed(judgements: list[Judgement | None], fail_on: str | None) -> bool:
    """Return whether --fail-on asks for exit code 9: for a verdict, or for a lot that has none."""
    from ..runtime.verdict.judge import has

    if fail_on is None:
        return False
    return any(each is None or each.limits.refused or has(each, fail_on) for each in judgements)
