"""Make docs/verdict-rules.md: what rules for verdicts do to lots without and with defects.

    python tests/measure/verdict_rules.py WORK BUNDLES ELPV TEXTILE TILES > docs/verdict-rules.md

The arguments are those of accuracy.py, with which it shares the compared images in WORK.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.accuracy.limits_from import SHARES, SIZES, PairOfLots, pairs_of_lots, rates
from support.accuracy.rules import RULES
from support.accuracy.setup import parser, setup
from support.accuracy.verdict_lots import CASES, Scored, scored_lots
from support.accuracy.verdict_tables import (
    mebin_outcomes,
    outcomes,
    percent,
    recall_table,
    rule_table,
    two_digits,
)

GOOD_DRAWS, DRAWS, PAIRS = 20, 10, 4
NAMES = ("1,3,5 raw", "1,3,5 rescored", "1,3 raw", "1 raw", "1 rescored")
GOOD_REJECTED = (0.0, 0.02, 0.05)


def all_rules(lots: Sequence[Scored]) -> list[str]:
    """A table of all rules for each kind of score."""
    lines = []
    for name in NAMES:
        found = [(title, outcomes(lots, name, rule)) for title, rule in RULES.items()]
        if any(name in lot.mebin for lot in lots):
            found.append(("MEBin", mebin_outcomes(lots, name)))
        lines += [f"\n### Degrees {name}\n", *rule_table("rule", found)]
    return lines


def by_case(lots: Sequence[Scored], name: str) -> list[str]:
    """A table of all products for each rule."""
    lines = []
    for title, rule in RULES.items():
        found = [(case, outcomes([lot for lot in lots if lot.case == case], name, rule)) for case in CASES]
        lines += [f"\n### {title}, degrees {name}\n", *rule_table("product", found)]
    return lines


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
    rules = list(RULES.items())
    print(
        head.read_text(encoding="utf-8").strip(),
        f"\n## All products: {sum(not lot.share for lot in lots)} all-good lots, "
        f"{sum(lot.share > 0 for lot in lots)} with defects",
        *all_rules(lots),
        "\n## Recall by share of defects, degrees 1,3,5 raw\n",
        *recall_table(lots, "1,3,5 raw", rules, lambda lot: f"{lot.share:.0%}"),
        "\n## By product",
        *by_case(lots, "1,3,5 raw"),
        "\n## A limit from another lot, degrees 1,3,5, raw scores\n",
        *limit_table(pairs, "1,3,5"),
        "\nDegree 1:\n",
        *limit_table(pairs, "1"),
        sep="\n",
    )


if __name__ == "__main__":
    main()
