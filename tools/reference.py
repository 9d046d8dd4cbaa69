"""``musc-edge reference``: make a reference from an accepted lot, to check single images against."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.settings import PAIRS, RESIDUAL
from . import arguments, cli

if TYPE_CHECKING:
    from ..runtime.forecast import Forecast
    from ..runtime.reference.make import ReferenceOptions

SUSPECTS = 0.1
"""Share of the images that --exclude-suspects leaves out by default."""
_COMPARED = (
    "{} images are compared with each other first, each with all others, which takes about {} after {} for "
    "the ViT: for --position-median (0 leaves it out) or --exclude-suspects SHARE"
)
_STAGES = {
    "survey": "looking at files",
    "background": "looking at backgrounds",
    "compile": "compiling",
    "extract": "ViT",
    "describe": "describing",
    "score": "comparing the lot with itself",
    "calibrate": "calibrating",
}


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("reference", help="make a reference from an accepted lot, for check")
    add = parser.add_argument
    add("lot", metavar="LOT_DIR", help="folder of images, mostly good; with --add an earlier reference")
    add("-o", "--out", help="the reference's folder (default: ./<lot>-reference)")
    cli.add_bundle(parser, "bundle folder (default: as for infer)")
    add("--overwrite", action="store_true", help="replace an earlier reference")
    add("--add", metavar="LOT", help="make a new reference of the one given and the images of this folder")
    choice = parser.add_argument_group("which images", "patterns as for infer")
    add = choice.add_argument
    add("--include", action="append", default=[], metavar="PATTERN", help="only the images that match")
    add("--exclude", action="append", default=[], metavar="PATTERN",
        help="not the files and folders that match, such as known defects")  # fmt: skip
    add("--hold-out", type=arguments.share, metavar="SHARE",
        help="share of the images, drawn at random, that is kept out of the bank to calibrate by (default: "
        "0.3)")  # fmt: skip
    add("--calibrate", metavar="LOT", help="folder of good images to calibrate by, instead of holding out")
    add("--exclude-suspects", nargs="?", const=SUSPECTS, type=_suspects, default=0.0, metavar="SHARE|OUT",
        help="leave out of the bank the images with the highest mutual scores (default share: 0.1), or "
        "those that the results in OUT reject or send to review")  # fmt: skip
    size = parser.add_argument_group("size", "what is compared decides how long a check takes")
    add = size.add_argument
    add("--images", type=arguments.positive, metavar="M",
        help="images in the bank, those that cover the lot best (default: all)")  # fmt: skip
    add("--patches", type=arguments.share, metavar="SHARE",
        help="share of each image's patches that is kept, those that cover the image best (default: "
        "1)")  # fmt: skip
    add("--precision", choices=("float32", "float16"), help="of the files (default: float32)")
    method = parser.add_argument_group("method")
    cli.add_method(method)
    cli.add_position_median(method)
    method.add_argument("--score-by", choices=(PAIRS, RESIDUAL),
        help=f"as for infer; by {RESIDUAL} what the images have in common is kept instead of images: small, "
        "and a check takes the same time for any number of them (default: as --method has it)")  # fmt: skip
    method.add_argument("--interval", type=arguments.interval, metavar="LO,HI", help="as for infer")
    method.add_argument("--burn-out", action=argparse.BooleanOptionalAction, help="as for infer")
    method.add_argument("--window", type=arguments.window, metavar="W", help="as for infer")
    cut = parser.add_argument_group("images")
    cli.add_tiles(cut)
    cli.add_region(cut)
    cli.add_resources(parser)
    cli.add_common(parser, 4, 5, 6, 7)
    parser.set_defaults(run=_reference, usage_error=parser.error)


def _suspects(text: str) -> float | Path:
    """Parse a share, or a folder of results."""
    if Path(text or "-").is_dir():
        return Path(text)
    try:
        return arguments.share(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or a folder of results") from error


def _reference(args: argparse.Namespace) -> int:
    from ..runtime.beginning import Watch
    from ..runtime.images.listing import list_lot
    from ..runtime.images.survey import ReadOptions
    from ..runtime.reference.make import make_reference, pool_compared
    from ..runtime.results.output import require_apart
    from ..runtime.vit.bundle import find_bundle, open_bundle
    from .progress import ProgressLine, duration
    from .reference_text import reference_json, reference_text

    held = (
        *("method", "degrees", "score_by", "interval", "window", "burn_out", "position_median"),
        *("roi", "mask_background", "patches", "precision", "tiles", "overlap"),
    )
    fixed = [name.replace("_", "-") for name in held if getattr(args, name) is not None]
    if isinstance(args.roi, Path) and args.roi.is_dir():  # the masks of the images that are added
        fixed.remove("roi")
    if args.add and fixed:
        args.usage_error(
            f"--{fixed[0].replace('_', '-')} has no meaning with --add: the earlier reference's holds"
        )
    if args.calibrate and args.hold_out:
        args.usage_error("--hold-out has no meaning with --calibrate: no image is held out then")
    given = arguments.lot_folder(args.lot)
    root = arguments.lot_folder(args.add) if args.add else given
    out = Path(args.out) if args.out else Path(f"{root.resolve().name}-reference")
    for folder in (root, *([Path(args.calibrate)] if args.calibrate else [])):
        require_apart(out, arguments.lot_folder(str(folder)))
    images = list_lot(root, out, include=args.include, exclude=args.exclude)
    bundle = open_bundle(find_bundle(args.bundle))
    cli.clean_up_on_sigterm()
    settings, options = cli.score_settings(args, bundle.manifest), _options(args)
    compared = pool_compared(settings, options, len(images), calibrate=bool(args.calibrate))
    said: list[Forecast] = []

    def announce(forecast: Forecast) -> None:
        # Once, for the lot itself, and not with --add, since the earlier reference's settings hold.
        if compared and not args.add and not said:
            share = compared * (compared - 1) / (forecast.images * (forecast.images - 1))
            times = duration(forecast.seconds * share), duration(forecast.vit_seconds)
            cli.show_error_line(_COMPARED.format(compared, *times))
        said.append(forecast)

    reference = make_reference(
        images,
        bundle,
        out,
        settings,
        cli.resources(args),
        options=options,
        calibrate=args.calibrate,
        base=given if args.add else None,
        reading=ReadOptions(roi=args.roi, mask_background=args.mask_background),
        watch=Watch(ProgressLine(sys.stderr, _STAGES), announce),
        overwrite=args.overwrite,
    )
    cli.show(reference_json(reference) if args.json else reference_text(reference))
    return 0


def _options(args: argparse.Namespace) -> ReferenceOptions:
    from ..runtime.reference.make import HOLD_OUT, ReferenceOptions

    suspects = args.exclude_suspects
    if isinstance(suspects, Path):
        suspects = _flagged(suspects)
    return ReferenceOptions(
        args.images,
        args.patches or 1.0,
        args.precision or "float32",
        HOLD_OUT if args.hold_out is None else args.hold_out,
        suspects,
    )


def _flagged(results: Path) -> tuple[str, ...]:
    """Names of the images that results reject or send to review; LotError if they have no verdicts."""
    from ..runtime.errors import LotError
    from ..runtime.results.read_results import read_results

    images = [image for lot in read_results(results) for image in lot.images]
    if not any(image.verdict for image in images):
        raise LotError(
            f"{results} has no verdicts, by which suspects could be told. Make them with: musc-edge verdict "
            f"{results}, or give a share of the images."
        )
    return tuple(image.name for image in images if image.verdict in ("reject", "review"))
