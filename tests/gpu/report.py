"""The Markdown of tests/gpu/gpu_check.py, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

Found = dict[str, Any]
TIMES_OF = "times of "
"""What the labels of timed variants begin with; a name and the number of the round follow."""


def markdown(whole: Found) -> str:
    """All that is known so far."""
    parts: Found = whole["parts"]
    results: Found = {name: part["result"] for name, part in parts.items() if "result" in part}
    lines = [*_head(whole["facts"], results), *_parts(parts)]
    if "times" in results:
        lines += _kernels(results["times"]["rows"], results.get("limits"))
    if "whole" in results:
        lines += _whole(results["whole"], results.get("limits"))
    return "\n".join([*lines, *_variants(results)]) + "\n"


def outcome(parts: Found) -> str:
    """What failed and why, what was not run, and a last line with how many parts are well."""
    lines = []
    for status, most in (("not run", 200), ("failed", 1500)):
        for name, part in parts.items():
            if part["status"] == status:
                lines.append(f"{status}: {name}: {part.get('why', '').strip()[-most:]}")
    well = sum(part["status"] == "ok" for part in parts.values())
    return "\n".join([*lines, f"{well} of {len(parts)} parts are well."])


def _head(facts: Found, results: Found) -> list[str]:
    device, limits = results.get("device", {}), results.get("limits", {})
    words = [f"{device.get('name', facts['device'])} ({device.get('arch', '?')})"]
    if facts["driver"]:
        words.append(f"driver {facts['driver']}")
    if "pycuda" in device:
        words += ["CUDA " + ".".join(map(str, device["cuda"])), f"pycuda {device['pycuda']}"]
    if limits:
        words.append(f"torch {limits['torch']}")
    lines = ["# " + ", ".join(words), ""]
    if facts["quick"] or facts["device"] != "cuda":
        lines += ["**Small sizes or no GPU: the times below mean nothing.**", ""]
    if limits:
        flops, copied = limits["flops"] / 1e12, limits["bytes_per_s"] / 1e9
        lines += [f"At most, through torch: {flops:.4g} TFLOP/s of halves, {copied:.4g} GB/s copied.", ""]
    return lines


def _parts(parts: Found) -> list[str]:
    lines = ["| part | | seconds | largest error, or why not |", "|---|---|---|---|"]
    for name, part in parts.items():
        errors = part.get("result", {}).get("errors", {})
        said = _worst(errors) if errors else part.get("why", "")
        said = said.strip().splitlines()[-1] if said.strip() else ""
        lines.append(f"| {name} | {part['status']} | {part['seconds']} | {said.replace('|', '/')} |")
    return [*lines, ""]


def _worst(errors: dict[str, float]) -> str:
    """The largest error in half precision and that in int8, which is larger by nature."""
    cases: dict[bool, list[str]] = {}
    for name in errors:
        cases.setdefault(name.endswith("int8"), []).append(name)
    worst = [max(names, key=lambda name: errors[name]) for names in cases.values()]
    return "; ".join(f"{errors[name]:.1e} ({name})" for name in worst) + f", of {len(errors)}"


def _kernels(rows: list[Found], limits: Found | None) -> list[str]:
    lines = [
        "| kernel | size | ms, median (least-most) | TFLOP/s | GB/s | of the peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = median(row["seconds"])
        flops, moved = row["flop"] / seconds, row["bytes"] / seconds
        share = ""
        if limits:
            share = f"{max(flops / limits['flops'], moved / limits['bytes_per_s']):.0%}"
        low, high = min(row["seconds"]) * 1e3, max(row["seconds"]) * 1e3
        rate = f"{flops / 1e12:.3g}" if flops else "-"
        time = f"{seconds * 1e3:.3f} ({low:.3f}-{high:.3f})"
        lines.append(f"| {row['kernel']} | {row['size']} | {time} | {rate} | {moved / 1e9:.4g} | {share} |")
    return [
        *lines,
        "",
        "FLOP and bytes are the least that the result takes; the share is of the nearer peak.",
        "",
    ]


def _variants(results: Found) -> list[str]:
    """The times of variants of the kernels, by those of the checkout that were taken in turn with them."""
    taken: dict[str, dict[str, list[float]]] = {}
    for label, result in results.items():
        if label.startswith(TIMES_OF):
            of = taken.setdefault(label.removeprefix(TIMES_OF).rpartition(",")[0], {})
            for row in result["rows"]:
                of.setdefault(f"{row['kernel']}, {row['size']}", []).append(median(row["seconds"]))
    if not taken:
        return []
    base, *others = taken
    lines = [f"Variants of the kernels, by the time of {base}; each round's ratio:", ""]
    lines += [f"| kernel | {base}, ms | {' | '.join(others)} |", "|---|---|" + "---|" * len(others)]
    for kernel, seconds in taken[base].items():
        cells = [_ratios(taken[name].get(kernel, []), seconds) for name in others]
        lines.append(f"| {kernel} | {_milliseconds(seconds)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _ratios(seconds: list[float], base: list[float]) -> str:
    return ", ".join(f"{mine / others:.3f}" for mine, others in zip(seconds, base, strict=False)) or "-"


def _milliseconds(seconds: list[float]) -> str:
    return ", ".join(f"{1e3 * s:.3f}" for s in seconds)


def _whole(found: Found, limits: Found | None) -> list[str]:
    n, degrees = found["images"], ", ".join(map(str, found["degrees"]))
    lines = [
        f"Mutual scoring of {n} images, P={found['patches']}, C={found['width']}, {found['layers']} layers, "
        f"degrees {degrees}, from tokens in host memory to scores there, in turn with the authors' form:",
        "",
        "| authors' form in | ours, s | authors', s | ratio | of the authors', timed | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, reference in found["references"].items():
        if "error" in reference:
            lines.append(f"| {name} | | | | {reference['error'].splitlines()[0].replace('|', '/')} | |")
            continue
        ours, authors = reference["ours"], reference["authors"]
        ratios = ", ".join(f"{b / a:.1f}" for a, b in zip(ours, authors, strict=True))
        cells = [", ".join(f"{s:.4g}" for s in seconds) for seconds in (ours, authors)]
        difference = found["difference"].get(name, float("nan"))
        lines.append(
            f"| {name} | {cells[0]} | {cells[1]} | {ratios} | {reference['measured']} | {difference:.1e} |"
        )
    if found["resident"]:
        times = ", ".join(f"{s:.4g}" for s in found["resident"])
        lines += ["", f"Ours with the tokens on the device already: {times} s."]
    if found.get("int8"):
        times = ", ".join(f"{s:.4g}" for s in found["int8"])
        lines += [f"In int8: {times} s, scores within {found['int8_difference']:.1e} of these."]
    best = min((s for r in found["references"].values() for s in r.get("ours", [])), default=None)
    if best:
        share = f", {found['flop'] / best / limits['flops']:.0%} of the peak" if limits else ""
        lines += [
            "",
            f"Ours at best: {found['flop'] / best / 1e12:.4g} TFLOP/s of products, all else included{share}.",
        ]
    return [*lines, "", f"Plan: {found['plan']}", *found["notes"], ""]
