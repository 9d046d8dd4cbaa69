"""Make docs/verdict-rules.md: what rules for verdicts do to lots without and with defects.

    python tests/measure/verdict_rules.py WORK BUNDLES ELPV TEXTILE TILES > docs/verdict-rules.md

The arguments are those of accuracy.py, with which it shares the compared images in WORK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.accuracy.limits_from import SHARES, SIZES, PairOfLots, pairs_of_lots, rates
from support.accuracy.rules import COSTLY, RULES
from support.accuracy.setup import parser, setup
from support.accuracy.verdict_lots import CASES, Scored, scored_lots
from support.accuracy.verdict_lots import SHARES as SHARES_OF_DEFECTS
from support.accuracy.verdict_tables import (
    Outcome,
    mebin_outcomes,
    outcomes,
    percent,
    recall_table,
    rule_table,
    two_digits,
)

GOOD_DRAWS, DRAWS, PAIRS = 20, 10, 4
CHOICES = {
    "default raw": "the default's choices, raw", "default rescored": "the default's choices, rescored",
    "1,3,5 raw": "degrees 1,3,5, raw", "1,3,5 rescored": "degrees 1,3,5, rescored (the paper)",
    "1 raw": "degree 1, raw",
}  # fmt: skip
"""Titles of the scores that the rules judge, by their names in support/accuracy/verdict_lots.py."""
MAIN, OTHER = "default raw", "1,3,5 raw"
LIMITS = {"default": "the default's choices", "1,3,5": "degrees 1,3,5", "1": "degree 1"}
HALVES = {
    "chosen on: mono cells, textiles with local defects": ("mono cells", "textiles, local"),
    "confirmed on: poly cells, magnetic tiles, textiles with global defects": (
        "poly cells", "magnetic tiles", "textiles, global",
    ),
}  # fmt: skip
GOOD_REJECTED = (0.0, 0.02, 0.05)
Found = dict[str, list[Outcome]]


def by_rule(lots: Sequence[Scored], name: str) -> Found:
    """What each rule did to each lot, by the scores called ``name``; costly ones by two kinds alone."""
    found = {
        title: outcomes(lots, name, rule)
        for title, rule in RULES.items()
        if name in (MAIN, OTHER) or title not in COSTLY
    }
    return found | {"MEBin": mebin_outcomes(lots, name)} if any(name in lot.mebin for lot in lots) else found


def only(lots: Sequence[Scored], found: Found, wanted: Callable[[Scored], bool]) -> Found:
    """The outcomes of some lots; without MEBin's, which was tried on fewer."""
    return {
        title: [each for lot, each in zip(lots, of_rule, strict=True) if wanted(lot)]
        for title, of_rule in found.items()
        if title != "MEBin"
    }


def halves(lots: Sequence[Scored], found: Found) -> list[str]:
    """A table for the products that constants were chosen on, and one for the others."""
    lines = []
    for title, cases in HALVES.items():
        of_half = only(lots, found, lambda lot, cases=cases: lot.case in cases)  # type: ignore[misc]
        lines += [f"\n### {title}\n", *rule_table("rule", of_half.items())]
    return lines


def products(lots: Sequence[Scored], found: Found) -> list[str]:
    """A table for each product."""
    lines = []
    for case, of_case in by_case(lots, found).items():
        lines += [f"\n### {case}\n", *rule_table("rule", of_case.items())]
    return lines


def by_case(lots: Sequence[Scored], found: Found) -> dict[str, Found]:
    """The outcomes of each product's lots."""
    return {
        case: only(lots, found, lambda lot, case=case: lot.case == case)  # type: ignore[misc]
        for case in CASES
    }


def shipped(lots: Sequence[Scored], found: Found) -> list[str]:
    """A table of the product's own rule in its two states, by product."""
    of_rules = [
        (f"{case}, {title.strip('*')}", outcome)
        for case, of_case in by_case(lots, found).items()
        for title, outcome in of_case.items()
        if "auto" in title
    ]
    return rule_table("product and rule", of_rules)


def shares(lots: Sequence[Scored], found: Found) -> list[str]:
    """Recall of each rule by the share of defects."""
    return recall_table(
        {
            f"{share:.0%}": only(lots, found, lambda lot, share=share: lot.share == share)  # type: ignore[misc]
            for share in SHARES_OF_DEFECTS
        }
    )


def limit_table(pairs: Sequence[PairOfLots], degrees: str) -> list[str]:
    """What limits from another lot do, by the sizes of both and the share of defects."""
    lines = [
        "| good lot, other lot | group size | defects | `--good-rejected` "
        "| good rejected | at most in one lot | lots with a good one rejected | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sizes in SIZES:
        for share in SHARES:
            of_kind = [pair for pair in pairs if (pair.sizes, pair.share) == (sizes, share)]
            for allowed in GOOD_REJECTED:
                good, hit, recall, most = rates(of_kind, degrees, allowed)
                lines.append(
                    f"| {sizes[0]}, {sizes[1]} | {sizes[2] or 'all'} | {share:.0%} | {allowed:g} "
                    f"| {percent(good)} | {percent(most)} | {percent(hit)} | {two_digits(recall)} |"
                )
    return lines


def main() -> None:
    """Print the page."""
    at = setup(parser(__doc__).parse_args())
    pools = at.pools()
    lots = list(scored_lots(pools, at.work / "verdict-lots", GOOD_DRAWS, DRAWS))
    pairs = list(pairs_of_lots(pools, at.work / "limit-pairs", PAIRS))
    head = Path(__file__).parents[1] / "data" / "verdict_rules_head.md"
    found = {name: by_rule(lots, name) for name in CHOICES}
    lines = []
    for name, title in CHOICES.items():
        lines += [f"\n### {title.capitalize()}\n", *rule_table("rule", found[name].items())]
    limits = []
    for name, title in LIMITS.items():
        limits += [f"\n{title.capitalize()}:\n", *limit_table(pairs, name)]
    print(
        head.read_text(encoding="utf-8").strip(),
        f"\n## All products: {sum(not lot.share for lot in lots)} all-good lots, "
        f"{sum(lot.share > 0 for lot in lots)} with defects",
        *lines,
        f"\n## Where constants were chosen, and where confirmed: {CHOICES[MAIN]}",
        *halves(lots, found[MAIN]),
        f"\n## By product: {CHOICES[MAIN]}",
        *products(lots, found[MAIN]),
        f"\n## The product's own rule: {CHOICES[OTHER]}\n",
        *shipped(lots, found[OTHER]),
        f"\n## Recall by share of defects: {CHOICES[MAIN]}\n",
        *shares(lots, found[MAIN]),
        "\n## A limit from another lot, raw scores",
        *limits,
        sep="\n",
    )


if __name__ == "__main__":
    main()
