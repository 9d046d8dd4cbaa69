"""Draw a report: bars of the stages, the spread of single calls, and the share of the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._extras import install
from ...runtime.errors import DeviceError
from .report import Report

DRAWN = ("lot", "backbone", "scorer")
_BLUE, _RED, _GRAY = "#1b6ca8", "#c8553d", "#b8bec4"


def draw(report: Report, path: Path) -> None:
    """Draw a report of one of the cases DRAWN as a PNG file.

    Raises
    ------
    DeviceError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DeviceError(
            f"the picture needs matplotlib ({error}). Install it with: {install('bench')}"
        ) from error
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    stages = report.facts.get("stages", {})
    if stages:
        _bars(left, {name: s["busy_s"] for name, s in stages.items()}, "seconds of a lot, added over threads")
        _spread(middle, report.calls, "ms of a call")
        _shares(right, {name: s["share_of_limit"] for name, s in stages.items()})
    else:
        rounds = {name: seconds for name, seconds in report.samples.items() if seconds}
        _bars(
            left,
            {name: sorted(seconds)[len(seconds) // 2] for name, seconds in rounds.items()},
            "seconds, median",
        )
        _spread(middle, rounds, "ms of a round")
        _shares(right, _shares_of(report))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _shares_of(report: Report) -> dict[str, float | None]:
    """Return the shares of the limit in a report without stages, by name."""
    if report.case == "backbone":
        return {name: report.facts[name]["share_of_limit"] for name in report.samples}
    return {
        f"{size} {kind}": 1 / ratio[1]
        for size, facts in report.facts.items()
        for kind, ratio in facts.get("over_floor", {}).items()
    }


def _bars(axes: Any, values: dict[str, float], label: str) -> None:
    names = sorted(values, key=lambda name: values[name])
    axes.barh(names, [values[name] for name in names], color=_BLUE)
    axes.set_xlabel(label)


def _spread(axes: Any, calls: dict[str, list[float]], label: str) -> None:
    """Draw boxes from the first to the third quartile, whiskers to the 1st and 99th percentile."""
    names = [name for name in calls if calls[name]]
    names.sort(key=lambda name: sum(calls[name]) / len(calls[name]))
    values = [[seconds * 1e3 for seconds in calls[name]] for name in names]
    axes.boxplot(values, orientation="horizontal", whis=(1, 99), showfliers=False, tick_labels=names,
        medianprops={"color": _RED})  # fmt: skip
    axes.set(xscale="log", xlabel=f"{label}: quartiles, 1 to 99 %")


def _shares(axes: Any, shares: dict[str, float | None]) -> None:
    known = {name: share for name, share in shares.items() if share is not None}
    names = sorted(known, key=lambda name: known[name])
    axes.barh(names, [1.0] * len(names), color=_GRAY)
    axes.barh(names, [known[name] for name in names], color=_BLUE)
    axes.set(xlabel="share of this machine's limit", xlim=(0, 1))
