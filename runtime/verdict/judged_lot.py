"""A limit on raw scores that is taken from another lot, known to be good or judged by a person.

Raw scores are distances to the other images of the same lot.  Those of two lots can be compared only where
the same ViT made them, in the same way, and where each image was compared with about as many others: the
share of the nearest that is averaged is fixed, but the more there are, the nearer the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, NoReturn

import numpy as np

from ..._numbers import counted
from ..errors import LotError
from ..settings import PAIRS, PAPER, RAW_SCORE, ScoreSettings
from ..tiling import Tiles
from ..types import Array
from .limits import UNIT, Limits, conformal_p
from .rules import whole_share

MOST_JUDGES_RATIO = 4.0
"""Of the judges per image in two lots: beyond it, a limit of one is refused for the other.

Measured in docs/verdicts.md.
"""

_FEW = 20
_NOTED = ("bit_depth", "judges", "copies_judge", "roi")
"""What may differ between two lots whose raw scores are compared, with a note; ``roi`` if both have one."""
_OF_PRESETS = {"degrees", "position_median"}
_NONE = {"tiles": "no tiles", "window": "no window", "mask_background": "no masked background"}


@dataclass(frozen=True)
class MadeBy:
    """How raw scores came about, as far as it decides whether those of two lots can be compared.

    Attributes
    ----------
    bundle : hex sha256 of the bundle.
    degrees, interval, by : the settings of the method that raw scores depend on.
    bit_depth : bits of full scale by which the images were read.
    judges : other images that each image was compared with.
    burn_out : whether intervals may begin later than the paper's.
    position_median : share of each position's median that was subtracted.
    tiles : how images were cut, if they were.
    window : rows and columns within which patches were compared; None for all.
    roi : the region of interest in words, as lot.json has it; None for whole images.
    mask_background : how a plain background was left out; None: it was not.
    copies_judge : whether copies judged each other.
    """

    bundle: str
    degrees: tuple[int, ...]
    interval: tuple[float, float]
    bit_depth: int
    judges: int
    by: str = PAIRS
    burn_out: bool = False
    position_median: float = 0.0
    tiles: Tiles | None = None
    window: int | None = None
    roi: str | None = None
    mask_background: str | None = None
    copies_judge: bool = True

    @classmethod
    def of(
        cls,
        bundle: str,
        settings: ScoreSettings,
        bit_depth: int = 8,
        judges: int = 0,
        roi: str | None = None,
        mask_background: str | None = None,
    ) -> MadeBy:
        """Say it of a lot that is scored with these settings."""
        return cls(
            bundle,
            settings.degrees,
            settings.interval,
            bit_depth,
            judges,
            settings.by,
            settings.burn_out,
            float(settings.position_median),
            settings.tiles,
            settings.window,
            roi,
            mask_background,
            settings.copies_judge,
        )

    def differs(self, other: MadeBy) -> list[str]:
        """Return the names of what differs from another lot."""
        names = [each.name for each in fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def said(self, name: str) -> str:
        """Say the value of a field: "degrees (1, 5)", "2 x 3 tiles", "no window"."""
        value = getattr(self, name)
        if value is None:
            return _NONE.get(name, f"no {name.replace('_', ' ')}")
        return str(value) if name == "tiles" else f"{name.replace('_', ' ')} {value}"

    @property
    def by_paper(self) -> bool:
        """Whether the settings that presets choose are the paper's, as all earlier versions had them."""
        settings = (self.by, self.degrees, self.interval, self.position_median)
        return settings == (PAIRS, PAPER.degrees, PAPER.interval, PAPER.position_median)


@dataclass(frozen=True)
class JudgedLot:
    """Another lot, as ``read_judged_lot`` reads it: what limits are taken from.

    Attributes
    ----------
    name : str
        Its folder of results.
    known : str
        Why its good images count as good, in words.
    good : tuple of float
        Raw scores of its images that count as good.
    bad : tuple of float
        Raw scores of those that count as bad.
    made_by : MadeBy
        Bundle, settings and judges per image, which must be those of the lot that is judged.
    """

    name: str
    known: str
    good: tuple[float, ...]
    bad: tuple[float, ...]
    made_by: MadeBy

    def compare(self, lot: MadeBy) -> tuple[str, ...]:
        """Return notes on what differs a little between this lot and another.

        Raises
        ------
        LotError
            If so much differs that the raw scores cannot be compared.
        """
        notes = [*self.require_alike(lot)]
        mine, other = self.made_by.judges, lot.judges
        if max(mine, other) > MOST_JUDGES_RATIO * min(mine, other):
            raise LotError(
                f"{self.name}: its images had {mine} judges each and these have {other}; raw scores depend "
                f"on it, and a limit serves up to {MOST_JUDGES_RATIO:g} times as many. Score both lots with "
                f"the same --group-size, such as {min(mine, other)}."
            )
        if mine != other:
            notes.append(
                f"the images of {self.name} had {mine} judges each and these have {other}: with more judges "
                "raw scores get lower. Score both lots with the same --group-size for a limit that fits"
            )
        if self.made_by.bit_depth != lot.bit_depth:
            notes.append(
                f"{self.name} was read on a scale of {self.made_by.bit_depth} bits and this lot on "
                f"{lot.bit_depth}: give both the same --bit-depth unless they are as bright as each other"
            )
        return tuple(notes)

    def require_alike(self, lot: MadeBy) -> tuple[str, ...]:
        """Return notes on regions and copies; LotError unless bundle and settings are the same."""
        mine, differs = self.made_by, self.made_by.differs(lot)
        if "roi" in differs and None in (mine.roi, lot.roi):
            self._refuse(f"{self._region(mine)}, this lot {self._region(lot)}", "Score both alike.")
        for name in differs:
            if name not in _NOTED:
                value = lot.said(name)
                if getattr(mine, name) is not None:
                    value = value.removeprefix(f"{name.replace('_', ' ')} ")
                self._refuse(f"with {mine.said(name)}, this lot with {value}", self._remedy(lot))
        notes = []
        if "roi" in differs:
            notes.append(
                f"{self.name} was scored {self._region(mine)}, this lot {self._region(lot)}: their raw "
                "scores can be compared where these show the same part of the product"
            )
        if "copies_judge" in differs:
            words = ("apart", "judging each other")
            notes.append(
                f"{self.name} was scored with copies {words[mine.copies_judge]}, this lot with copies "
                f"{words[lot.copies_judge]}: apart, copies get higher raw scores"
            )
        return tuple(notes)

    def _refuse(self, differs: str, remedy: str) -> NoReturn:
        raise LotError(f"{self.name} was scored {differs}: their raw scores cannot be compared. {remedy}")

    def _region(self, made_by: MadeBy) -> str:
        return f"within the region {made_by.roi}" if made_by.roi else "over whole images"

    def _remedy(self, lot: MadeBy) -> str:
        """What to do about a difference: earlier versions, and --method paper, chose as the paper does."""
        settings = {name for name in self.made_by.differs(lot) if name not in _NOTED}
        if settings <= _OF_PRESETS and self.made_by.by_paper:
            return f"Score this lot as {self.name} was, with --method paper."
        return "Score both alike."


@dataclass(frozen=True)
class ThresholdFrom:
    """Reject the images whose raw score is above those of the good images of another lot.

    Attributes
    ----------
    lot : JudgedLot
        The other lot, by ``read_judged_lot``.
    good_rejected : float, default 0
        Share of the other lot's good images, rounded down, that the limit may lie below: with 0 it lies just
        above the highest of them.

    Raises
    ------
    LotError
        If the other lot has no good image, or ``good_rejected`` is not from 0 up to, not including, 1.
    """

    name: ClassVar[str] = "threshold-from"
    lot: JudgedLot
    good_rejected: float = 0.0

    def __post_init__(self) -> None:
        if not self.lot.good:
            raise LotError(f"{self.lot.name} has no image that counts as good: nothing to take a limit from.")
        if not 0 <= self.good_rejected < 1:
            raise LotError(f"good rejected {self.good_rejected}: expected a share from 0 to less than 1.")

    @property
    def by(self) -> str:
        """Raw scores: rescored ones depend on the neighbors in their own lot too."""
        return RAW_SCORE

    def judge(self, values: Array) -> Limits:
        """Return the limit; p is the conformal one, by rank among the good images of the other lot."""
        good = np.sort(np.array(self.lot.good))
        allowed = whole_share(self.good_rejected, len(good))
        limit = round(float(good[len(good) - 1 - allowed]) + UNIT, 6)
        return Limits(
            limit, None, self._promise(allowed), self._options(limit), conformal_p(good, values),
            self._notes(limit),
        )  # fmt: skip

    def _promise(self, allowed: int) -> str:
        count = len(self.lot.good)
        return (
            f"If good images of this lot score like the {count} good ones of the other, about {allowed + 1} "
            f"in {count + 1} of them {'is' if not allowed else 'are'} rejected. That is no guarantee: the "
            "two lots judge their own images, and another size or share of defects moves all scores."
        )

    def _options(self, limit: float) -> dict[str, Any]:
        bad = self.lot.bad
        return {
            "other": self.lot.name,
            "known": self.lot.known,
            "good": len(self.lot.good),
            "bad": len(bad),
            "bad_at_or_above": sum(value >= limit for value in bad),
            "good_rejected": self.good_rejected,
            "judges": self.lot.made_by.judges,
        }

    def _notes(self, limit: float) -> tuple[str, ...]:
        good, bad = self.lot.good, self.lot.bad
        notes = []
        if len(good) < _FEW:
            notes.append(f"the limit comes from {counted(len(good), 'good image')} alone")
        if below := sum(value < limit for value in bad):
            notes.append(f"{below} of the {len(bad)} bad images of {self.lot.name} lie below the limit")
        return tuple(notes)
