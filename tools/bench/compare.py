"""``musc-bench compare``: what became slower or faster between two reports, beyond the noise.

Two runs of the same code differ.  The rounds of one run share what the machine did at that time, so they
are not independent: a rank test by itself takes the drift between the runs for a change.  Reports therefore
hold a yardstick (harness.py), the time of a matrix product that never changes, for every round, and times
are compared in units of their round's.  A name has changed only if all of this holds, the first two in
those units:

- Mann-Whitney U, exact, over the rounds without bursts, Holm-corrected over the names, is at most 5 %;
- the bootstrap interval of the ratio of medians, widened by what one name drifts by itself, clears 5 %;
- the ratio as measured clears 5 % too, so that a name which stood still while the machine moved is no change.

Where the machine itself moved much, the two runs cannot be compared, and all names are "unsure".  So is a
name that changed as measured but not in units of the yardstick.  Without yardsticks, times are compared as
they are, and the interval is widened by the drift that a run can have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...runtime.errors import MuscEdgeError
from .report import shortly

MIN_EFFECT = 0.05  # of the ratio of medians
FAMILY_ERROR = 0.05  # chance of any false alarm among the names, as far as rounds are independent
SHORTEST = 3e-3  # seconds; medians below it in both reports are noise
BURST = 1.3  # times the median: a round that the machine was busy with something else
OWN_DRIFT, RUN_DRIFT = 0.02, 0.03  # standard deviations from run to run: of one name by itself, of all
OTHER_MACHINE = 0.2  # of the yardstick: the machine was another, or busy with something else

_RESAMPLES = 2000
_ORDER = {"slower": 0, "faster": 0, "unsure": 1, "same": 2}
Floats = npt.NDArray[np.float64]
Verdict = Literal["slower", "faster", "same", "unsure"]


@dataclass(frozen=True)
class Change:
    """One name of both reports: medians in seconds, their ratio after / before, and what to think of it.

    ``low`` and ``high`` are the 95 % interval of the ratio in units of the yardstick, stretched to hold the
    ratio as measured.  ``p`` is Holm-corrected.  ``note`` says why where the verdict needs it, else it is
    empty.
    """

    name: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    p: float
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class _Pair:
    """Seconds of one name in the rounds of both reports, and the same in units of the yardstick."""

    before: Floats
    after: Floats
    own_before: Floats
    own_after: Floats

    @property
    def judged(self) -> bool:
        """Whether it takes long enough."""
        return bool(max(np.median(self.before), np.median(self.after)) >= SHORTEST)


# ---- comparing -------------------------------------------------------------------------------


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """What changed from report ``a`` to report ``b``, for each name in both, in the order of ``a``.

    Raises
    ------
    MuscEdgeError
        If the reports are of different cases, or scipy is not installed.
    """
    _check_case(a, b)
    before, after = _samples(a), _samples(b)
    first, second = _yardsticks(a, b)
    pairs = {
        name: _Pair(before[name], after[name], _in_units(before[name], first), _in_units(after[name], second))
        for name in before
        if name in after
    }
    judged = [name for name, pair in pairs.items() if pair.judged]
    p = dict(zip(judged, _holm([_rank_test(pairs[name]) for name in judged]), strict=True))
    moved = _log_ratio(first, second) if len(first) else None
    return [_change(name, pair, p.get(name, 1.0), moved, len(judged)) for name, pair in pairs.items()]


def _change(name: str, pair: _Pair, p: float, moved: float | None, names: int) -> Change:
    """The verdict on one of ``names`` that are judged; the yardstick ``moved`` by that logarithm."""
    ratio = _log_ratio(pair.before, pair.after)
    drift = OWN_DRIFT if moved is not None else math.hypot(OWN_DRIFT, RUN_DRIFT)
    low, high = _interval(pair.own_before, pair.own_after, math.sqrt(2) * drift)
    low, high = min(low, ratio), max(high, ratio)
    verdict: Verdict = "same"
    note = ""
    if not pair.judged:
        note = f"below {SHORTEST * 1e3:.0f} ms"
    elif moved is not None and abs(moved) > math.log1p(OTHER_MACHINE):
        verdict, note = "unsure", f"the machine itself moved by {_percent(math.exp(moved))}"
    elif too_few := _too_few(pair, names):
        verdict, note = "unsure", too_few
    elif p <= FAMILY_ERROR and _clears(low, high):
        verdict = "slower" if low > 0 else "faster"
    elif _clears(*_interval(pair.before, pair.after, 0.0)):
        verdict, note = "unsure", _why_unsure(pair, moved)
    return Change(
        name=name,
        before=float(np.median(pair.before)),
        after=float(np.median(pair.after)),
        ratio=math.exp(ratio),
        low=math.exp(low),
        high=math.exp(high),
        p=p,
        verdict=verdict,
        note=note,
    )


def _samples(report: dict[str, Any]) -> dict[str, Floats]:
    """Seconds by name; a name without rounds, as a partial report can have, is none."""
    return {name: _seconds(values) for name, values in report["samples"].items() if values}


def _yardsticks(a: dict[str, Any], b: dict[str, Any]) -> tuple[Floats, Floats]:
    """Seconds of the yardstick in the rounds of both reports; none unless both have it."""
    found = _seconds(a.get("yardstick", ())), _seconds(b.get("yardstick", ()))
    return found if all(map(len, found)) else (np.empty(0), np.empty(0))


def _seconds(values: Sequence[float]) -> Floats:
    seconds: Floats = np.maximum(np.array(values, float), 1e-9)  # the logarithm of a time must exist
    return seconds


def _in_units(seconds: Floats, yardstick: Floats) -> Floats:
    """Of the yardstick of the same round; a round that was cut off has none, and is left out."""
    if len(yardstick) == 0:
        return seconds
    rounds = min(len(seconds), len(yardstick))
    return seconds[:rounds] / yardstick[:rounds]


def _log_ratio(before: Floats, after: Floats) -> float:
    return float(np.log(np.median(after) / np.median(before)))


def _interval(before: Floats, after: Floats, drift: float) -> tuple[float, float]:
    """95 % interval of the log ratio of medians, by bootstrap, widened by the ``drift`` between the runs."""
    ratio = _log_ratio(before, after)
    low, high = np.quantile(_draw(after, 1) - _draw(before, 0), [0.025, 0.975])
    below, above = (math.hypot(max(x, 0), 1.96 * drift) for x in (ratio - low, high - ratio))
    return ratio - below, ratio + above


def _draw(values: Floats, side: int) -> Floats:
    """Logarithms (_RESAMPLES,) of medians of rounds drawn anew."""
    rounds = len(values)
    drawn = np.random.default_rng([side, rounds]).integers(rounds, size=(_RESAMPLES, rounds))
    medians: Floats = np.log(np.median(values[drawn], axis=1))
    return medians


def _rank_test(pair: _Pair) -> float:
    """Two-sided p of Mann-Whitney U over the rounds without bursts."""
    try:
        from scipy import stats
    except ImportError as error:
        raise MuscEdgeError(
            f"comparing reports needs scipy ({error}). Install it with: pip install 'musc-edge[bench]'"
        ) from error
    # One burst costs U a whole sample: with 8 rounds and 5 names nothing could reach significance.
    before, after = _without_bursts(pair.own_before), _without_bursts(pair.own_after)
    different = len(np.unique(np.concatenate((before, after))))
    if different == 1:
        return 1.0
    exact = different == len(before) + len(after) <= 100
    test = stats.mannwhitneyu(before, after, method="exact" if exact else "asymptotic")
    return float(test.pvalue)


def _without_bursts(values: Floats) -> Floats:
    return values[values <= BURST * np.median(values)]


def _holm(p: Sequence[float]) -> Floats:
    """P values corrected for being the smallest of many: Holm's step-down."""
    values = np.array(p)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def _clears(low: float, high: float) -> bool:
    """Whether an interval of log ratios lies beyond the smallest effect, on either side."""
    return low > math.log1p(MIN_EFFECT) or high < -math.log1p(MIN_EFFECT)


def _too_few(pair: _Pair, names: int) -> str:
    """Why no difference could reach significance, with the rounds that could; empty if one can."""
    n, m = len(_without_bursts(pair.own_before)), len(_without_bursts(pair.own_after))
    if 2 / math.comb(n + m, n) <= FAMILY_ERROR / names:
        return ""
    needed = next(k for k in range(2, 100) if 2 / math.comb(2 * k, k) <= FAMILY_ERROR / names)
    return f"{n} and {m} rounds without bursts are too few: {needed} in each are needed"


def _why_unsure(pair: _Pair, moved: float | None) -> str:
    if moved is None:
        return "two runs of the same code can drift apart by as much"
    own = _log_ratio(pair.own_before, pair.own_after)
    return f"{_percent(math.exp(own))} beside the machine's {_percent(math.exp(moved))}"


# ---- what else differs -----------------------------------------------------------------------


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Remarks on what, other than the code, may make the reports differ; MuscEdgeError for two cases."""
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
    return remarks + _machine_remark(*_yardsticks(a, b))


def _check_case(a: dict[str, Any], b: dict[str, Any]) -> None:
    if a["case"] != b["case"]:
        raise MuscEdgeError(
            f"the reports are of different cases, {a['case']!r} and {b['case']!r}; expected one case in "
            "both. Measure the same case twice."
        )


def _machine_remark(before: Floats, after: Floats) -> list[str]:
    if len(before) == 0:
        return ["not both reports have a yardstick: what the machine did cannot be told from a change"]
    moved = _log_ratio(before, after)
    if not _clears(moved, moved):
        return []
    return [
        f"the machine itself moved: a matrix product that never changes took {_percent(math.exp(moved))}. "
        "Measure both again, one after the other"
    ]


# ---- for people ------------------------------------------------------------------------------


def compare_text(changes: Sequence[Change], remarks: Sequence[str]) -> str:
    """A table, changed names first and the largest change first, then the remarks and a conclusion."""
    if not changes:
        return "\n".join([*_remark_lines(remarks), "nothing to compare: the reports share no name"])
    ordered = sorted(changes, key=lambda c: (_ORDER[c.verdict], -abs(math.log(c.ratio))))
    width = max(len("name"), *(len(c.name) for c in ordered))
    lines = [
        f"{'name':<{width}}  {'before':>10}  {'after':>10}  {'change':>8}  {'95 % interval':>20}  "
        f"{'p':>6}  verdict"
    ]
    for c in ordered:
        interval = f"{_percent(c.low)} to {_percent(c.high)}"
        note = f" ({c.note})" if c.note else ""
        lines.append(
            f"{c.name:<{width}}  {_time(c.before):>10}  {_time(c.after):>10}  {_percent(c.ratio):>8}  "
            f"{interval:>20}  {c.p:>6.4f}  {c.verdict}{note}"
        )
    return "\n".join([*lines, *_remark_lines(remarks), _conclusion(ordered)])


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
