"""``musc-edge infer``: its options, and the run from these to a folder of results."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._numbers import counted
from ..runtime.settings import PAPER
from . import cli

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runtime.results.image_files import OutputOptions
    from ..runtime.types import Bundle, LotImage
    from .summary import Scored

SKIPPED_EXIT = 3
_STAGES = {
    "survey": "looking at files",
    "check": "checking",
    "extract": "ViT",
    "describe": "describing",
    "score": "mutual scoring",
    "write": "writing",
}


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("infer", help="score every image of a folder by all the others")
    add = parser.add_argument
    add("lot", metavar="LOT_DIR", help="folder of images, searched with its subfolders")
    add("-b", "--bundle", help="bundle folder (default: $MUSC_EDGE_BUNDLE, else your default)")
    add("--group-by", choices=("folder",), help="score each subfolder as a lot of its own")
    method = cli.add_scoring(parser)
    method.add_argument("--neighbors", type=cli.neighbors, default=PAPER.neighbors, metavar="K,K,...",
        help="window sizes of the rescoring, the image itself counted (default: 1,2,3)")  # fmt: skip
    reading = parser.add_argument_group("images")
    add = reading.add_argument
    add("--bit-depth", choices=("auto", "8", "10", "12", "14", "16"), default="auto",
        help="full scale of files with more than 8 bits; auto: the smallest that holds the lot")  # fmt: skip
    add("--max-pixels", type=cli.pixels, default=None, metavar="N",
        help="images with more pixels are not decoded, such as 400M (default: 179M)")  # fmt: skip
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("-o", "--out", help="folder for the results (default: ./<lot>-musc)")
    add("--overwrite", action="store_true", help="replace results of an earlier run")
    add("--maps", choices=("grid", "pixel", "original", "none"), default="grid",
        help="anomaly maps on the patch grid, at model size, or at the images' (default: grid)")  # fmt: skip
    add("--map-format", choices=("npy", "tiff", "png8", "png16"),
        help="npy and tiff hold float32 distances, png one scale for the lot (default: npy)")  # fmt: skip
    add("--overlays", action="store_true", help="also write each image with its heatmap over it")
    add("--csv", choices=("plain", "excel"), default="plain",
        help="excel: scores.csv as spreadsheets open it well, with a byte order mark and no cell that they "
        "would run as a formula (default: plain)")  # fmt: skip
    add("--top", type=cli.top, metavar="N",
        help="images in the list on the terminal and on the contact sheet (default: 10 and 8)")  # fmt: skip
    cli.add_resources(parser).add_argument("--resume", action="store_true",
        help="keep finished work beside the results until they are complete; after an interruption of any "
        "kind the same command goes on from there")  # fmt: skip
    cli.add_common(parser, 3, 4, 5, 6, 7)
    parser.set_defaults(run=_infer, usage_error=parser.error)


def _infer(args: argparse.Namespace) -> int:
    from ..runtime.images.listing import list_lot
    from ..runtime.results.output import new_folder, require_apart, resolve
    from ..runtime.results.write import LOT, NAMES
    from ..runtime.scorers import import_scorer
    from ..runtime.store.kept_folder import kept_beside, remove_kept
    from ..runtime.vit.bundle import find_bundle, open_bundle
    from ..runtime.vit.choose import import_libraries
    from .summary import WORST, summary_json, summary_text

    if args.maps == "none" and args.map_format:
        args.usage_error("--map-format has no meaning with --maps none")
    root = cli.lot_folder(args.lot)
    out = Path(args.out) if args.out else Path(f"{root.resolve().name}-musc")
    require_apart(out, root)
    images = list_lot(root, exclude=out)
    bundle = open_bundle(find_bundle(args.bundle))
    if not args.json:
        cli.show(f"{counted(len(images), 'image')} in {root}; {bundle.manifest.backbone}")
    with cli.without_interrupts():
        import_libraries(args.backend)
        import_scorer(args.scorer)
    cli.clean_up_on_sigterm()
    kept = kept_beside(resolve(out)) if args.resume else None
    try:
        with ExitStack() as output:
            # Held back until the folder is on the stack: one that is made and not yet there would remain.
            with cli.without_interrupts():
                folder = output.enter_context(new_folder(out, args.overwrite, marker=LOT, ours=NAMES))
            scored = _score(args, root, images, bundle, folder, kept)
    except BaseException as error:
        if kept and kept.is_dir():
            cli.show_error(f"What was done is kept in {kept}; the same command goes on from there.")
            if isinstance(error, KeyboardInterrupt):
                return cli.INTERRUPTED
        raise
    with cli.without_interrupts():  # the results stand
        if kept:
            remove_kept(kept)
        cli.show(summary_json(scored, out) if args.json else summary_text(scored, out, args.top or WORST))
    return SKIPPED_EXIT if any(part.result.skipped for part in scored) else 0


def _score(
    args: argparse.Namespace,
    root: Path,
    images: Sequence[LotImage],
    bundle: Bundle,
    folder: Path,
    kept: Path | None,
) -> list[Scored]:
    """Score the lot as a whole, or each of its groups, and write the results into ``folder``."""
    from ..runtime.results.groups import group_by_folder, results_folder
    from ..runtime.results.write import combine
    from ..runtime.scoring.interval import smallest_lot

    if args.group_by is None:
        return [_score_one(args, root, images, bundle, folder, "", kept)]
    groups = group_by_folder(images, smallest_lot(args.interval))
    scored = []
    for number, (name, members) in enumerate(groups.items(), 1):
        subfolder = results_folder(number, name)
        if not args.json:
            cli.show(f"group {name}: {counted(len(members), 'image')}")
        scored.append(_score_one(args, root, members, bundle, folder, subfolder, kept))
    combine(folder, root, {part.folder: (part.rows, part.about) for part in scored}, args.csv)
    return scored


def _score_one(
    args: argparse.Namespace,
    root: Path,
    images: Sequence[LotImage],
    bundle: Bundle,
    folder: Path,
    subfolder: str,
    kept: Path | None,
) -> Scored:
    from dataclasses import replace

    from .._files import make_folders
    from ..runtime.pipeline import score_lot
    from ..runtime.results.write import write_results
    from ..runtime.run import Watch
    from .progress import ProgressLine
    from .summary import Scored, forecast_text

    target = folder / subfolder
    make_folders(target)
    progress = ProgressLine(sys.stderr, _STAGES)
    watch = Watch(progress, lambda forecast: None if args.json else cli.show(forecast_text(forecast)))
    result = score_lot(
        images,
        bundle,
        cli.score_settings(args),
        replace(cli.resources(args), scratch=folder),
        reading=_reading(args),
        keep=kept / (Path(subfolder).name or "lot") if kept else None,
        watch=watch,
    )
    about, rows = write_results(result, target, root, _output(args), progress)
    return Scored(result, about, rows, subfolder)


def _reading(args: argparse.Namespace) -> Any:
    from ..runtime.images.survey import ReadOptions

    depth = None if args.bit_depth == "auto" else int(args.bit_depth)
    return ReadOptions(depth, args.max_pixels) if args.max_pixels else ReadOptions(depth)


def _output(args: argparse.Namespace) -> OutputOptions:
    from ..runtime.parallel import cores
    from ..runtime.results.image_files import TOP, OutputOptions

    threads = args.threads or cores()
    form = args.map_format or "npy"
    return OutputOptions(args.maps, form, args.overlays, threads, args.csv, args.top or TOP)
