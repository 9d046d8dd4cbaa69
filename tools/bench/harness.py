"""The one benchmark harness: run cases in turn, A B A B, and say their spread and ratios.

Machines are noisy and drift, so cases are compared within one run, round by round, and every figure
comes with its smallest and largest value.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Samples:
    """Seconds that a case took in each round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return median(self.seconds)


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> list[Samples]:
    """Time every case once per round, all cases in turn, after ``warm_up`` rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warm_up + rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            taken = time.perf_counter() - start
            if number >= warm_up:
                seconds[name].append(taken)
    return [Samples(name, tuple(values)) for name, values in seconds.items()]


def ratios(slow: Samples, fast: Samples) -> tuple[float, float, float]:
    """Smallest, median and largest ratio of two cases, round by round."""
    pairs = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return min(pairs), median(pairs), max(pairs)


def table(samples: list[Samples], unit: float = 1.0, unit_name: str = "s") -> str:
    """Rows of smallest, median and largest value; ``unit`` in seconds."""
    width = max(len(s.name) for s in samples)
    lines = [f"{'':<{width}}  {'min':>9} {'median':>9} {'max':>9}  {unit_name}"]
    for s in samples:
        low, mid, high = (value / unit for value in (min(s.seconds), s.median, max(s.seconds)))
        lines.append(f"{s.name:<{width}}  {low:>9.3f} {mid:>9.3f} {high:>9.3f}")
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
