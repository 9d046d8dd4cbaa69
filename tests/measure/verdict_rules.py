"""Make docs/verdict-rules.md: what rules for verdicts do to lots without and with defects.

    python tests/measure/verdict_rules.py WORK BUNDLES ELPV TEXTILE TILES > docs/verdict-rules.md

The arguments are those of accuracy.py, with which it shares the compared images in WORK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

from support.accuracy.limits_from import SHARES, SIZES, PairOfLots, pairs_of_lots, rates
from support.accuracy.rules import COSTLY, RULES
from support.accuracy.setup import parser, setup
from support.accuracy.verdict_lots import CASES, DEFAULT, Scored, scored_lots
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
DEFAULT_DRAWS, DEFAULT_PAIRS = 5, 1
"""How many draws are scored by the default's choices too, the first ones."""
NAMES = ("1,3,5 raw", "1,3,5 rescored", "1 raw")
PAPER = NAMES[0]
BY_DEFAULT = (f"{DEFAULT} raw", f"{DEFAULT} rescored", PAPER)
"""What is shown of the first draws."""
HALVES = {
    "chosen on: mono cells, textiles with local defects": ("mono cells", "textiles, local"),
    "confirmed on: poly cells, magnetic tiles, textiles with global defects": (
        "poly cells", "magnetic tiles", "textiles, global",
    ),
}  # fmt: skip
GOOD_REJECTED = (0.0, 0.02, 0.05)
Found = dict[str, list[Outcome]]


def by_rule(lots: Sequence[Scored], name: str, costly: bool = True) -> Found:
    """What each rule did to each lot, by the scores called ``name``; ``costly`` ones by the paper's alone."""
    found = {
        title: outcomes(lots, name, rule)
        for title, rule in RULES.items()
        if title not in COSTLY or (costly and name == PAPER)
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


def by_default(lots: Sequence[Scored]) -> list[str]:
    """Tables of the first draws, which are scored by the default's choices too."""
    first = [lot for lot in lots if BY_DEFAULT[0] in lot.scores]
    found = {name: by_rule(first, name, costly=False) for name in BY_DEFAULT}
    lines = [f"\n## By the default's choices: {_counted(first)}"]
    for name in BY_DEFAULT:
        lines += [f"\n### {_title(name)}\n", *rule_table("rule", found[name].items())]
    lines += ["\n### The product's own rule, by product\n"]
    return [*lines, *own_rule(first, {name: found[name] for name in (BY_DEFAULT[0], PAPER)})]


def own_rule(lots: Sequence[Scored], found: Mapping[str, Found]) -> list[str]:
    """A table of the product's own rule in its two states, by product and choices."""
    rows = [
        (f"{case}, {title.strip('*')}, {name}", of_case[title])
        for case in CASES
        for title in RULES
        if "auto" in title
        for name, of_name in found.items()
        for of_case in [by_case(lots, of_name)[case]]
    ]
    return rule_table("product, rule, scores", rows)


def _title(name: str) -> str:
    return name.capitalize() if name.startswith(DEFAULT) else f"Degrees {name}, the same lots"


def _counted(lots: Sequence[Scored]) -> str:
    good = sum(not lot.share for lot in lots)
    return f"{good} all-good lots, {len(lots) - good} with defects"


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


def default_limits(pairs: Sequence[PairOfLots]) -> list[str]:
    """What limits from another lot do by the default's choices, and by degrees 1,3,5 on the same lots."""
    lines = [
        "| defects | `--good-rejected` | default: good rejected | lots with a good one rejected | recall "
        "| 1,3,5: good rejected | lots with a good one rejected | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for share in SHARES:
        of_kind = [pair for pair in pairs if pair.share == share]
        for allowed in GOOD_REJECTED:
            cells = []
            for name in (DEFAULT, "1,3,5"):
                good, hit, recall, _ = rates(of_kind, name, allowed)
                cells += [percent(good), percent(hit), two_digits(recall)]
            lines.append(f"| {share:.0%} | {allowed:g} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the page."""
    at = setup(parser(__doc__).parse_args())
    pools = at.pools()
    lots = list(scored_lots(pools, at.work / "verdict-lots", GOOD_DRAWS, DRAWS, DEFAULT_DRAWS))
    pairs = list(pairs_of_lots(pools, at.work / "limit-pairs", PAIRS, DEFAULT_PAIRS))
    head = Path(__file__).parents[1] / "data" / "verdict_rules_head.md"
    found = {name: by_rule(lots, name) for name in NAMES}
    lines = []
    for name in NAMES:
        lines += [f"\n### Degrees {name}\n", *rule_table("rule", found[name].items())]
    print(
        head.read_text(encoding="utf-8").strip(),
        *by_default(lots),
        f"\n## All products: {_counted(lots)}",
        *lines,
        f"\n## Where constants were chosen, and where confirmed: degrees {PAPER}",
        *halves(lots, found[PAPER]),
        f"\n## By product: degrees {PAPER}",
        *products(lots, found[PAPER]),
        f"\n## Recall by share of defects: degrees {PAPER}\n",
        *shares(lots, found[PAPER]),
        "\n## A limit from another lot: degrees 1,3,5, raw scores\n",
        *limit_table(pairs, "1,3,5"),
        "\nDegree 1:\n",
        *limit_table(pairs, "1"),
        "\nThe first draw by the default's choices too, lots of all sizes together:\n",
        *default_limits([pair for pair in pairs if DEFAULT in pair.good]),
        sep="\n",
    )


if __name__ == "__main__":
    main()
