"""``musc-bench compare``: what became slower or faster between two reports, beyond the noise.

Two runs of the same code differ.  The rounds of one run share what the machine did at that time, so they
are not independent: a rank test by itself takes the drift between the runs for a change.  A name has
changed here only if all of this holds, the first two after the median movement of all names is taken out:

- Mann-Whitney U, exact, over the rounds without bursts, Holm-corrected over the names, is at most 5 %;
- the bootstrap interval of the ratio of medians, widened by what one name drifts by itself, clears 5 %;
- the ratio as measured clears 5 % too, so that a name which stood still while others moved is no change.

Rounds are drawn whole, the same ones for every name, so noise that the names of a round share leaves the
interval as it left the ratio.  What moves all names alike cannot be told from the machine: such names are
"unsure", and a remark says so.  With fewer than three names no movement can be called common; the interval
is widened by the drift that a run can have instead.
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
SHORTEST = 1e-3  # seconds; medians below it in both reports are noise
BURST = 1.3  # times the median: a round that the machine was busy with something else
OWN_DRIFT, RUN_DRIFT = 0.01, 0.03  # standard deviations from run to run: of one name by itself, of all
MIN_NAMES = 3  # from which on a movement can be called common

_RESAMPLES = 2000
_ORDER = {"slower": 0, "faster": 0, "unsure": 1, "same": 2}
Floats = npt.NDArray[np.float64]
Verdict = Literal["slower", "faster", "same", "unsure"]


@dataclass(frozen=True)
class Change:
    """One name of both reports: medians in seconds, their ratio after / before, and what to think of it.

    ``low`` and ``high`` are the 95 % interval of the ratio without the movement common to all names,
    stretched to hold the ratio as measured.  ``p`` is Holm-corrected.  ``note`` says why where the verdict
    needs it, else it is empty.
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
    names = [name for name in before if name in after]
    if not names:
        return []
    logs = np.array([_log_ratio(before[name], after[name]) for name in names])
    drawn = np.array([_draw(after[name], 1) - _draw(before[name], 0) for name in names])
    judged = [_is_judged(before[name], after[name]) for name in names]
    common, common_drawn = _common(logs, drawn, judged)
    lows, highs = _intervals(logs - common, drawn - common_drawn, _drift(judged))
    raw_lows, raw_highs = _intervals(logs, drawn, 0.0)
    p = np.ones(len(names))
    p[judged] = _holm([
        _rank_test(before[name], after[name] / math.exp(common))
        for name, judge in zip(names, judged, strict=True) if judge
    ])  # fmt: skip
    changes = []
    for i, name in enumerate(names):
        low, high = min(lows[i], logs[i]), max(highs[i], logs[i])
        verdict, note = _verdict(low, high, p[i])
        if not judged[i]:
            verdict, note = "same", f"below {SHORTEST * 1e3:.0f} ms"
        elif too_few := _too_few(before[name], after[name], sum(judged)):
            verdict, note = "unsure", too_few
        elif verdict == "same" and _clears(raw_lows[i], raw_highs[i]):
            verdict, note = "unsure", _why_unsure(logs[i] - common, common, judged)
        medians = float(np.median(before[name])), float(np.median(after[name]))
        ratio, low, high = (math.exp(x) for x in (logs[i], low, high))
        changes.append(Change(name, *medians, ratio, low, high, float(p[i]), verdict, note))
    return changes


def _samples(report: dict[str, Any]) -> dict[str, Floats]:
    """Seconds by name; a name without rounds, as a partial report can have, is none."""
    return {
        name: np.maximum(np.array(seconds, float), 1e-9)  # the logarithm of a time must exist
        for name, seconds in report["samples"].items()
        if seconds
    }


def _is_judged(before: Floats, after: Floats) -> bool:
    return bool(max(np.median(before), np.median(after)) >= SHORTEST)


def _log_ratio(before: Floats, after: Floats) -> float:
    return float(np.log(np.median(after) / np.median(before)))


def _draw(values: Floats, side: int) -> Floats:
    """Logarithms (_RESAMPLES,) of medians of rounds drawn anew, the same for all names of a report."""
    rounds = len(values)
    drawn = np.random.default_rng([side, rounds]).integers(rounds, size=(_RESAMPLES, rounds))
    medians: Floats = np.log(np.median(values[drawn], axis=1))
    return medians


def _common(logs: Floats, drawn: Floats, judged: Sequence[bool]) -> tuple[float, Floats]:
    """Movement that the names share, of the report and of each draw; none for too few names."""
    if sum(judged) < MIN_NAMES:
        return 0.0, np.zeros(drawn.shape[1])
    return float(np.median(logs[judged])), np.median(drawn[judged], axis=0)


def _drift(judged: Sequence[bool]) -> float:
    """What a ratio of medians of two runs can drift by, as a standard deviation of its logarithm."""
    alone = 0.0 if sum(judged) >= MIN_NAMES else RUN_DRIFT
    return math.sqrt(2) * math.hypot(OWN_DRIFT, alone)


def _intervals(logs: Floats, drawn: Floats, drift: float) -> tuple[Floats, Floats]:
    """95 % intervals of logs (n,) from draws (n,_RESAMPLES), widened by the drift between the runs."""
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    below = np.hypot(np.maximum(logs - low, 0), 1.96 * drift)
    above = np.hypot(np.maximum(high - logs, 0), 1.96 * drift)
    return logs - below, logs + above


def _rank_test(before: Floats, after: Floats) -> float:
    """Two-sided p of Mann-Whitney U over the rounds without bursts."""
    try:
        from scipy import stats
    except ImportError as error:
        raise MuscEdgeError(
            f"comparing reports needs scipy ({error}). Install it with: pip install 'musc-edge[bench]'"
        ) from error
    # One burst costs U a whole sample: with 8 rounds and 5 names nothing could reach significance.
    before, after = _without_bursts(before), _without_bursts(after)
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


def _verdict(low: float, high: float, p: float) -> tuple[Verdict, str]:
    if p > FAMILY_ERROR or not _clears(low, high):
        return "same", ""
    return ("slower" if low > 0 else "faster"), ""


def _too_few(before: Floats, after: Floats, names: int) -> str:
    """Why no difference could reach significance, with the rounds that could; empty if one can."""
    n, m = len(_without_bursts(before)), len(_without_bursts(after))
    if 2 / math.comb(n + m, n) <= FAMILY_ERROR / names:
        return ""
    needed = next(k for k in range(2, 100) if 2 / math.comb(2 * k, k) <= FAMILY_ERROR / names)
    return f"{n} and {m} rounds without bursts are too few: {needed} in each are needed"


def _why_unsure(own: float, common: float, judged: Sequence[bool]) -> str:
    if sum(judged) < MIN_NAMES:
        return "one run each, with so few names, can drift by as much"
    return f"{_percent(math.exp(own))} beside the {_percent(math.exp(common))} that the names share"


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
    return remarks + _common_remark(_samples(a), _samples(b))


def _check_case(a: dict[str, Any], b: dict[str, Any]) -> None:
    if a["case"] != b["case"]:
        raise MuscEdgeError(
            f"the reports are of different cases, {a['case']!r} and {b['case']!r}; expected one case in "
            "both. Measure the same case twice."
        )


def _common_remark(before: dict[str, Floats], after: dict[str, Floats]) -> list[str]:
    both = [name for name in before if name in after and _is_judged(before[name], after[name])]
    if len(both) < MIN_NAMES:
        return []
    common = float(np.median([_log_ratio(before[name], after[name]) for name in both]))
    if not _clears(common, common):
        return []
    return [
        f"the names moved by {_percent(math.exp(common))} together (median): probably the machine, unless "
        "the change touches them all. Measure both again, one after the other"
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
