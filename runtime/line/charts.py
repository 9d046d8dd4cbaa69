"""Control charts over what checks say of images, against what a reference's own images said.

A chart watches one signal in one direction.  An image's rank is the share of the reference's n images that
lie below it (or above, for a fall), which needs no assumption about the distribution of the signal.  Of good
images ranks are 0.5 on average, but for the luck of the n; of that many are defective, with the worst rank
that there is, at most ``DEFECTIVE``.  So there is a bound m that the mean rank of a steady line exceeds only
with bad luck, and 1 + b (rank / m - 1) is then at most 1 on average, for any bet b from 0 to 1: it is what is
left of 1 after betting a share b of it on a rise.  With one such factor f for each image

    R = (1 + R) f

is Shiryaev's and Roberts' detector: while the line is steady, R grows by at most 1 for each image on
average, so that the first R >= 1 / rate comes after 1 / rate images or more on average (the optional stopping
theorem; E-detectors: Shin, Ramdas and Rinaldo 2022; bets on ranks: Vovk, Gammerman and Shafer 2005).  A mean
of several R, for bets of different size and for other functions of the rank, has this property too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil

import numpy as np

from ..errors import LotError
from ..types import Array

DEFECTIVE = 0.2
"""Largest share of defective images that is no change of the line."""
LUCK = 0.05
"""Probability that the reference's images are so unusual that the promise does not hold."""
LEAST = 20
"""Images of the reference that a signal takes to be watched."""
BACK_RATE = 0.001
"""How often a chart says that a line is back while it is not, of images."""
DIGITS = 6
"""Digits behind the point that a log keeps of a signal."""

_BETS = np.array([0.2, 0.5, 0.9])
_HIGH = 0.9
_DRAWS = 100_000
_FUNCTIONS = 2


@dataclass(frozen=True)
class State:
    """What charts know after some images; never changed, only replaced.

    Attributes
    ----------
    evidence : ndarray of shape (..., G, F, L)
        Shiryaev-Roberts statistics for a change, of G charts, F functions of the rank and L bets.
    ratio : ndarray of shape (..., G, F, L)
        Products of the factors since ``began``.
    began : ndarray of shape (..., G, F, L), int64
        Number of the image with which the product was largest to begin with: where a change would have
        begun.
    since : ndarray of shape (..., G), int64
        Number of the image with which a change began; 0 where a chart is steady.
    back : ndarray of shape (..., G, F, L)
        Statistics for the end of the change.
    """

    evidence: Array
    ratio: Array
    began: Array
    since: Array
    back: Array


class Charts:
    """Charts of some signals, for rises and falls.

    Parameters
    ----------
    base : mapping of str to ndarray of shape (n,)
        What the reference's images said, by signal.  One of fewer than ``LEAST`` images is left out.
    rate : float
        False alarms per image of all charts together.
    defective : float
        Share of images that may be defective while the line is steady.

    Raises
    ------
    LotError
        If ``rate`` is not above 0 and below 1.

    Attributes
    ----------
    signals : tuple of str
        What is watched.  Chart 2 k is for rises of the signal k, chart 2 k + 1 for its falls.
    """

    def __init__(self, base: Mapping[str, Array], rate: float, defective: float = DEFECTIVE) -> None:
        if not 0 < rate < 1:
            raise LotError(f"{rate:g} false alarms per image: expected above 0 and below 1, such as 0.0001.")
        self.signals = tuple(name for name, values in base.items() if len(values) >= LEAST)
        self._base = [np.sort(np.round(base[name], DIGITS)) for name in self.signals]
        self._limit = 2 * len(self.signals) / rate
        luck = LUCK / (2 * len(self.signals) * _FUNCTIONS) if self.signals else LUCK
        bounds = [_bounds(len(values), luck) for values in self._base for _ in range(2)]
        self._most = defective + (1 - defective) * np.array(bounds).reshape(-1, _FUNCTIONS)

    def start(self, *lines: int) -> State:
        """Return the state before the first image, of one line or of ``lines`` of them."""
        shape = (*lines, len(self._most), _FUNCTIONS, len(_BETS))
        numbers = np.zeros(shape, np.int64)
        return State(np.zeros(shape), np.zeros(shape), numbers, numbers[..., 0, 0], np.zeros(shape))

    def step(self, state: State, values: Array, number: int) -> State:
        """Return the state after the image ``number``, 1 or more, with these ``values`` (..., signals)."""
        scores = self.scores(values)
        factors = _factors(scores, self._most)
        changed = state.since > 0
        on = changed[..., None, None]
        evidence = np.where(on, 0, (1 + state.evidence) * factors)
        fresh = state.ratio <= 1
        ratio = np.where(on, 0, np.where(fresh, 1, state.ratio) * factors)
        began = np.where(fresh, number, state.began)
        back = np.where(on, (1 + state.back) * _factors(1 - scores, 1 - self._most), 0)
        alarm = ~changed & (evidence.mean(axis=(-2, -1)) >= self._limit)
        # Each function of the rank must be back, since any of them may have told of the change.
        over = changed & (back.mean(axis=-1).min(axis=-1) >= 1 / BACK_RATE)
        since = np.where(alarm, _strongest(evidence, began), np.where(over, 0, state.since))
        return State(evidence, ratio, began, since, back)

    def scores(self, values: Array) -> Array:
        """Return what the charts bet on (..., G, F), from 0 to 1: the rank, and whether it is a high one."""
        found = []
        for k, base in enumerate(self._base):
            n, of_signal = len(base), values[..., k]
            for below in (
                np.searchsorted(base, of_signal, "left"),
                n - np.searchsorted(base, of_signal, "right"),
            ):
                found.append(np.stack([below / n, below >= ceil(_HIGH * n)], axis=-1))
        return np.stack(found, axis=-2) if found else np.zeros((*values.shape[:-1], 0, _FUNCTIONS))


@cache
def _bounds(n: int, luck: float) -> tuple[float, float]:
    """Return what the means of both scores of good images do not exceed, but with probability ``luck`` each.

    Given n images, the mean rank of further ones is distributed as the mean of n uniform numbers, and the
    probability of lying above the k-th of them as Beta(n + 1 - k, k).
    """
    draw = np.random.RandomState(0)
    k = ceil(_HIGH * n)
    # The sum of n uniform numbers has lighter tails than the normal distribution of its mean and variance.
    rank = 0.5 + np.quantile(draw.normal(size=_DRAWS), 1 - luck) / np.sqrt(12 * n)
    return float(rank), float(np.quantile(draw.beta(n + 1 - k, k, _DRAWS), 1 - luck))


def _factors(scores: Array, most: Array) -> Array:
    """Return factors (..., G, F, L): at most 1 on average where ``scores`` are at most ``most``."""
    return 1 + _BETS * (scores / most - 1)[..., None]


def _strongest(evidence: Array, began: Array) -> Array:
    """Return where the change began by the chart's statistic with the most evidence."""
    flat = evidence.reshape(*evidence.shape[:-2], _FUNCTIONS * len(_BETS))
    best = flat.argmax(axis=-1)[..., None]
    numbers: Array = np.take_along_axis(began.reshape(flat.shape), best, axis=-1)[..., 0]
    return numbers
