"""The benchmark harness: run cases in turn, A B A B, and compute their spread and ratios.

Machines are noisy and drift, so cases are compared within one run, round by round, and every figure
comes with its smallest and largest value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

STEADY = 0.05
"""Relative difference of two successive rounds below which the warm-up ends."""
LEAST, MOST, MOST_S = 5, 30, 120.0
SPREAD = 0.02
"""Half the width of the median's 95 % interval, as a share of it, below which rounds are enough."""


@dataclass(frozen=True)
class Samples:
    """Seconds that a case took in each round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return median(self.seconds)


def alternate(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    into: dict[str, list[float]] | None = None,
) -> list[Samples]:
    """Time every case once per round, all cases in turn, after ``warm_up`` rounds that are not counted.

    ``into`` receives the seconds as they are measured, by case.
    """
    seconds = {} if into is None else into
    seconds.update({name: [] for name in cases})
    for number in range(warm_up + rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            taken = time.perf_counter() - start
            if number >= warm_up:
                seconds[name].append(taken)
    return [Samples(name, tuple(values)) for name, values in seconds.items()]


def warm_up(case: Callable[[], float], most: int = 3) -> int:
    """Run ``case`` until two successive runs take about as long, or ``most`` times; returns how often."""
    before = case()
    for count in range(2, most + 1):
        now = case()
        if abs(now - before) < STEADY * before:
            return count
        before = now
    return most


def enough(seconds: list[float], rounds: int | None) -> bool:
    """Return whether these rounds suffice: as many as asked for, or a median that is sure to SPREAD."""
    if rounds is not None or len(seconds) < LEAST:
        return len(seconds) >= (rounds or LEAST)
    return len(seconds) >= MOST or sum(seconds) >= MOST_S or sureness(seconds) < SPREAD


def sureness(seconds: list[float]) -> float:
    """Return half the width of the median's 95 % interval, as a share of the median."""
    # By order statistics, without assuming a distribution: of n rounds, those within 0.98 * sqrt(n) ranks of
    # the middle.  A binomial count has standard deviation sqrt(n) / 2, and 1.96 of these make 95 %.
    ordered = np.sort(seconds)
    reach = 0.98 * len(ordered) ** 0.5
    low, high = int(max(len(ordered) / 2 - reach, 0)), int(min(len(ordered) / 2 + reach, len(ordered) - 1))
    return float((ordered[high] - ordered[low]) / 2 / np.median(ordered))


def ratios(slow: Samples, fast: Samples) -> tuple[float, float, float]:
    """Return the smallest, median and largest ratio of two cases, round by round."""
    pairs = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return min(pairs), median(pairs), max(pairs)


def table(samples: list[Samples], unit: float = 1.0, unit_name: str = "s") -> str:
    """Format rows of smallest, median and largest value; ``unit`` is in seconds."""
    width = max(len(s.name) for s in samples)
    lines = [f"{'':<{width}}  {'min':>9} {'median':>9} {'max':>9}  {unit_name}"]
    for s in samples:
        low, mid, high = (value / unit for value in (min(s.seconds), s.median, max(s.seconds)))
        lines.append(f"{s.name:<{width}}  {low:>9.3f} {mid:>9.3f} {high:>9.3f}")
    return "\n".join(lines)
