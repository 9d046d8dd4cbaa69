"""The rule that results were judged by, from their lot.json: for new marks, or another size of regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._json import from_json
from ..errors import LotError
from ..settings import JUDGED
from ..types import Array
from .judge import MARKS_ALONE
from .limits import Limits


@dataclass(frozen=True)
class Kept:
    """A rule that gives the limits which it gave before."""

    name: str
    by: str
    limits: Limits

    def judge(self, values: Array) -> Limits:
        """Return the limits as they were, with p of the same images."""
        return self.limits


@dataclass(frozen=True)
class _Facts:
    """What lot.json says of a judgement, as far as it is needed again."""

    rule: str
    judged_by: str
    reject_from: float | None
    review_from: float | None
    promise: str
    options: dict[str, Any]
    notes: tuple[str, ...]
    refused: str | None
    min_region: int


def kept_rule(facts: Any, p: Array | None) -> Kept | None:
    """Return the rule that lot.json's ``verdicts`` tell of, None without one; ``p`` (N,) is that of the rows.

    Raises
    ------
    LotError
        If they are damaged.
    """
    if not facts:
        return None
    try:
        names = _Facts.__dataclass_fields__
        found = from_json(_Facts, {name: facts[name] for name in names}, "verdicts")
        if found.judged_by not in JUDGED:
            raise ValueError(f"judged_by is {found.judged_by!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise LotError(f"the verdicts in lot.json are damaged: {error!r}. Judge anew by a rule.") from error
    if found.rule == MARKS_ALONE:
        return None
    limits = Limits(
        found.reject_from,
        found.review_from,
        found.promise,
        found.options,
        p,
        found.notes,
        found.refused or "",
    )
    return Kept(found.rule, found.judged_by, limits)


def kept_min_region(facts: Any) -> int:
    """Return the least area of regions that lot.json's ``verdicts`` tell of, 1 without one."""
    value = facts.get("min_region") if isinstance(facts, dict) else None
    return value if isinstance(value, int) and value >= 1 else 1
