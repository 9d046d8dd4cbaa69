"""``musc-edge infer``: its options, and the run from these to a folder of results."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._numbers import counted
from ..runtime.settings import AUTO, JUDGED, PAIRS, RESCORE, Choice
from . import arguments, cli
from .verdict_options import FLAGGED_EXIT, add_verdicts, failed, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..runtime.forecast import Forecast
    from ..runtime.images.listing import Listing
    from ..runtime.results.image_files import OutputOptions
    from ..runtime.results.lot_scores import Unscored
    from ..runtime.settings import ScoreSettings
    from ..runtime.types import Bundle, LotImage, LotRoot
    from ..runtime.verdict.rules import Rule
    from .summary import Scored

SKIPPED_EXIT = 3


@dataclass(frozen=True)
class _Job:
    """What is the same for a lot and for each of its groups; ``folder`` receives the results."""

    args: argparse.Namespace
    root: LotRoot
    bundle: Bundle
    settings: ScoreSettings
    folder: Path
    kept: Path | None
    rule: Rule | None


_PATTERNS = """shell patterns on names relative to LOT_DIR, with forward slashes. Without a slash, as in
'*_mask.png' or 'masks', a pattern is compared with the file's name and with that of every folder it is in.
With one, as in 'day1/*.png', 'day1/*/good' or '**/old/*', it is compared with the whole name, part by part,
and takes all below a folder that it matches. * is any text in a part, ** any number of parts, ? a character,
[ab] and [!ab] one of these and none of these; case counts. Quote them."""
_STAGES = {
    "survey": "looking at files",
    "background": "looking at backgrounds",
    "compile": "compiling",
    "check": "checking",
    "extract": "ViT",
    "describe": "describing",
    "score": "mutual scoring",
    "write": "writing",
    "report": "pictures of the report",
}


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("infer", help="score every image of a folder by all the others")
    add = parser.add_argument
    add("lot", metavar="LOT_DIR|URL",
        help="folder of images, searched with its subfolders; or a URL such as s3://bucket/lot "
        "(docs/urls.md)")  # fmt: skip
    cli.add_bundle(parser, "bundle folder (default: $MUSC_EDGE_BUNDLE, else your default)")
    add("--group-by", choices=("folder",),
        help="score each subfolder as a lot of its own; one that cannot be scored stops none")  # fmt: skip
    choice = parser.add_argument_group("which images", _PATTERNS)
    add = choice.add_argument
    add("--include", action="append", default=[], metavar="PATTERN",
        help="score only the images that match; may be given several times")  # fmt: skip
    add("--exclude", action="append", default=[], metavar="PATTERN",
        help="leave out the files and folders that match; goes before --include; may be given several "
        "times")  # fmt: skip
    add("--list", metavar="FILE",
        help="score the files of this list instead of searching LOT_DIR: names relative to it, one a line "
        "(or each ended by a NUL, as by find -print0); - for standard input")  # fmt: skip
    method = cli.add_scoring(parser)
    method.add_argument("--neighbors", type=arguments.neighbors, metavar="K,K,...",
        help="window sizes of the rescoring, the image itself counted (default: 1,2,3)")  # fmt: skip
    method.add_argument("--rescore", choices=RESCORE,
        help="even scores out among images that are alike by their CLS embeddings (RsCIN), by their most "
        "suspicious patches (RsCon), or not at all (default: as --method has it)")  # fmt: skip
    cli.add_position_median(method)
    method.add_argument("--judge-by", choices=JUDGED,
        help="the column that images are sorted and judged by: score, after rescoring, or raw_score, before "
        "(default: as --method has it)")  # fmt: skip
    cli.add_tiles(method)
    reading = parser.add_argument_group("images")
    add = reading.add_argument
    add("--bit-depth", choices=("auto", "8", "10", "12", "14", "16"), default="auto",
        help="full scale of files with more than 8 bits; auto: the smallest that holds the lot")  # fmt: skip
    add("--max-pixels", type=arguments.pixels, default=None, metavar="N",
        help="images with more pixels are not decoded, such as 400M (default: 179M)")  # fmt: skip
    cli.add_region(reading)
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("-o", "--out", help="folder for the results (default: ./<lot>-musc)")
    add("--overwrite", action="store_true", help="replace results of an earlier run")
    add("--maps", choices=("grid", "pixel", "original", "none"), default="grid",
        help="anomaly maps on the patch grid, at model size, or at the images' (default: grid)")  # fmt: skip
    add("--map-format", choices=("npy", "tiff", "png8", "png16"),
        help="npy and tiff hold float32 distances, png one scale for the lot (default: npy)")  # fmt: skip
    add("--overlays", action="store_true", help="also write each image with its heatmap over it")
    add("--report", action="store_true",
        help="also write report.html: a page with all images, heatmaps and scores, to look at and to try "
        "limits, from disk and without network")  # fmt: skip
    add("--csv", choices=("plain", "excel"), default="plain",
        help="excel: scores.csv as spreadsheets open it well, with a byte order mark and no cell that they "
        "would run as a formula (default: plain)")  # fmt: skip
    add("--top", type=arguments.top, metavar="N",
        help="images in the list on the terminal and on the contact sheet (default: 10 and 8)")  # fmt: skip
    add_verdicts(parser)
    resources = cli.add_resources(parser)
    cli.add_precision(resources)
    cli.add_cluster(resources)
    resources.add_argument("--resume", action="store_true",
        help="keep finished work beside the results until they are complete; after an interruption of any "
        "kind the same command goes on from there")  # fmt: skip
    cli.add_common(parser, 3, 4, 5, 6, 7, FLAGGED_EXIT)
    parser.set_defaults(run=_infer, usage_error=parser.error, at_url="lot")


def _infer(args: argparse.Namespace) -> int:
    from ..runtime.cluster.possible import require_possible
    from ..runtime.images.listing import list_lot
    from ..runtime.results.output import require_apart, resolve
    from ..runtime.results.write import LOT
    from ..runtime.scorers import require_meaning
    from ..runtime.store.kept_folder import kept_beside, remove_finished, remove_kept
    from ..runtime.vit.bundle import find_bundle, open_beside
    from .summary import summary_json, summary_text

    if args.maps == "none" and args.map_format:
        args.usage_error("--map-format has no meaning with --maps none")
    root = arguments.lot_root(args.lot)
    rule = rule_of(args)
    if rule is None and (args.fail_on or args.min_region):
        args.usage_error("--fail-on and --min-region take a rule, such as --verdict auto")
    out = Path(args.out) if args.out else Path(f"{_name_of(root)}-musc")
    if isinstance(root, Path):
        require_apart(out, root)
    names = _read_list(args) if args.list else None
    images = list_lot(root, out, include=args.include, exclude=args.exclude, names=names)
    bundle = open_beside(find_bundle(args.bundle))
    settings = _settings(args, bundle, rule)
    require_meaning(settings.by, cli.resources(args))
    require_possible(cli.resources(args))
    _require_alike(rule, bundle, settings, args)
    if not args.json:
        cli.show(f"{counted(len(images), 'image')} in {root}; {bundle.manifest.backbone}")
        _say_where(args, root, out, images)
    with cli.without_interrupts():
        _import_libraries(args, settings)
    cli.clean_up_on_sigterm()
    target = resolve(out)
    remove_finished(target / LOT)  # of a run that was killed as it removed it
    kept = kept_beside(target) if args.resume else None
    try:
        with _new_results(out, args, kept) as folder:
            scored, unscored = _score(_Job(args, root, bundle, settings, folder, kept, rule), images)
            if args.report:
                _add_report(root, folder, scored)
    except BaseException as error:
        if kept and kept.is_dir():
            cli.show_error(f"What was done is kept in {kept}; the same command goes on from there.")
            if isinstance(error, KeyboardInterrupt):
                return cli.INTERRUPTED
        raise
    with cli.without_interrupts():  # the results stand
        if kept:
            remove_kept(kept)
        notes = images.notes() if args.group_by else ()
        top = args.top or 0
        cli.show(summary_json(scored, out) if args.json else summary_text(scored, out, top, unscored, notes))
    if failed([part.result.judgement for part in scored] + [None] * len(unscored), args.fail_on):
        return FLAGGED_EXIT
    return SKIPPED_EXIT if unscored or any(part.result.skipped for part in scored) else 0


def _name_of(root: LotRoot) -> str:
    return root.resolve().name if isinstance(root, Path) else root.name


@contextmanager
def _new_results(out: Path, args: argparse.Namespace, kept: Path | None) -> Iterator[Path]:
    """The folder that becomes ``out`` behind the block, where kept work is noted to be finished before."""
    from ..runtime.results.output import new_folder
    from ..runtime.results.write import LOT, NAMES
    from ..runtime.store.kept_folder import note_finished

    with ExitStack() as output:
        # Held back until the folder is on the stack: one that is made and not yet there would remain.
        with cli.without_interrupts():
            folder = output.enter_context(new_folder(out, args.overwrite, marker=LOT, ours=NAMES))
        yield folder
        if kept:
            note_finished(kept, folder / LOT)


def _import_libraries(args: argparse.Namespace, settings: ScoreSettings) -> None:
    """Import what the work needs here, so that what is missing is said before it begins."""
    from ..runtime.cluster.opened import import_ray
    from ..runtime.scorers import import_scorer
    from ..runtime.vit.choose import import_libraries

    if args.cluster:  # whose workers import the rest
        import_ray()
        return
    import_libraries(args.backend)
    if settings.by == PAIRS:
        import_scorer(args.scorer)


def _score(job: _Job, images: Listing) -> tuple[list[Scored], list[Unscored]]:
    """Score the lot as a whole, or each of its groups, and write the results.

    A group that cannot be scored as a lot is left unscored, unless it is the last hope: then its LotError is
    raised.  Errors of the bundle, the device or the output would meet every group, and end the run.
    """
    from ..runtime.errors import LotError
    from ..runtime.results.groups import (
        group_by_folder,
        require_a_group,
        require_size,
        results_folder,
        unscored,
    )
    from ..runtime.results.write import combine
    from ..runtime.scoring.interval import smallest_lot

    args = job.args
    if args.group_by is None:
        return [_score_one(job, images, "")], []
    groups, least = group_by_folder(images), smallest_lot(job.settings.interval)
    require_a_group(groups, least)
    scored, failed, errors = [], [], []
    for number, (name, members) in enumerate(groups.items(), 1):
        subfolder = results_folder(number, name)
        if not args.json:
            cli.show(f"group {name}: {counted(len(members), 'image')}")
        try:
            require_size(members, least)
            scored.append(_score_one(job, members, subfolder))
        except LotError as error:
            errors.append(error)
            failed.append(unscored(name, members, error))
            if not args.json:
                cli.show(str(failed[-1]))
    if not scored:
        raise errors[0]
    about = {part.folder: (part.rows, part.about) for part in scored}
    combine(job.folder, job.root, about, failed, images, args.csv)
    return scored, failed


def _add_report(root: LotRoot, folder: Path, scored: list[Scored]) -> None:
    """Write the report into the results; that it failed is a warning of the last lot."""
    from ..runtime.results.report.write import add_report_of
    from .progress import ProgressLine

    progress = ProgressLine(sys.stderr, _STAGES)
    scored[-1].about["warnings"] += add_report_of([part.result for part in scored], folder, root, progress)


def _require_alike(
    rule: Rule | None, bundle: Bundle, settings: ScoreSettings, args: argparse.Namespace
) -> None:
    """Raise LotError before the work begins if the other lot of --threshold-from was scored differently."""
    from ..runtime.images.roi import roi_text
    from ..runtime.verdict.judged_lot import MadeBy, ThresholdFrom

    if isinstance(rule, ThresholdFrom):
        region = {"roi": roi_text(args.roi), "mask_background": args.mask_background}
        made_by = MadeBy.of(bundle.digest, settings, **region)
        rule.lot.require_alike(made_by)


def _settings(args: argparse.Namespace, bundle: Bundle, rule: Rule | None) -> ScoreSettings:
    """Make the settings; beside a limit from another lot, "auto" takes that lot's share of the median."""
    from ..runtime.verdict.judged_lot import ThresholdFrom

    settings = cli.score_settings(args, bundle.manifest)
    if settings.position_median == AUTO and isinstance(rule, ThresholdFrom):
        share = rule.lot.made_by.position_median
        return settings.with_choice(Choice("position_median", share, f"as in {rule.lot.name}"))
    return settings


def _read_list(args: argparse.Namespace) -> list[str]:
    """The names in the file of --list."""
    import codecs
    import os

    try:
        content = sys.stdin.buffer.read() if args.list == "-" else Path(args.list).read_bytes()
    except OSError as error:
        args.usage_error(f"--list {args.list} cannot be read: {error.strerror}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        args.usage_error(f"--list {args.list} is UTF-16; save it as UTF-8")
    text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    lines = text.split("\0") if "\0" in text else [line.removesuffix("\r") for line in text.split("\n")]
    names = [line for line in lines if line]
    if not names:
        args.usage_error(f"--list {args.list} names no file")
    return names


def _say_where(args: argparse.Namespace, root: LotRoot, out: Path, images: Listing) -> None:
    """Say before the work begins what a user may not have meant: several products, results in the lot."""
    from ..runtime.results.groups import spread
    from ..runtime.results.output import resolve

    folders = spread(images)
    if folders and not args.group_by:
        cli.show(
            f"      they lie in {folders}\n      all are scored as one lot; different products should be "
            "scored by themselves: --group-by folder"
        )
    if isinstance(root, Path) and resolve(out).is_relative_to(root.resolve()):
        cli.show(f"      the results, {out}, will lie in the lot's folder; no run takes them for images")


def _score_one(job: _Job, images: Sequence[LotImage], subfolder: str) -> Scored:
    """Score a lot, or a group of it, and write its results into a subfolder of the job's."""
    from .._files import make_folders
    from ..runtime.beginning import Watch
    from ..runtime.pipeline import score_lot
    from ..runtime.results.write import write_results
    from .progress import ProgressLine
    from .summary import Scored, forecast_text

    args, tell = job.args, None if job.args.json else cli.show
    stages = _STAGES if job.settings.by == PAIRS else {**_STAGES, "score": "scoring"}
    progress = ProgressLine(sys.stderr, stages, tell)

    def announce(forecast: Forecast) -> None:
        if tell:
            tell(forecast_text(forecast))
        progress.expect(forecast.stages)

    output = _output(args)
    result = score_lot(
        images,
        job.bundle,
        job.settings,
        replace(cli.resources(args), scratch=job.folder),
        reading=_reading(args),
        keep=job.kept / (Path(subfolder).name or "lot") if job.kept else None,
        watch=Watch(progress, announce),
        outputs=output,
    )
    if job.rule:
        result = replace(result, judgement=result.judgement_by(job.rule, args.min_region or 1))
    target = job.folder / subfolder
    make_folders(target, within=job.folder)
    about, rows = write_results(result, target, job.root, output, progress)
    return Scored(result, about, rows, subfolder)


def _reading(args: argparse.Namespace) -> Any:
    from ..runtime.images.survey import ReadOptions

    depth = None if args.bit_depth == "auto" else int(args.bit_depth)
    size = {"max_pixels": args.max_pixels} if args.max_pixels else {}
    return ReadOptions(depth, **size, roi=args.roi, mask_background=args.mask_background)


def _output(args: argparse.Namespace) -> OutputOptions:
    from ..runtime.parallel import cores
    from ..runtime.results.image_files import TOP, OutputOptions

    threads = args.threads or cores()
    form = args.map_format or "npy"
    return OutputOptions(args.maps, form, args.overlays, threads, args.csv, args.top or TOP)
