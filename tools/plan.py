"""``musc-edge plan``: report what scoring a lot would take on this machine, without doing it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..kernels.precisions import HALF
from ..runtime.settings import RESIDUAL
from . import arguments, cli
from .find import add_find, defect_pixels, find_json, find_text, ways_to_find

if TYPE_CHECKING:
    from ..runtime.forecast import Forecast
    from ..runtime.settings import ScoreSettings
    from ..runtime.types import Bundle, LotImage


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("plan", help="say what scoring a lot of some size would take here")
    add = parser.add_argument
    add(
        "images",
        metavar="IMAGES",
        type=arguments.images,
        help="number of images in the lot, or a folder or URL of them",
    )
    cli.add_bundle(parser, "bundle folder (default: as for infer)")
    add("--devices", type=arguments.memories, metavar="SIZE,...",
        help="show instead the plans for GPUs with this much free memory, such as 8G,24G")  # fmt: skip
    add("--resume", action="store_true", help="as for infer: work is kept in files")
    cli.add_tiles(cli.add_scoring(parser))
    add_find(parser)
    resources = cli.add_resources(parser)
    cli.add_precision(resources)
    cli.add_cluster(resources)
    cli.add_common(parser, 4, 5, 6)
    parser.set_defaults(run=_plan, usage_error=parser.error, at_url="images")


def _plan(args: argparse.Namespace) -> int:
    from ..runtime.images.listing import list_lot
    from ..runtime.scoring.method import Method
    from ..runtime.vit.bundle import find_bundle, open_bundle

    pixels = defect_pixels(args) if args.find else None
    if args.find and isinstance(args.images, int):
        args.usage_error("--find takes a folder of images: their size is what a patch depends on")
    if args.find and args.tiles:
        args.usage_error("--find chooses tiles: leave --tiles out")
    images = None if isinstance(args.images, int) else list_lot(args.images)
    args.images = args.images if images is None else len(images)
    bundle = open_bundle(find_bundle(args.bundle))
    settings = cli.score_settings(args, bundle.manifest)
    if args.devices and settings.by == RESIDUAL:
        args.usage_error(f"--devices has no meaning by {RESIDUAL}, which does not use a GPU")
    if args.devices and args.cluster:
        args.usage_error("--devices has no meaning with --cluster, whose workers compare on their processors")
    if args.devices and settings.tiles and settings.tiles.free:
        args.usage_error(
            "--devices with --tiles-free is not made: it plans for tiles compared place by place"
        )
    Method.of(bundle.manifest.grid, settings).judges(args.images)
    if args.devices:
        return _show_device_plans(args, bundle, settings)
    return _show_plans(args, bundle, settings, images, pixels)


def _show_plans(
    args: argparse.Namespace,
    bundle: Bundle,
    settings: ScoreSettings,
    images: Sequence[LotImage] | None,
    pixels: float | None,
) -> int:
    """Print the forecast, and the ways to find defects of so many ``pixels``, if it is asked for."""
    from ..runtime.beginning import Watch, require_enough, survey_files
    from ..runtime.images.survey import DEFAULT_READING
    from ..runtime.run import Run
    from ..runtime.scoring.tile_lots import require_judges, tile_lots
    from .summary import forecast_json, forecast_text, method_lines

    resources, count, survey = cli.resources(args), args.images, None
    if images is not None:
        survey = survey_files(images, resources, DEFAULT_READING, Watch())
        require_enough(len(survey.images), survey.skipped, settings)
        count = len(survey.images)
    notes: dict[str, None] = {}

    def forecast(settings: ScoreSettings) -> Forecast:
        with Run(bundle, settings, resources, cluster=first.cluster) as run:
            # The ViT is open already, and counts as one that is loaded for this run.
            planner = replace(run.planner, program_bytes=first.planner.program_bytes)
            tiles = tile_lots(count, planner.together(count, survey) // count, free=True)
            require_judges(tiles, run.method)
            plan = planner.plan(count, survey=survey, keep=args.resume)
            found = planner.forecast(count, plan, survey, vit, surveyed=0.0)
            notes.update(dict.fromkeys(run.notes))
            return found

    with Run(bundle, settings, resources, images=count) as first, first.vit() as vit:
        found = forecast(settings)
        ways = ways_to_find(pixels, found, settings, bundle.manifest, forecast) if pixels else []
        notes.update(dict.fromkeys(first.notes))
    for note in notes:
        cli.show_error(note)
    if args.json:
        cli.show(forecast_json(found, {"find": find_json(pixels, ways)} if pixels else None))
    else:
        lines = [forecast_text(found), *method_lines(settings)]
        cli.show("\n".join([*lines, find_text(args.find, pixels, ways)] if pixels else lines))
    return 0


def _show_device_plans(args: argparse.Namespace, bundle: Bundle, settings: ScoreSettings) -> int:
    """Print the device's part of the plan for some amounts of memory; needs no GPU."""
    import numpy as np

    from ..runtime.errors import LotError
    from ..runtime.gpu.plan import make_device_plan
    from ..runtime.memory import size_text
    from ..runtime.scoring.method import Method
    from ..runtime.vit.extract import store_shape
    from .summary import device_plan_text

    itemsize = np.dtype(bundle.manifest.tokens[0].dtype).itemsize
    method = Method.of(bundle.manifest.grid, settings)
    size = method.lot_size(store_shape(args.images, bundle), itemsize)
    precision = cli.resources(args).precision or HALF
    plans: dict[str, dict[str, Any]] = {}
    for memory in args.devices:
        try:
            plan = make_device_plan(size, memory, precision)
            plans[str(memory)] = {**asdict(plan), "memory_bytes": plan.memory_bytes}
            text = device_plan_text(plan, size.images)
        except LotError as error:
            plans[str(memory)] = {"error": str(error)}
            text = str(error)
        if not args.json:
            cli.show(f"{size_text(memory):>8}: {text}")
    if args.json:
        cli.show(json.dumps(plans, indent=2))
    return 0
