"""``musc-bench compare``: find what became slower or faster between two reports, beyond the noise.

Two runs of the same code differ, and the rounds of one run share what the machine did at that time.  Reports
therefore hold a yardstick (peak.py), the time of matrix products that never change, for every round, and
times are compared in units of their round's: the change of a name is the ratio of the medians of these.  Its
standard error is put together of

- those of the two medians, by bootstrap, larger by as much as rounds resemble those before them;
- what a name drifts by itself from run to run;
- a part of what the machine moved by, since a name need not follow the yardstick.

A name has changed if the interval of that error, for 5 % of false alarms in all names together, lies beyond
5 %, and the ratio as measured does too: a name that stood still while the machine moved has not changed.
Without yardsticks times are compared as they are, with the drift that a whole run can have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..._json import shortly
from ..._numbers import too_few
from ...runtime.results.text import printable
from ..usage import UsageError

MIN_EFFECT = 0.05  # of the ratio of medians
FAMILY_ERROR = 0.05  # chance of any false alarm among the names
MIN_ROUNDS = 5  # below which the error of a median cannot be told
SHORTEST = {"lot": 10e-3}  # seconds, by case; medians below it in both reports are noise
OWN_DRIFT, RUN_DRIFT = 0.01, 0.03  # standard deviations from run to run: of one name by itself, of all
FOLLOWS = 0.15  # of the machine's movement, as a standard deviation: how far names are from following it

_RESAMPLES = 2000
_ORDER = {"slower": 0, "faster": 0, "unsure": 1, "same": 2}
Floats = npt.NDArray[np.float64]
Verdict = Literal["slower", "faster", "same", "unsure"]


@dataclass(frozen=True)
class Change:
    """The comparison of a name in both reports: medians in seconds, and a verdict.

    ``ratio`` is after / before in units of the yardstick, ``low`` and ``high`` its interval.  ``note`` says
    why where the verdict needs it, else it is empty.
    """

    name: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: Verdict
    note: str = ""


# ---- comparing -------------------------------------------------------------------------------


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """Compare reports ``a`` and ``b``, for each name in both, in the order of ``a``.

    Raises
    ------
    UsageError
        If the reports are of different cases.
    """
    _check_case(a, b)
    before, after = _samples(a), _samples(b)
    first, second = _yardsticks(a, b)
    moved = _log_ratio(first, second) if len(first) else None
    shortest = SHORTEST.get(a["case"], 0.0)
    names = [name for name in before if name in after]
    judged = [n for n in names if max(np.median(before[n]), np.median(after[n])) >= shortest]
    width = NormalDist().inv_cdf(1 - FAMILY_ERROR / 2 / max(len(judged), 1))
    changes = []
    for name in names:
        own = _in_units(before[name], first), _in_units(after[name], second)
        ratio, reach = _log_ratio(*own), width * _error(*own, moved)
        measured = _log_ratio(before[name], after[name])
        verdict, note = _verdict(ratio, reach, measured, min(map(len, own)))
        if name not in judged:
            verdict, note = "same", f"below {shortest * 1e3:.0f} ms"
        changes.append(
            Change(
                name,
                before=float(np.median(before[name])),
                after=float(np.median(after[name])),
                ratio=math.exp(ratio),
                low=math.exp(ratio - reach),
                high=math.exp(ratio + reach),
                verdict=verdict,
                note=note,
            )
        )
    return changes


def _verdict(ratio: float, reach: float, measured: float, rounds: int) -> tuple[Verdict, str]:
    """Judge a log ratio that is uncertain by ``reach`` on either side; ``measured`` is the one in seconds."""
    # In seconds and in units of the yardstick, it must have moved the same way: ``copysign`` is negative if
    # the two disagree, so that a name which stood still while the machine moved has not changed.
    effect = math.log1p(MIN_EFFECT)
    if rounds < MIN_ROUNDS:
        return "unsure", f"{too_few(rounds, 'round')}: {MIN_ROUNDS} in each report are needed"
    if abs(ratio) - reach > effect:
        if math.copysign(measured, measured * ratio) > effect:
            return ("slower" if ratio > 0 else "faster"), ""
        return "unsure", f"as measured it moved by {_percent(math.exp(measured))}"
    if abs(ratio) > max(reach, effect):
        return "unsure", f"it changed, but by less than {MIN_EFFECT:.0%} perhaps".replace("%", " %")
    return "same", ""


def _samples(report: dict[str, Any]) -> dict[str, Floats]:
    """Return the seconds by name, without names that have no rounds, as in a partial report."""
    return {name: _seconds(values) for name, values in report["samples"].items() if values}


def _yardsticks(a: dict[str, Any], b: dict[str, Any]) -> tuple[Floats, Floats]:
    """Return the yardstick's seconds in the rounds of both reports; empty unless both have it."""
    found = _seconds(a.get("yardstick", ())), _seconds(b.get("yardstick", ()))
    return found if all(map(len, found)) else (np.empty(0), np.empty(0))


def _seconds(values: Sequence[float]) -> Floats:
    seconds: Floats = np.maximum(np.array(values, float), 1e-9)  # the logarithm of a time must exist
    return seconds


def _in_units(seconds: Floats, yardstick: Floats) -> Floats:
    """Express seconds in units of their round's yardstick; leaves out a round that was cut off before it."""
    if len(yardstick) == 0:
        return seconds
    rounds = min(len(seconds), len(yardstick))
    return seconds[:rounds] / yardstick[:rounds]


def _log_ratio(before: Floats, after: Floats) -> float:
    return float(np.log(np.median(after) / np.median(before)))


def _error(before: Floats, after: Floats, moved: float | None) -> float:
    """Return the standard error of a log ratio of medians; ``moved`` is the yardstick's log ratio or None."""
    # Drifts are of one run, and two runs are compared: hence the root of 2.
    own = math.sqrt(2) * OWN_DRIFT
    run = math.sqrt(2) * RUN_DRIFT if moved is None else FOLLOWS * moved
    return math.hypot(_median_error(before), _median_error(after), own, run)


def _median_error(values: Floats) -> float:
    """Return the standard error of the logarithm of a median, by bootstrap."""
    rounds = len(values)
    drawn = np.random.default_rng(rounds).integers(rounds, size=(_RESAMPLES, rounds))
    error = float(np.log(np.median(values[drawn], axis=1)).std())
    return error * math.sqrt(_repetition(np.log(values)))


def _repetition(values: Floats) -> float:
    """Return the factor by which rounds that resemble those before them count less."""
    # With correlation r from round to round, the variance of a mean grows by (1 + r) / (1 - r).
    distance = values - np.median(values)
    spread = 3 * 1.4826 * float(np.median(np.abs(distance)))
    distance = np.clip(distance, -spread, spread)  # a burst says nothing of how rounds follow one another
    power = float(distance @ distance)
    correlation = float(distance[1:] @ distance[:-1]) / power if power > 0 else 0.0
    correlation = min(max(correlation, 0.0), 0.8)
    return (1 + correlation) / (1 - correlation)


# ---- what else differs -----------------------------------------------------------------------


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return remarks on what else than the code may make the reports differ; UsageError for two cases."""
    _check_case(a, b)
    remarks = [
        f"{part}: {key} was {shortly(a[part].get(key))}, is {shortly(b[part].get(key))}"
        for part, keys in (
            ("settings", dict.fromkeys((*a["settings"], *b["settings"]))),
            ("machine", ("processor", "cores", "system", "python")),
            ("versions", dict.fromkeys((*a["versions"], *b["versions"]))),
        )
        for key in keys
        if a[part].get(key) != b[part].get(key)
    ]
    sides = (("first", a, b), ("second", b, a))
    remarks += [
        f"the {side} report is partial: its run was cut short" for side, r, _ in sides if r.get("partial")
    ]
    for side, report, other in sides:
        if alone := [name for name in _samples(report) if name not in _samples(other)]:
            remarks.append(f"only in the {side} report: {', '.join(alone)}")
    return remarks + _machine_remark(a, b)


def _check_case(a: dict[str, Any], b: dict[str, Any]) -> None:
    if a["case"] != b["case"]:
        raise UsageError(
            f"the reports are of different cases, {shortly(a['case'])} and {shortly(b['case'])}; "
            "expected one case in both. Measure the same case twice."
        )


def _machine_remark(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    before, after = _yardsticks(a, b)
    if len(before) == 0:
        only = a.get("yardstick") or b.get("yardstick")
        return ["only one of the reports has a yardstick: times are compared as they are"] if only else []
    moved = _log_ratio(before, after)
    if abs(moved) < math.log1p(MIN_EFFECT):
        return []
    return [
        f"the machine itself moved: products that never change took {_percent(math.exp(moved))}. Changes are "
        "in units of these, and less sure the more it moved: measure both again, one after the other"
    ]


# ---- for people ------------------------------------------------------------------------------


def compare_text(changes: Sequence[Change], remarks: Sequence[str]) -> str:
    """Format a table, largest change first, then the remarks and a conclusion."""
    if not changes:
        return _lines([*_remark_lines(remarks), "nothing to compare: the reports share no name"])
    ordered = sorted(changes, key=lambda c: (_ORDER[c.verdict], -abs(math.log(c.ratio))))
    width = max(len("name"), *(len(c.name) for c in ordered))
    lines = [f"{'name':<{width}}  {'before':>10}  {'after':>10}  {'change':>8}  {'interval':>20}  verdict"]
    for c in ordered:
        interval = f"{_percent(c.low)} to {_percent(c.high)}"
        note = f" ({c.note})" if c.note else ""
        lines.append(
            f"{c.name:<{width}}  {_time(c.before):>10}  {_time(c.after):>10}  {_percent(c.ratio):>8}  "
            f"{interval:>20}  {c.verdict}{note}"
        )
    return _lines([*lines, *_remark_lines(remarks), _conclusion(ordered)])


def _lines(texts: Sequence[str]) -> str:
    """Join the texts, one line each, whatever is in a name."""
    return "\n".join(map(printable, texts))


def _remark_lines(remarks: Sequence[str]) -> list[str]:
    return [f"note: {remark}" for remark in remarks]


def _conclusion(ordered: Sequence[Change]) -> str:
    parts = []
    for verdict in ("slower", "faster"):
        if found := [f"{c.name} ({_percent(c.ratio)})" for c in ordered if c.verdict == verdict]:
            parts.append(f"{verdict} beyond the noise: {', '.join(found)}")
    unsure = [c.name for c in ordered if c.verdict == "unsure"]
    if not parts and len(unsure) < len(ordered):
        parts.append("nothing changed beyond the noise")
    if unsure:
        parts.append(f"unsure: {', '.join(unsure)}")
    return "; ".join(parts)


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _percent(ratio: float) -> str:
    return f"{round((ratio - 1) * 100):+d} %"
