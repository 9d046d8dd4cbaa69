"""``musc-edge plan``: what scoring a lot would take on this machine, without doing it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import cli

if TYPE_CHECKING:
    from ..runtime.method import Method


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("plan", help="say what scoring a lot of some size would take here")
    add = parser.add_argument
    add("images", metavar="IMAGES", type=cli.images, help="number of images in the lot")
    add("-b", "--bundle", help="bundle folder (default: as for infer)")
    add("--devices", type=cli.memories, metavar="SIZE,...",
        help="say instead what would be on GPUs with so much memory free, such as 8G,24G")  # fmt: skip
    add("--resume", action="store_true", help="as for infer: work is kept in files")
    cli.add_scoring(parser)
    cli.add_resources(parser)
    cli.add_common(parser)
    parser.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    from contextlib import ExitStack

    import numpy as np

    from ..runtime.backends import enter_backend
    from ..runtime.bundle import find_bundle, open_bundle
    from ..runtime.features import seconds_per_image, store_shape
    from ..runtime.forecast import forecast
    from ..runtime.memory import process_memory
    from ..runtime.method import Method
    from ..runtime.parallel import cores
    from ..runtime.pipeline import plan_lot
    from ..runtime.scorers import open_scorer
    from .summary import forecast_json, forecast_text

    bundle = open_bundle(find_bundle(args.bundle))
    method = Method(bundle.manifest.grid, args.degrees, args.interval, args.group_size)
    method.judges(args.images)
    shape = store_shape(args.images, bundle)
    if args.devices:
        return _show_device_plans(args, shape, np.dtype(bundle.manifest.tokens[0].dtype).itemsize, method)
    threads = args.threads or cores()
    with open_scorer(
        args.scorer, method, device_memory=args.device_memory, bundle_root=bundle.root
    ) as scorer:
        program = process_memory()
        with ExitStack() as stack:
            backend, passed_over = enter_backend(stack, args.backend, bundle, threads, args.batch)
            plan = plan_lot(
                shape, bundle, scorer, args.memory_budget, program, args.batch, threads, keep=args.resume
            )
            vit = args.images * seconds_per_image(backend, bundle, args.batch)
        found = forecast(
            scorer, shape, plan, vit=f"{backend.name} ({backend.version})", measure=True, vit_seconds=vit
        )
    for note in (*passed_over, *scorer.notes):
        cli.show_error(note)
    cli.show(forecast_json(found) if args.json else forecast_text(found))
    return 0


def _show_device_plans(
    args: argparse.Namespace, shape: tuple[int, int, int, int], itemsize: int, method: Method
) -> int:
    """Print the device's part of the plan for some amounts of memory: arithmetic alone."""
    from ..runtime.device_plan import make_device_plan
    from ..runtime.errors import LotError
    from ..runtime.memory import size_text
    from .summary import device_plan_text

    size = method.lot_size(shape, itemsize)
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
