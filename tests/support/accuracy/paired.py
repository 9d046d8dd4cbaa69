"""Paired differences between variants over draws of the same lots, and what follows for a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from musc_edge.runtime.types import Array

VETO = -0.01
"""A lot has a veto if the whole 95 % interval of its paired difference lies below this."""
ERRORS = 2
"""Standard errors that the mean difference over lots must exceed."""


@dataclass(frozen=True)
class Paired:
    """Differences (lots, draws) of one metric: what a variant gives less what another gives."""

    lots: tuple[str, ...]
    differences: Array

    @property
    def draws(self) -> int:
        """How many draws there are of each lot."""
        return int(self.differences.shape[1])

    def interval(self, lot: int) -> tuple[float, float]:
        """Return the mean difference of a lot, and half the width of its 95 % interval over draws."""
        values = self.differences[lot]
        half = student.ppf(0.975, self.draws - 1) * values.std(ddof=1) / np.sqrt(self.draws)
        return float(values.mean()), float(half)

    @property
    def mean(self) -> tuple[float, float]:
        """The mean over lots, and its standard error over draws."""
        of_draws = self.differences.mean(axis=0)
        return float(of_draws.mean()), float(of_draws.std(ddof=1) / np.sqrt(self.draws))

    @property
    def vetoes(self) -> list[str]:
        """The lots whose whole interval lies below ``VETO``."""
        found = [self.interval(lot) for lot in range(len(self.lots))]
        return [name for name, (mean, half) in zip(self.lots, found, strict=True) if mean + half < VETO]

    @property
    def lower(self) -> list[str]:
        """The lots whose mean difference lies below ``VETO``."""
        means = self.differences.mean(axis=1)
        return [name for name, mean in zip(self.lots, means, strict=True) if mean < VETO]

    @property
    def verdict(self) -> str:
        """Whether a default may follow the variant: "may", "vetoed" or "not enough"."""
        mean, error = self.mean
        if mean <= ERRORS * error:
            return "not enough"
        return "vetoed" if self.vetoes else "may"


def paired(values: Mapping[str, Array], of: Mapping[str, Array]) -> Paired:
    """Pair the values (draws,) of each lot with those ``of`` another variant on the same draws.

    Lots that one of the two has no values of are left out.
    """
    lots = tuple(lot for lot in of if lot in values)
    return Paired(lots, np.stack([values[lot] - of[lot] for lot in lots]))


def spread(values: Sequence[float]) -> str:
    """Such as "0.912 ± 0.013": mean and standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def change(mean: float, half: float) -> str:
    """Such as "+0.012 ± 0.020"."""
    return f"{mean:+.3f} ± {half:.3f}"


def difference_line(name: str, found: Paired, lots: Sequence[str]) -> str:
    """A line of a table: each lot's difference with its 95 % interval, then the mean, its error and verdict.

    A lot that has a veto is bold; one without values has a dash, and then there is no mean either.
    """
    cells = dict.fromkeys(lots, "–")
    for number, lot in enumerate(found.lots):
        cell = change(*found.interval(number))
        cells[lot] = f"**{cell}**" if lot in found.vetoes else cell
    mean, error = found.mean
    whole = len(found.lots) == len(lots)
    last = [f"{mean:+.3f} ({error:.3f})", found.verdict] if whole else ["–", "–"]
    return f"| {' | '.join([name, *cells.values(), *last])} |"


def difference_head(lots: Sequence[str], first: str = "choices") -> list[str]:
    """The head of the table that ``difference_line`` makes lines of."""
    return [
        f"| {first} | {' | '.join(lots)} | mean (standard error) | by the rule |",
        f"|{'---|' * (len(lots) + 3)}",
    ]
