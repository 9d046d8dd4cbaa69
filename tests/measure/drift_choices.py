"""Compare ways to watch a line for drift, on simulated lines: what each costs with a reference of few images.

    python tests/measure/drift_choices.py [--rate 0.0001] [--bursts]

The charts of the product beside two usual ones, both set to the same rate: an EWMA of ranks, as if the
reference's distribution were known, and Kolmogorov and Smirnov's test of windows of 50 images.  A reference
and a line are normal numbers in four signals; defects are larger than all others in each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure.drift import first_alarms
from musc_edge.runtime.line.charts import Charts
from musc_edge.runtime.line.drift import RATE
from musc_edge.runtime.types import Array

SIGNALS, REFERENCES, LINES, LONG, WINDOW, WEIGHT = 4, 20, 20, 1000, 50, 0.05
Chart = Callable[[Array, Array], Array]
"""First alarms (lines,), 0: none, of a reference (n, 4) and lines (images, lines, 4)."""


def ranks(base: Array, values: Array) -> Array:
    """The share of the reference below each value."""
    order = np.sort(base, axis=0)
    found = [np.searchsorted(order[:, k], values[..., k]) / len(base) for k in range(SIGNALS)]
    return np.stack(found, axis=-1)


def averages(shares: Array) -> Array:
    """Exponentially weighted averages of ranks about 0.5, the largest of all signals (images, lines)."""
    now, found = np.zeros(shares.shape[1:]), []
    for each in shares:
        now = (1 - WEIGHT) * now + WEIGHT * (each - 0.5)
        found.append(np.abs(now).max(axis=-1))
    return np.array(found)


def ewma(rate: float) -> Chart:
    """The chart by averages, its limit by simulation of ranks that are uniform."""
    uniform = np.random.RandomState(0).rand(2000, 400, SIGNALS)
    limit = np.quantile(averages(uniform).max(axis=0), np.exp(-rate * 2000))
    return lambda base, values: first(averages(ranks(base, values)) > limit)


def distance(base: Array, window: Array) -> Array:
    """Kolmogorov and Smirnov's statistic of windows (images, lines, 4) against a reference (n, 4)."""
    n, found = len(base), []
    for k in range(SIGNALS):
        order, own = np.sort(base[:, k]), np.sort(window[..., k], axis=0)
        steps = np.arange(len(own))[:, None] / len(own)
        above = np.searchsorted(order, own, "left") / n - steps
        below = steps + 1 / len(own) - np.searchsorted(order, own, "right") / n
        found.append(np.maximum(above, below).max(axis=0))
    largest: Array = np.array(found).max(axis=0)
    return largest


def windows(rate: float, n: int) -> Chart:
    """The test of windows, its limit by simulation of references of this size."""
    draw = np.random.RandomState(0)
    null = [distance(draw.rand(n, SIGNALS), draw.rand(WINDOW, 1, SIGNALS))[0] for _ in range(20_000)]
    limit = np.quantile(null, 1 - rate * WINDOW)

    def chart(base: Array, values: Array) -> Array:
        parts = values.reshape(-1, WINDOW, *values.shape[1:])
        return WINDOW * first(np.array([distance(base, part) > limit for part in parts]))

    return chart


def first(over: Array) -> Array:
    """The number of the first True of each line (images, lines), 0: none."""
    return np.where(over.any(axis=0), over.argmax(axis=0) + 1, 0)


def bets(rate: float) -> Chart:
    """The product's charts."""

    def chart(base: Array, values: Array) -> Array:
        named = {str(k): base[:, k] for k in range(SIGNALS)}
        return first_alarms(Charts(named, rate), values)[0]

    return chart


def measured(chart: Chart, n: int, shift: float, defective: float, images: int) -> tuple[float, Array]:
    """Alarms per 10,000 images, and the first alarms of the lines that had one."""
    alarms, seen, found = 0, 0, []
    for seed in range(REFERENCES):
        draw = np.random.RandomState(seed)
        base, values = draw.normal(size=(n, SIGNALS)), draw.normal(size=(images, LINES, SIGNALS))
        values[..., 0] += shift
        values[draw.rand(images, LINES) < defective] = 9
        told = chart(base, values)
        alarms += int((told > 0).sum())
        seen += int(np.where(told > 0, told, images).sum())
        found.append(np.where(told > 0, told, images))
    return 10_000 * alarms / seen, np.concatenate(found)


def bursts(rate: float) -> None:
    """Print how many extreme images in a row the product's charts take for a change, and how long they do."""
    print("| n | images in a row | steady again after, median (longest) |\n|---|---|---|")
    for n in (20, 60, 100, 200, 1000):
        draw = np.random.RandomState(0)
        base, values = draw.normal(size=(n, SIGNALS)), draw.normal(size=(1000, LINES, SIGNALS))
        values[200:230, :, 0] = 9
        charts = Charts({str(k): base[:, k] for k in range(SIGNALS)}, rate)
        state, changed = charts.start(LINES), []
        for number, each in enumerate(values, 1):
            state = charts.step(state, each, number)
            changed.append(state.since[:, 0] > 0)
        told = first(np.array(changed)) - 200
        back = first(~np.array(changed)[230:])
        print(f"| {n} | {told.min()} to {told.max()} | {np.median(back):.0f} ({back.max()}) |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--bursts", action="store_true", help="only how long a burst of defects may be")
    args = parser.parse_args()
    if args.bursts:
        bursts(args.rate)
        return
    print("| chart | n | alarms per 10,000, steady | 10 % defective | 20 % defective | delay, 1 sd | 2 sd |")
    print("|---|---|---|---|---|---|---|")
    for n in (20, 60, 200):
        for name, chart in (
            ("bets on ranks", bets(args.rate)),
            ("EWMA of ranks", ewma(args.rate)),
            ("KS of windows", windows(args.rate, n)),
        ):
            rates = [measured(chart, n, 0, share, LONG)[0] for share in (0, 0.1, 0.2)]
            delays = [np.median(measured(chart, n, shift, 0, LONG // 2)[1]) for shift in (1, 2)]
            numbers = " | ".join([f"{r:.1f}" for r in rates] + [f"{d:.0f}" for d in delays])
            print(f"| {name} | {n} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
