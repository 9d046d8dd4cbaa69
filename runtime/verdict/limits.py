"""What a rule says of a lot: from which value on an image is a reject, and from which it needs a review.

Scores are judged as scores.csv has them, with six decimals: results that are judged again later, from that
file, get the verdicts that they got when they were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import LotError
from ..types import Array

REJECT, REVIEW, NOT_FLAGGED = "reject", "review", "not flagged"
FLAGGED = (REJECT, REVIEW)
VERDICTS = (*FLAGGED, NOT_FLAGGED)
"""The words for an image, the worst first.  None says that an image is good."""

UNIT = 1e-6
"""The last decimal of a score that is written: the least difference between two."""

FARTHEST = 2.0
"""The largest distance between two unit vectors, and so the largest score."""


@dataclass(frozen=True)
class Limits:
    """What a rule found for the values of a lot (N,).

    Attributes
    ----------
    reject_from : float or None
        Value from which an image is a reject; None: none is.
    review_from : float or None
        Value from which an image is at least a review; None: none is.
    promise : str
        One sentence on what the rule promises, and what it does not.
    options : dict
        What the rule was given, and what it found on the way.
    p : ndarray of shape (N,), optional
        Of each value, for rules that have one: the share of good images that would have as much.
    notes : tuple of str
        What a user should know of these limits before trusting them.
    refused : str
        The reason why nothing can be said of the lot; empty if something can.
    """

    reject_from: float | None
    review_from: float | None
    promise: str
    options: dict[str, Any] = field(default_factory=dict)
    p: Array | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""

    def verdicts(self, values: Array) -> list[str]:
        """Return the word for each value (N,); empty ones if the rule refused the lot."""
        return ["" if self.refused else self._verdict(float(value)) for value in values]

    @property
    def flag_from(self) -> float | None:
        """The value from which an image is a reject or a review; None: none is."""
        return min((each for each in (self.reject_from, self.review_from) if each is not None), default=None)

    def _verdict(self, value: float) -> str:
        if self.reject_from is not None and value >= self.reject_from:
            return REJECT
        return REVIEW if self.review_from is not None and value >= self.review_from else NOT_FLAGGED


def as_written(values: Iterable[float]) -> Array:
    """Return scores as scores.csv holds them, (N,) float64.

    Raises
    ------
    LotError
        If there is none, or one is not finite.
    """
    written = np.array([float(f"{value:.6f}") for value in values])
    if not len(written) or not np.isfinite(written).all():
        raise LotError(f"scores {written[:3]}...: expected one or more, all finite.")
    return written


def conformal_p(good: Array, values: Array) -> Array:
    """Return p = (1 + #{c >= s}) / (n + 1) of each value s, with the ascending scores c of n good images."""
    as_high = len(good) - np.searchsorted(good, values, side="left")
    p: Array = (1 + as_high) / (len(good) + 1)
    return p


def limit_of_at_most(values: Array, most: int) -> float | None:
    """Return the least value from which on at most ``most`` of the values (N,) lie; None if ``most`` is 0.

    Equal values are taken together or not at all, so it may be fewer: None too if the largest value alone
    is there more often.
    """
    ordered = np.sort(values)[::-1]
    if most >= len(ordered):
        return float(ordered[-1])
    above = ordered[:most][ordered[:most] > ordered[most]]
    return float(above[-1]) if len(above) else None
