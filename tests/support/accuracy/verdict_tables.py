"""What rules do to lots: false rejections, recall and precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musc_edge.runtime.types import Array

from .rules import Rule
from .verdict_lots import Scored


@dataclass(frozen=True)
class Outcome:
    """What a rule did to one lot: ``rejected`` (n,) beside the truth ``labels`` (n,)."""

    labels: Array
    rejected: Array

    @property
    def all_good(self) -> bool:
        """Whether the lot has no defect."""
        return not self.labels.any()


@dataclass(frozen=True)
class Summary:
    """Over several lots; NaN where there is nothing to divide by.

    Attributes
    ----------
    false_in_good, lots_hit : of all-good lots, the share of images rejected, and of lots with any rejected.
    false_in_bad, recall : of lots with defects, the share of good and of defective images rejected.
    precision : share of defects among what is rejected there.
    """

    false_in_good: float
    lots_hit: float
    false_in_bad: float
    recall: float
    precision: float


def outcomes(lots: Iterable[Scored], name: str, rule: Rule) -> list[Outcome]:
    """Apply a rule to the scores called ``name`` of each lot."""
    return [Outcome(lot.labels, rule(lot.scores[name])) for lot in lots]


def mebin_outcomes(lots: Iterable[Scored], name: str) -> list[Outcome]:
    """What MEBin did to the lots that it was tried on."""
    return [Outcome(lot.labels, lot.mebin[name]) for lot in lots if name in lot.mebin]


def summary(found: Sequence[Outcome]) -> Summary:
    """Sum up outcomes."""
    good = [each for each in found if each.all_good]
    bad = [each for each in found if not each.all_good]
    hits = sum(int((each.labels & each.rejected).sum()) for each in bad)
    return Summary(
        share(np.concatenate([each.rejected for each in good])) if good else float("nan"),
        share(np.array([each.rejected.any() for each in good])),
        share(np.concatenate([each.rejected[~each.labels] for each in bad])) if bad else float("nan"),
        share(np.concatenate([each.rejected[each.labels] for each in bad])) if bad else float("nan"),
        hits / rejected if (rejected := sum(int(each.rejected.sum()) for each in bad)) else float("nan"),
    )


def share(flags: Array) -> float:
    """Share of flags that are set; NaN without any."""
    return float(flags.mean()) if len(flags) else float("nan")


def percent(value: float) -> str:
    """Such as "1.3 %"; a dash where it is not defined."""
    return "–" if np.isnan(value) else f"{100 * value:.1f} %"


def two_digits(value: float) -> str:
    """Such as "0.78"; a dash where it is not defined."""
    return "–" if np.isnan(value) else f"{value:.2f}"


HEAD = (
    "| good rejected, all-good lots | all-good lots with a reject | good rejected, other lots "
    "| recall | precision |"
)


def cells(found: Summary) -> str:
    """The cells of a line below ``HEAD``."""
    return (
        f"| {percent(found.false_in_good)} | {percent(found.lots_hit)} | {percent(found.false_in_bad)} "
        f"| {two_digits(found.recall)} | {two_digits(found.precision)} |"
    )


def rule_table(title: str, lines: Iterable[tuple[str, Sequence[Outcome]]]) -> list[str]:
    """Make a table with a line for each rule, or each case."""
    return [
        f"| {title} {HEAD}",
        "|---|---|---|---|---|---|",
        *(f"| {name} {cells(summary(found))}" for name, found in lines),
    ]


def recall_table(groups: Mapping[str, Mapping[str, Sequence[Outcome]]]) -> list[str]:
    """Recall of each rule, a column for each group of lots; ``groups`` has outcomes by group and rule."""
    first = next(iter(groups.values()))
    lines = [f"| rule | {' | '.join(groups)} |", f"|---|{'---|' * len(groups)}"]
    for rule in first:
        values = [two_digits(summary(of_group[rule]).recall) for of_group in groups.values()]
        lines.append(f"| {rule} | {' | '.join(values)} |")
    return lines
