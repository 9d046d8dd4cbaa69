"""``musc-edge plan``: report what scoring a lot would take on this machine, without doing it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.settings import RESIDUAL
from . import arguments, cli

if TYPE_CHECKING:
    from ..runtime.settings import ScoreSettings
    from ..runtime.types import Bundle


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("plan", help="say what scoring a lot of some size would take here")
    add = parser.add_argument
    add(
        "images",
        metavar="IMAGES",
        type=arguments.images,
        help="number of images in the lot, or a folder of them",
    )
    add("-b", "--bundle", help="bundle folder (default: as for infer)")
    add("--devices", type=arguments.memories, metavar="SIZE,...",
        help="show instead the plans for GPUs with this much free memory, such as 8G,24G")  # fmt: skip
    add("--resume", action="store_true", help="as for infer: work is kept in files")
    cli.add_tiles(cli.add_scoring(parser))
    cli.add_resources(parser)
    cli.add_common(parser, 4, 5, 6)
    parser.set_defaults(run=_plan, usage_error=parser.error)


def _plan(args: argparse.Namespace) -> int:
    from ..runtime.images.listing import list_lot
    from ..runtime.images.survey import DEFAULT_READING
    from ..runtime.run import Run, Watch, survey_files
    from ..runtime.scoring.method import Method
    from ..runtime.vit.bundle import find_bundle, open_bundle
    from .summary import forecast_json, forecast_text, method_lines

    images = list_lot(args.images) if isinstance(args.images, Path) else None
    args.images = args.images if images is None else len(images)
    bundle = open_bundle(find_bundle(args.bundle))
    settings = cli.score_settings(args, bundle.manifest)
    if args.devices and settings.by == RESIDUAL:
        args.usage_error(f"--devices has no meaning by {RESIDUAL}, which does not use a GPU")
    Method.of(bundle.manifest.grid, settings).judges(args.images)
    if args.devices:
        return _show_device_plans(args, bundle, settings)
    resources, survey = cli.resources(args), None
    if images is not None and settings.tiles:  # which may depend on the images' size
        survey = survey_files(images, resources, DEFAULT_READING, Watch())
    with Run(bundle, settings, resources) as run, run.vit():
        plan = run.plan(args.images, survey=survey, keep=args.resume)
        found = run.forecast(args.images, plan, survey)
        for note in run.notes:
            cli.show_error(note)
    if args.json:
        cli.show(forecast_json(found))
    else:
        cli.show("\n".join([forecast_text(found), *method_lines(settings)]))
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
    plans: dict[str, dict[str, Any]] = {}
    for memory in args.devices:
        try:
            plan = make_device_plan(size, memory)
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
