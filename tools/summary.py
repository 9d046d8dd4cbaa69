"""Format what ``musc-edge`` prints: the worst images, a forecast, the facts on a bundle."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._numbers import ceil_div, counted
from ..kernels.cubin_files import CubinFolder
from ..kernels.precisions import HALF
from ..runtime.forecast import Forecast
from ..runtime.memory import size_text
from ..runtime.results.lot_result import LotResult
from ..runtime.results.lot_scores import Unscored
from ..runtime.results.text import printable, ranking
from ..runtime.results.verdict_text import verdict_lines
from ..runtime.results.write import CONTACT_SHEET, REPORT, SCORES, plan_facts
from ..runtime.scoring.cautions import RANDOM
from ..runtime.settings import GIVEN, Choice, ScoreSettings
from ..runtime.tiling import Tiles
from ..runtime.types import Bundle, ClusterPlan, DevicePlan
from ..runtime.vit.bundle import open_kernels
from ..runtime.vit.engines import BrokenEngine, Engine, list_engines
from ..runtime.vit.graphs import graphs_of
from ..runtime.vit.tensorrt_library import NAMES
from .progress import duration
from .signed_by import signature_text, signed_by

WORST = 10
"""The most suspicious images that the terminal lists by default."""
_LEAST_WORST, _GROUPS_SHOWN = 3, 20  # images of each group, groups
_SKIPPED_SHOWN = 10
_RESOLUTIONS_SHOWN = _METHODS_SHOWN = 3  # of groups


@dataclass(frozen=True)
class Scored:
    """A scored lot, or a group of it; ``folder`` has its files, relative to the results."""

    result: LotResult
    about: dict[str, Any]
    rows: dict[str, list[str]]
    folder: str


def summary_text(
    scored: list[Scored],
    out: Path,
    top: int = 0,
    unscored: Sequence[Unscored] = (),
    notes: Sequence[str] = (),
) -> str:
    """Format as text: the most suspicious images of each group, skipped images, warnings, the files.

    ``top`` images are listed, of each group; 0 for ``WORST``, which groups share.  ``unscored`` and ``notes``
    are of a lot that was scored in groups.
    """
    grouped = scored[0].folder != ""
    lines = []
    for part in scored[:_GROUPS_SHOWN]:
        lines += _worst(part, top or max(_LEAST_WORST, WORST // len(scored)))
        lines += _remarks(part, f"{part.folder}: " if grouped else "")
    if len(scored) > _GROUPS_SHOWN:
        lines += ["", f"... and {len(scored) - _GROUPS_SHOWN} more groups: see {out / SCORES} and lot.json"]
    if unscored or notes:
        lines += ["", *(f"warning: {group}" for group in unscored), *(f"note: {text}" for text in notes)]
    sheet = CONTACT_SHEET if not grouped else f"{scored[0].folder}/{CONTACT_SHEET}, and so on"
    lines += ["", f"scores         {out / SCORES}", f"contact sheet  {out / sheet}"]
    if (out / REPORT).exists():
        lines.append(f"report         {out / REPORT}")
    lines += _methods(scored)
    resolutions = dict.fromkeys(part.about["resolution"]["text"] for part in scored)
    lines += [f"resolution     {text}" for text in [*resolutions][:_RESOLUTIONS_SHOWN]]
    lines.append(_time_line(scored))
    return "\n".join(lines)


def _worst(part: Scored, most: int) -> list[str]:
    """Format the most suspicious images of a lot, or of a group of it."""
    result = part.result
    rows = [
        (result.images[i].name, float(result.scores[i]), float(result.raw_scores[i]))
        for i in result.order()[:most]
    ]
    where = f" in {part.folder}" if part.folder else ""
    verdicts = result.verdicts_of(result.order()[:most])
    lines = [
        "",
        f"most suspicious of {len(result.images)} images{where}",
        *ranking(rows, verdicts, result.judge_by),
    ]
    return lines + (["", *verdict_lines(result.judgement)] if result.judgement else [])


def summary_json(scored: list[Scored], out: Path) -> str:
    """Format as JSON: lot.json's content with the output folder and the images' scores, worst first."""
    parts = [{**part.about, "ranked": _ranked(part.result)} for part in scored]
    content = (
        parts[0]
        if scored[0].folder == ""
        else {"groups": dict(zip([p.folder for p in scored], parts, strict=True))}
    )
    return json.dumps({"out": str(out), **content}, indent=2)


def _ranked(result: LotResult) -> list[dict[str, Any]]:
    return [
        {
            "image": result.images[i].name,
            "raw_score": round(float(result.raw_scores[i]), 6),
            "score": round(float(result.scores[i]), 6),
            "lot_score": round(float(result.lot_scores[i]), 6),
            "verdict": result.judgement.verdicts[i] if result.judgement else "",
        }
        for i in result.order()
    ]


def forecast_text(forecast: Forecast) -> str:
    """Format a forecast as text."""
    f, plan = forecast, forecast.plan
    tiles = f" of {f.tiles} tiles" if f.tiles > 1 else ""
    threads = "" if plan.cluster else f", {counted(plan.threads, 'thread')}"
    where = f"{counted(f.layers, 'layer')}{tiles}{threads}, {f.scorer}"
    lines = [
        f"plan: {counted(f.images, 'image')} scored {_how(f)} in {where}",
        f"      {time_text(f)}",
    ]
    if f.resolution:
        lines.insert(0, f"resolution: {f.resolution.text}")
    budget = f" of {size_text(plan.budget)}" if plan.budget is not None else ""
    first = f", and first the ViT {size_text(plan.vit_bytes)}" if plan.vit_bytes or not plan.cluster else ""
    whose = "memory of this command" if plan.cluster else "memory"
    lines.append(
        f"      {whose} at most {size_text(plan.memory_bytes)}{budget}: "
        f"the program {size_text(plan.program_bytes)}{first}"
    )
    lines.append(f"      the ViT by {f.vit}")
    on_disk = [
        f"{what} ({size_text(size)})"
        for what, size, there in (
            ("features", plan.token_bytes, plan.tokens_on_disk),
            ("distances", plan.cosine_bytes, plan.cosines_on_disk),
            ("tiles", plan.tile_bytes, plan.tile_bytes > 0),
        )
        if there
    ]
    if on_disk:
        read = f"; features are read {counted(round(f.reads), 'time')}" if plan.tokens_on_disk else ""
        if plan.twice:
            read = ": only what tells copies, since all do not fit on the disk; the ViT runs twice"
        lines.append(f"      in files: {' and '.join(on_disk)}{read}")
    if plan.cluster:
        lines.append(f"      cluster: {cluster_plan_text(plan.cluster)}")
    if plan.device:
        lines.append(f"      GPU: {device_plan_text(plan.device, f.images)}")
    return "\n".join(lines)


def cluster_plan_text(plan: ClusterPlan) -> str:
    """Say what a lot takes of a cluster."""
    work = f"{counted(plan.cells, 'task', ',')} in each layer, each of {plan.arc} with {plan.arc} images"
    if not plan.cells:
        work = f"tasks of {counted(plan.arc, 'image')}"
    moved = f"; over the network at most {size_text(plan.moved_bytes)}" if plan.moved_bytes else ""
    here = f"; of the budget {size_text(plan.reserved)} are for both" if plan.reserved else ""
    return (
        f"{counted(plan.processors, 'processor')}, {work}; a worker takes at most "
        f"{size_text(plan.worker_bytes)}, features and distances {size_text(plan.object_bytes)} of shared "
        f"memory and then of disk{here}{moved}"
    )


def _how(forecast: Forecast) -> str:
    """Say how the images of a lot are scored."""
    f = forecast
    if not f.pairs:
        return "without comparing pairs,"
    who = f"{counted(f.judges, 'other')} each" if f.judges < f.others else "all others"
    return f"by {who}: {counted(f.pairs, 'pair', ',')}"


def time_text(forecast: Forecast) -> str:
    """Format the time that a lot will take, in all and by stages."""
    f = forecast
    work = "comparing" if f.pairs else "scoring"
    if f.write_seconds is None:
        stages = f"the ViT {duration(f.vit_seconds)}, {work} {duration(f.seconds)}"
        return f"time about {duration(f.total_seconds)}, besides reading and writing the images: {stages}"
    return (
        f"time about {duration(f.total_seconds)}: looking at the files {duration(f.survey_seconds)}, "
        f"the ViT with reading {duration(f.vit_seconds)}, {work} {duration(f.seconds)}, "
        f"writing {duration(f.write_seconds + f.sheet_seconds)}"
    )


def device_plan_text(plan: DevicePlan, images: int) -> str:
    """Format the device's part of a plan as text: the arrays on the GPU and how often pairs are compared."""
    sizes = (
        (plan.token_bytes, "tokens"),
        (plan.feature_bytes, "features" if plan.precision == HALF else f"features in {plan.precision}"),
        (plan.distance_bytes, "distances"),
        (plan.other_bytes, "other"),
    )
    parts = ", ".join(f"{what} {size_text(size)}" for size, what in sizes)
    whole = ceil_div(images, plan.block)
    tokens = "copied for each degree" if plan.ring < whole else "copied once"
    if plan.holds_tokens:
        tokens = "there from the ViT on"
    elif plan.streamed:
        tokens = "copied for each degree and panel"
    panels = ceil_div(images, plan.panel)
    how = "every pair compared once"
    if panels > 1:
        how = f"{panels} panels of {plan.panel} images, pairs compared {plan.comparisons:.2f} times"
    return f"{size_text(plan.memory_bytes)} ({parts}); tokens {tokens}, {how}"


def _methods(scored: Sequence[Scored]) -> list[str]:
    """Format the method of a lot, or of its groups, each of which may settle settings by its own images."""
    first: dict[tuple[str, ...], Scored] = {}
    for part in scored:
        first.setdefault(tuple(method_lines(part.result.run.settings)), part)
    if len(first) == 1:
        return [*next(iter(first))]
    shown = [*first.values()][:_METHODS_SHOWN]
    lines = [line for part in shown for line in method_lines(part.result.run.settings, f"{part.folder}: ")]
    rest = len(first) - len(shown)
    return lines + [f"{'':15}... and {rest} more: see chosen in lot.json"] * (rest > 0)


def method_lines(settings: ScoreSettings, where: str = "") -> list[str]:
    """Format the preset and what it chose, with the reasons; nothing for settings that were written out.

    ``where`` comes before them: the group of images.
    """
    choices = {choice.option: choice for choice in settings.chosen}
    method = choices.pop("method", None)
    if method is None:
        return []
    said = [f"{_said(each)} ({each.why})" for each in choices.values() if each.why != GIVEN]
    given = [_said(each) for each in choices.values() if each.why == GIVEN]
    text = f"{where}{method.value}: {', '.join(said) or method.why}"
    if given:
        text += f", but {', '.join(given)} {GIVEN}"
    return textwrap.wrap(text, 110, initial_indent="method         ", subsequent_indent=" " * 15)


def _said(choice: Choice) -> str:
    """Say a setting: "degrees 1,5", "no burn out", "2 x 3 tiles"."""
    name, value = choice.option.replace("_", " "), choice.value
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, Tiles):
        return str(value)
    return f"{name} {','.join(f'{each:g}' for each in value) if isinstance(value, tuple) else value}"


def forecast_json(forecast: Forecast, more: Mapping[str, Any] | None = None) -> str:
    """Format a forecast with its plan as JSON, and ``more`` behind it."""
    content = dataclasses.asdict(forecast)
    content["plan"] = plan_facts(forecast.plan)
    content["resolution"] = forecast.resolution.facts() if forecast.resolution else None
    content["total_seconds"] = forecast.total_seconds
    return json.dumps({**content, **(more or {})}, indent=2)


def bundle_text(bundle: Bundle) -> str:
    """Format the facts on a bundle as text, with how well its numbers are proven."""
    m = bundle.manifest
    size, grid = ("x".join(map(str, pair)) for pair in (m.preprocess.size, m.grid))
    change = m.parity.get("raw_score_max_change")
    rows = [
        ("bundle", str(bundle.root)),
        ("backbone", f"{m.backbone} ({'random weights' if m.pretrained == RANDOM else m.pretrained})"),
        ("image size", f"{size}, {m.preprocess.resize} {m.preprocess.interpolation}"),
        ("grid", f"{grid} patches of {m.patch_size} pixels"),
        (
            "layers",
            f"{', '.join(map(str, m.layers))}; {m.tap}, width {m.token_width}, CLS width {m.cls_width}",
        ),
        ("precision", m.precision),
        ("activation", m.activation),
        (
            "parity",
            f"raw scores within {change if isinstance(change, float) else float('nan'):.1e} of the source "
            f"on {m.parity.get('images', 0)} images",
        ),
        ("graphs", _graphs_text(bundle)),
        ("made with", ", ".join(f"{k} {v}" for k, v in m.made_with.items() if k != "source_sha256")),
        ("sha256", bundle.digest),
    ]
    rows += [
        ("file", f"{name}  {(bundle.root / name).stat().st_size / 1e6:.1f} MB, hash ok") for name in m.files
    ]
    cubins = open_kernels(bundle)
    if cubins:
        rows.append(("kernels", kernels_text(cubins)))
    for name, signatures in signed_by(bundle).items():
        rows += [("signed", f"{name} by {signature_text(each)}") for each in signatures]
    rows += [("engine", engine_text(engine)) for engine in list_engines(bundle)]
    return "\n".join(f"{label:<11} {printable(value)}" for label, value in rows)


def _graphs_text(bundle: Bundle) -> str:
    """Format the graphs of a bundle, with how well the second one is proven."""
    parity = bundle.manifest.parity.get("attention_as_nodes")
    change = parity.get("raw_score_max_change") if isinstance(parity, dict) else None
    proven = f", raw scores within {change:.1e}" if isinstance(change, float) else ""
    return "; ".join(graphs_of(bundle)) + proven


def engine_text(engine: Engine | BrokenEngine) -> str:
    """Format an engine as text: what built it for which GPU, or why it cannot be used."""
    if isinstance(engine, BrokenEngine):
        return f"{engine.path}  cannot be used: {engine.reason}"
    info = engine.info
    text = (
        f"{engine.path}  {info.plan_bytes / 1e6:.1f} MB, {NAMES[info.flavor]} {info.version} for "
        f"{info.made_for}, up to {counted(info.max_batch, 'image')}, {info.variant}"
    )
    return f"{text}; not used: {engine.way_in}" if engine.way_in else text


def _engine_facts(engine: Engine | BrokenEngine) -> dict[str, Any]:
    """Return the facts on an engine for JSON."""
    if isinstance(engine, BrokenEngine):
        return {"path": str(engine.path), "broken": engine.reason}
    refused = {"refused": engine.way_in} if engine.way_in else {}
    return {"path": str(engine.path), **dataclasses.asdict(engine.info), **refused}


def bundle_json(bundle: Bundle) -> str:
    """Format a bundle as JSON: the manifest with path and identity, kernels, engines, and who signed it."""
    cubins = open_kernels(bundle)
    data = {
        "path": str(bundle.root),
        "sha256": bundle.digest,
        **dataclasses.asdict(bundle.manifest),
        "graphs": graphs_of(bundle),
        "kernels": kernels_facts(cubins) if cubins else None,
        "engines": [_engine_facts(engine) for engine in list_engines(bundle)],
        "signed_by": signed_by(bundle),
    }
    return json.dumps(data, indent=2)


def kernels_text(cubins: CubinFolder) -> str:
    """Format a bundle's kernels as text: their GPUs, and whether they are of this source."""
    compilers = sorted({entry.compiler for entry in cubins.cubins.values()})
    size = sum(cubins.file(arch).stat().st_size for arch in cubins.cubins)
    text = f"{', '.join(cubins.cubins)}, by {' and '.join(compilers)}; {size / 1e3:.0f} KB, hashes ok"
    if not cubins.current:
        text += f"; of another source than this musc-edge's, not used. Make them anew: {cubins.remake}"
    return text


def kernels_facts(cubins: CubinFolder) -> dict[str, Any]:
    """Return the facts on a bundle's kernels for JSON, with each kernel's registers."""
    entries = {arch: dataclasses.asdict(entry) for arch, entry in cubins.cubins.items()}
    return {"source": cubins.source, "current": cubins.current, "cubins": entries}


def _remarks(part: Scored, prefix: str) -> list[str]:
    """Format warnings, the first skipped images and notes."""
    skipped = part.result.skipped
    lines = [f"warning: {prefix}{text}" for text in part.about["warnings"]]
    lines += [
        f"  {printable(image.name)}: {image.status} ({image.reason})" for image in skipped[:_SKIPPED_SHOWN]
    ]
    if len(skipped) > _SKIPPED_SHOWN:
        lines.append(f"  ... and {len(skipped) - _SKIPPED_SHOWN} more")
    lines += [f"note: {prefix}{text}" for text in part.about["notes"]]
    return ["", *lines] if lines else []


def _time_line(scored: list[Scored]) -> str:
    seconds: Counter[str] = Counter()
    for part in scored:
        seconds.update(part.about["timings_s"])
    parts = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items() if value >= 0.05)
    return f"took           {duration(sum(seconds.values()))} ({parts})"
