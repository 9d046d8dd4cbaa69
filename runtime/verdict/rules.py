"""Rules by which a user says what to reject: a limit, a share of the lot or a number of images.

Each is a small value with one function, ``judge``, from the values of a lot (N,) to its ``Limits``.  ``by``
names the column that it judges by.  Users choose a limit, and count, on the list that they see; so the
column that the lot is sorted by is that of these rules unless they say otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

from ..._numbers import counted
from ..errors import LotError
from ..settings import JUDGED
from ..types import Array
from .limits import FARTHEST, Limits, limit_of_at_most


class Rule(Protocol):
    """A rule for verdicts."""

    @property
    def name(self) -> str:
        """Its word in lot.json."""
        ...

    @property
    def by(self) -> str | None:
        """The column that it judges by: ``score`` or ``raw_score``; None: the one the lot is sorted by."""
        ...

    def judge(self, values: Array) -> Limits:
        """Return the limits for the values (N,) of a lot, which are finite."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Reject the images from a distance on.

    Attributes
    ----------
    reject_from : float
        Distance, 0 to 2, from which an image is a reject.
    review_from : float, optional
        Distance from which it needs a review; lower than ``reject_from``.
    by : {"score", "raw_score"}, optional
        The column that is compared; the one that the lot is sorted by, unless another is given.

    Raises
    ------
    LotError
        If a limit or ``by`` is none of these.
    """

    name: ClassVar[str] = "threshold"
    reject_from: float
    review_from: float | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        require_column(self.by)
        for limit in (self.reject_from, self.review_from):
            if limit is not None and not 0 <= limit <= FARTHEST:
                raise LotError(f"threshold {limit}: expected a distance from 0 to {FARTHEST:g}.")
        if self.review_from is not None and self.review_from >= self.reject_from:
            raise LotError(
                f"review from {self.review_from}, reject from {self.reject_from}: expected a review below."
            )

    def judge(self, values: Array) -> Limits:
        """Return the limits that were given."""
        return Limits(
            self.reject_from,
            self.review_from,
            "Rejects what lies at or above the given distance; nothing is promised about the images on "
            "either side. The distance serves other lots only where they are scored with the same bundle, "
            "settings and number of judges.",
        )


@dataclass(frozen=True)
class RejectRate:
    """Reject at most a share of the lot: the images with the largest values.

    The number is rounded down, and equal values are taken together or not at all: never more than was asked.

    Attributes
    ----------
    rate : float
        Share of the lot's scored images, above 0 and at most 1.
    by : {"score", "raw_score"}, optional
        The column that counts; the one that the lot is sorted by, unless another is given.

    Raises
    ------
    LotError
        If ``rate`` or ``by`` is none of these.
    """

    name: ClassVar[str] = "reject-rate"
    rate: float
    by: str | None = None

    def __post_init__(self) -> None:
        require_column(self.by)
        if not 0 < self.rate <= 1:
            raise LotError(f"reject rate {self.rate}: expected a share above 0 and at most 1, such as 0.05.")

    def judge(self, values: Array) -> Limits:
        """Return the limit above which at most this share of the values lies."""
        most = whole_share(self.rate, len(values))
        return _worst(values, most, f"{100 * self.rate:g} %", {"rate": self.rate})


@dataclass(frozen=True)
class RejectCount:
    """Reject at most a number of images: those with the largest values.

    Equal values are taken together or not at all: never more than was asked.  Of a lot with no more images
    than that, all are rejects.

    Attributes
    ----------
    count : int
        Number of images, 1 or more.
    by : {"score", "raw_score"}, optional
        The column that counts; the one that the lot is sorted by, unless another is given.

    Raises
    ------
    LotError
        If ``count`` or ``by`` is none of these.
    """

    name: ClassVar[str] = "reject-count"
    count: int
    by: str | None = None

    def __post_init__(self) -> None:
        require_column(self.by)
        if self.count < 1:
            raise LotError(f"reject count {self.count}: expected 1 or more.")

    def judge(self, values: Array) -> Limits:
        """Return the limit above which at most so many values lie."""
        return _worst(values, self.count, counted(self.count, "image"), {"count": self.count})


def _worst(values: Array, most: int, asked: str, options: dict[str, float]) -> Limits:
    """Return the limits of a rule that rejects the worst ``most`` images, which ``asked`` says in words."""
    limit = limit_of_at_most(values, most)
    rejected = 0 if limit is None else int((values >= limit).sum())
    notes = []
    if not most:
        notes.append(f"{asked} of {counted(len(values), 'image')} is less than one image: none is rejected")
    elif rejected < min(most, len(values)):
        notes.append(
            f"{rejected} instead of {min(most, len(values))} rejected: images with equal scores are rejected "
            "together or not at all"
        )
    promise = (
        f"Rejects at most {asked} of a lot, those with the largest scores, whether they are defective or "
        "not: a choice of how much to look at, not a finding."
    )
    return Limits(limit, None, promise, {**options, "at_most": most}, notes=tuple(notes))


def whole_share(share: float, count: int) -> int:
    """Return how many images a share of ``count`` is, rounded down: 0.29 of 100 is 29."""
    return math.floor(Fraction(str(share)) * count)


def require_column(by: str | None) -> None:
    """Raise LotError unless ``by`` is None, or a column that can be judged by."""
    if by is not None and by not in JUDGED:
        raise LotError(f"judged by {by!r}: expected {' or '.join(JUDGED)}.")
