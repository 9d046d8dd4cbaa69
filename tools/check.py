"""``musc-edge check``: single images against a reference."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import arguments, cli
from .infer import SKIPPED_EXIT
from .verdict_options import FLAGGED_EXIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runtime.reference.checker import Check, Checker
    from ..runtime.types import LotImage


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("check", help="check single images against a reference")
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
    add("--reference", required=True, metavar="REF", help="what musc-edge reference made")
    cli.add_bundle(parser, "the bundle that it was made with (default: as for infer)")
    cli.add_alpha(parser)
    add("-o", "--out", help="folder for checks.json, regions.csv, maps and overlays (default: none)")
    add("--overwrite", action="store_true", help="replace what an earlier check wrote there")
    add("--roi", type=arguments.roi, metavar="MASK|DIR",
        help="a mask for all images, or a folder with one under each image's own name, where the reference "
        "has a mask for each of its images (default: what most of these have)")  # fmt: skip
    add("--fail-on", choices=("reject",), help="exit with code 9 if an image is rejected")
    cli.add_resources(parser)
    cli.add_common(parser, 3, 4, 5, 6, 7, 9)
    parser.set_defaults(run=_check, usage_error=parser.error)


def _check(args: argparse.Namespace) -> int:
    import json

    from ..runtime.reference.checker import Checker
    from ..runtime.vit.bundle import find_bundle
    from .progress import ProgressLine
    from .reference_text import checks_facts, checks_text

    images = _list(args.images)
    masks = _masks(args, images)
    progress = ProgressLine(sys.stderr, {"check": "checking"})
    cli.clean_up_on_sigterm()
    with Checker(args.reference, find_bundle(args.bundle), args.alpha, cli.resources(args)) as checker:
        checks = []
        for done, image in enumerate(images, 1):
            checks.append(checker.check(image.local, image.name, masks.get(image.name)))
            progress("check", done, len(images), "images")
        maps = _write(args, images, checks, checker) if args.out else {}
    cli.show(
        json.dumps(checks_facts(checks, checker, maps), indent=2)
        if args.json
        else checks_text(checks, checker)
    )
    if args.fail_on and any(check.verdict == args.fail_on for check in checks):
        return FLAGGED_EXIT
    return 0 if all(check.status == "ok" for check in checks) else SKIPPED_EXIT


def _list(given: Sequence[str]) -> list[LotImage]:
    """The images that were given, each once; UsageError for what is not there."""
    from ..runtime.images.listing import list_lot
    from ..runtime.types import LotImage
    from .usage import UsageError

    images: dict[str, LotImage] = {}
    for name in given:
        path = Path(name)
        if path.is_dir():
            images.update(
                (str(image.path), LotImage(str(image.path), image.path)) for image in list_lot(path)
            )
        elif name and path.exists():
            images[str(path)] = LotImage(str(path), path)
        else:
            raise UsageError(f"there is no file {name!r}: give images, or folders of them.")
    return list(images.values())


def _masks(args: argparse.Namespace, images: Sequence[LotImage]) -> dict[str, Path]:
    """The mask of each image by the image's name, if there are any; LotError if one is missing."""
    from ..runtime.images.roi import Roi
    from ..runtime.types import LotImage

    if args.roi is None:
        return {}
    if isinstance(args.roi, tuple):
        args.usage_error("--roi of check is a mask or a folder of masks: a rectangle is the reference's own")
    found = {}
    for image in images:
        alone = LotImage(image.path.name, image.path)  # images may come from several folders
        found[image.name] = Roi.of(args.roi, [alone]).source(alone)
    return {name: path for name, path in found.items() if path}


def _write(
    args: argparse.Namespace, images: Sequence[LotImage], checks: Sequence[Check], checker: Checker
) -> dict[str, str]:
    """Write checks.json, maps and overlays; returns the map's file of each image."""
    from ..runtime.reference.write_checks import CHECKS, NAMES, write_maps
    from ..runtime.results.output import new_folder, require_apart
    from ..runtime.results.region_files import REGIONS, write_regions
    from ..runtime.results.write import write_json
    from .reference_text import checks_facts

    out = Path(args.out)
    for image in images:
        require_apart(out, image.local)
    with new_folder(out, args.overwrite, CHECKS, NAMES) as folder:
        maps = write_maps(folder, images, checks, checker.reference.manifest)
        write_regions(folder / REGIONS, ((check.name, list(check.regions)) for check in checks))
        write_json(folder / CHECKS, checks_facts(checks, checker, maps))
    return maps
