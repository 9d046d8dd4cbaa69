"""Format the tables of ``musc-bench``, one for each case, from whatever a report holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..._numbers import counted
from .harness import Samples, table
from .report import Report, machine
from .resources import Usage, usage_text

BUSY_MACHINE = 0.1
"""Average cores in use by other processes above which a measurement is not trusted."""
Facts = dict[str, Any]


def table_of(report: Report) -> str:
    """Format a report as a table: the machine, the measurements, the resources used."""
    where = machine()
    lines = [f"musc-bench {report.case} on {where['processor']}, {where['cores']} cores"]
    lines += _TABLES[report.case](report) if report.samples else ["nothing was measured"]
    usage = Usage(**report.resources)
    lines += ["", *(f"{name:<22} {value}" for name, value in usage_text(usage))]
    per_image = report.facts.get("per_image_s")
    if per_image and usage.power_w is not None:
        lines.append(f"{'energy per image':<22} {usage.power_w * per_image:.2f} J, at the mean power")
    if (usage.others_cores or 0) > BUSY_MACHINE:
        lines.append(
            f"warning: other processes used {usage.others_cores:.1f} cores meanwhile; "
            "measure again on a quiet machine"
        )
    if usage.throttled:
        lines.append("warning: the machine was throttled; cool it, or these are the figures of a hot one")
    return "\n".join(lines)


def _lot(report: Report) -> list[str]:
    f = report.facts
    if "lot_s" not in f:
        return ["no round was finished"]
    line, rounds = f["timeline"], report.samples["lot"]
    lines = [
        f"{counted(f['images'], 'image')}, {counted(len(rounds), 'round')} after {f['warm_up_rounds']} to "
        f"warm up, {counted(f['plan']['threads'], 'thread')}, scorer {f['scorer']}, backend {f['backend']}",
        "",
        f"lot        {f['lot_s']:8.3f} s   ({min(rounds):.3f} to {max(rounds):.3f})",
        f"per image  {f['per_image_s'] * 1e3:8.2f} ms  {f['images_per_s']:.2f} images/s; "
        f"keeps up with one image every {f['takt_s'] * 1e3:.1f} ms (by the slowest round)",
        f"stages     {line['busy_s']:8.3f} s   of which {line['overlap_s']:.3f} s ran beside others, and "
        f"{line['idle_s']:.3f} s are no stage's: {line['explained']:.1%} explained",
        "",
        f"{'stage':<18} {'busy s':>8} {'share':>6} {'limit s':>8} {'of limit':>8}"
        f"   {'calls':>6} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'max ms':>9}",
    ]
    for name, stage in sorted(f["stages"].items(), key=lambda item: -item[1]["busy_s"]):
        c = stage["calls"]
        times = " ".join(f"{c[key] * 1e3:>9.2f}" for key in ("p50", "p90", "p99", "longest"))
        lines.append(
            f"{name:<18} {stage['busy_s']:>8.3f} {stage['share_of_busy']:>6.1%} "
            f"{_or_dash(stage['limit_s'], '8.3f'):>8} {_or_dash(stage['share_of_limit'], '.0%'):>8}   "
            f"{c['count']:>6} {times}"
        )
    cold = {
        name: sorted(seconds)[len(seconds) // 2] for name, seconds in f.get("cold", {}).items() if seconds
    }
    if cold:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cold.items())
        lines += ["", f"cold: first image after {sum(cold.values()):.2f} s ({parts})"]
    timer = f["timer"]
    return [
        *lines,
        *_peaks(f),
        f"timer: {timer['span_s'] * 1e6:.2f} us a span, {timer['spans']} of them: {timer['share']:.3%}",
    ]


def _backbone(report: Report) -> list[str]:
    f = report.facts
    lines = [
        "",
        f"{'':<22} {'images/s':>9} {'of peak':>8}   {'runs':>5} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} "
        f"{'max ms':>9}",
    ]
    for name in report.samples:
        c = f[name]
        times = " ".join(f"{c[key] * 1e3:>9.2f}" for key in ("p50", "p90", "p99", "longest"))
        share = _or_dash(c["share_of_limit"], ".0%")
        lines.append(f"{name:<22} {c['images_per_s']:>9.2f} {share:>8}   {c['count']:>5} {times}")
    flop = f["flop_per_image"]
    counted = f"{flop / 1e9:.1f} GFLOP an image" if flop else "FLOP of this graph could not be counted"
    if "tokens_stay" in f:
        lines.append(f"tokens that stay on the GPU: {f['tokens_stay']}")
    return [*lines, counted, *_peaks(f)]


def _scorer(report: Report) -> list[str]:
    s = report.settings
    grid = "x".join(map(str, s["grid"]))
    lines = []
    for name, f in report.facts.items():
        found = [
            Samples(key.removeprefix(f"{name} "), tuple(seconds))
            for key, seconds in report.samples.items()
            if key.startswith(f"{name} ") and seconds
        ]
        lines += [
            "",
            f"{name} grid={grid} C={s['width']} layers={s['layers']} degrees={tuple(s['degrees'])}, "
            f"{counted(f['threads'], 'thread')}: {f['flop'] / 1e9:.0f} GFLOP, {f['bytes'] / 1e9:.2f} GB",
        ]
        if "floor_flops" not in f:
            lines.append("no round was finished")
            continue
        lines += [table(found), f"floor runs at {f['floor_flops'] / 1e9:.0f} GFLOP/s"]
        for names, ratio in (
            ("{} / floor", f["over_floor"]),
            ("reference / {}", f.get("reference_over", {})),
        ):
            for kind, (low, mid, high) in ratio.items():
                lines.append(f"{names.format(kind):<18} {mid:.2f} ({low:.2f} to {high:.2f})")
        differences = ", ".join(f"{kind} {d:.1e}" for kind, d in f["max_difference"].items())
        lines.append(f"largest differences of scores: {differences}")
    return lines


def _check(report: Report) -> list[str]:
    lines = [
        "",
        f"{'':<32} {'by the ViT':>10} {'p99/p50':>8}   {'runs':>5} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} "
        f"{'max ms':>9} {'CPU ms':>9} {'by the ViT':>10}",
    ]
    for name, c in report.facts.items():
        times = " ".join(f"{c[key] * 1e3:>9.2f}" for key in ("p50", "p90", "p99", "longest", "cpu_s"))
        lines.append(
            f"{name[-32:]:<32} {c['over_vit']:>10.2f} {c['p99'] / c['p50']:>8.2f}   {c['count']:>5} {times} "
            f"{_or_dash(c['cpu_over_vit'], '.2f'):>10}"
        )
    return lines


def _peak(report: Report) -> list[str]:
    found = [Samples(name, tuple(seconds)) for name, seconds in report.samples.items()]
    return ["", table(found, 1e-3, "ms"), *_peaks(report.facts)]


def _startup(report: Report) -> list[str]:
    found = [Samples(name, tuple(seconds)) for name, seconds in report.samples.items() if seconds]
    above = report.facts.get("above_bare_python_s", {})
    text = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in above.items())
    return ["", table(found, 1e-3, "ms"), f"above bare Python (medians): {text}"] if found else []


def _peaks(facts: Facts) -> list[str]:
    p, g = facts["peaks"], facts.get("gpu_peaks")
    lines = [
        f"limits: {p['flops'] / 1e9:.0f} GFLOP/s of products, {p['bytes_per_s'] / 1e9:.1f} GB/s copied, "
        f"{counted(p['threads'], 'thread')}"
    ]
    if g and "not_measured" in g:
        lines.append(f"limits of the GPU are not known: {g['not_measured']}")
    elif g:
        lines.append(
            f"limits of {g['name']}: {g['flops'] / 1e12:.1f} TFLOP/s of products of halves (mma.sync), "
            f"{g['bytes_per_s'] / 1e9:.0f} GB/s copied, {g['upload_bytes_per_s'] / 1e9:.1f} GB/s "
            "from the host"
        )
    return lines


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


_TABLES: dict[str, Callable[[Report], Sequence[str]]] = {
    "lot": _lot,
    "backbone": _backbone,
    "scorer": _scorer,
    "check": _check,
    "peak": _peak,
    "startup": _startup,
}
