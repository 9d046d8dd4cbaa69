"""A rule for a lot of which nothing is known, which need not reject anything.

A raw score is the largest of many distances, and the largest of many has about a Gumbel distribution.  It is
fitted to the lower part of the lot's raw scores, which defects hardly touch as long as most images are good;
each image's p is the share of good ones that would score as high by it.  Rejects and reviews are chosen by
the p, with Benjamini and Hochberg's procedure (J. R. Stat. Soc. B 57, 1995) at two levels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from ..._numbers import too_few
from ..errors import LotError
from ..settings import RAW_SCORE
from ..types import Array
from .limits import Limits
from .rules import require_column

LEAST_SPREAD = 1e-3
"""Distance: scores that differ by less are equal but for rounding, and nothing stands out by so little."""

_MOST_EXPONENT = 700.0
"""Of e, as a double holds it."""


@dataclass(frozen=True)
class Auto:
    """Judge a lot of which nothing is known, by the shape of its own raw scores.

    It rejects no image by construction.  The defaults were measured (docs/verdicts.md).

    Attributes
    ----------
    least_images : int, default 20
        Smaller lots are refused: their scores say nothing about the shape of a distribution.
    fit_from : float, default 0.03
        Where the part of the sorted scores begins that the distribution is fitted to.
    fit_to : float, default 0.6
        Where it ends: the share of the lot that has to be good.
    false_share : float, default 0.2
        Benjamini and Hochberg's level for rejects: the share of good ones among them that is aimed at.
    review_share : float, default 0.5
        The same for rejects and reviews together.
    by : {"raw_score", "score"}
        The column that is judged.  Rescored values are averages, which are no largest of many any more.

    Raises
    ------
    LotError
        If a value is outside of what it can be.
    """

    name: ClassVar[str] = "auto"
    least_images: int = 20
    fit_from: float = 0.03
    fit_to: float = 0.6
    false_share: float = 0.2
    review_share: float = 0.5
    by: str = RAW_SCORE

    def __post_init__(self) -> None:
        require_column(self.by)
        shares = 0 < self.false_share <= self.review_share < 1 < self.least_images
        if not (0 <= self.fit_from < self.fit_to <= 1 and shares):
            raise LotError(
                f"{self}: expected 0 <= fit_from < fit_to <= 1 and 0 < false_share <= review_share < 1."
            )

    def judge(self, values: Array) -> Limits:
        """Return the limits that the shape of the values gives; refuses a lot that is too small."""
        options = asdict(self)
        if len(values) < self.least_images:
            reason = (
                f"{too_few(len(values), 'image')} to say what is unusual: the rule auto takes at least "
                f"{self.least_images}. Give a limit (--threshold) or a number (--reject-count)"
            )
            return Limits(None, None, "Nothing is said about a lot this small.", options, refused=reason)
        fit = fit_gumbel(values, self.fit_from, self.fit_to)
        p = fit.p(values)
        reject_from, review_from = (
            lowest(values[p <= benjamini_hochberg(p, share)])
            for share in (self.false_share, self.review_share)
        )
        options |= {"location": round(fit.location, 6), "spread": round(fit.spread, 6)}
        return Limits(reject_from, review_from, self._promise(), options, p)

    def _promise(self) -> str:
        return (
            f"Aims at no more than {100 * self.false_share:g} % good images among the rejects. That holds "
            f"if at least {100 * self.fit_to:g} % of the lot is good and good images score as a Gumbel "
            "distribution says, not where a few good ones stand far out; nothing is promised about defects "
            "that are missed."
        )


@dataclass(frozen=True)
class Gumbel:
    """A Gumbel distribution of largest values, by ``location`` (its mode) and ``spread``."""

    location: float
    spread: float

    def p(self, values: Array) -> Array:
        """Return the probability of each value (N,) or more."""
        steps = np.clip((values - self.location) / self.spread, -_MOST_EXPONENT, _MOST_EXPONENT)
        chance: Array = -np.expm1(-np.exp(-steps))
        return chance


def fit_gumbel(values: Array, low: float, high: float) -> Gumbel:
    """Fit a Gumbel distribution by least squares to the part ``low`` to ``high`` of the sorted values (N,).

    Raises
    ------
    LotError
        If fewer than two values lie in that part.
    """
    ordered = np.sort(values)
    part = (np.arange(len(ordered)) + 0.5) / len(ordered)  # of a distribution that lies below each value
    chosen = (part >= low) & (part <= high)
    if chosen.sum() < 2:
        raise LotError(
            f"{too_few(len(values), 'score')} to fit a distribution to {low:g} to {high:g} of them."
        )
    steps, fitted = -np.log(-np.log(part[chosen])), ordered[chosen]
    centred = steps - steps.mean()
    slope = float(centred @ fitted / (centred @ centred))
    return Gumbel(float(fitted.mean() - max(slope, 0) * steps.mean()), max(slope, LEAST_SPREAD))


def lowest(values: Array) -> float | None:
    """Return the least of the values (M,), None if there is none."""
    return float(values.min()) if len(values) else None


def benjamini_hochberg(p: Array, false_share: float) -> float:
    """Return the largest p that is rejected at this level, or -1 if none is."""
    ordered = np.sort(p)
    allowed = false_share * np.arange(1, len(p) + 1) / len(p)
    passed = np.flatnonzero(ordered <= allowed)
    return float(ordered[passed[-1]]) if len(passed) else -1.0
