"""``musc-edge plan``: what scoring a lot would take on this machine, without doing it."""

from __future__ import annotations

import argparse
from typing import Any

from . import cli


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("plan", help="say what scoring a lot of some size would take here")
    add = parser.add_argument
    add("images", metavar="IMAGES", type=cli.images, help="number of images in the lot")
    add("-b", "--bundle", help="bundle folder (default: as for infer)")
    add("--resume", action="store_true", help="as for infer: work is kept in files")
    cli.add_scoring(parser)
    cli.add_resources(parser)
    cli.add_common(parser)
    parser.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    from ..runtime.bundle import find_bundle, open_bundle
    from ..runtime.compare import best_filter
    from ..runtime.features import seconds_per_image, store_shape
    from ..runtime.forecast import forecast
    from ..runtime.memory import process_memory
    from ..runtime.mutual import CpuScorer
    from ..runtime.onnx_backend import OnnxBackend, import_onnxruntime
    from ..runtime.parallel import cores
    from ..runtime.pipeline import plan_lot
    from .summary import forecast_json, forecast_text

    bundle = open_bundle(find_bundle(args.bundle))
    kind, passed_over = best_filter(args.scorer)
    scorer = CpuScorer(bundle.manifest.grid, args.degrees, args.interval, args.group_size, kind)
    scorer.judges(args.images)
    threads = args.threads or cores()
    shape = store_shape(args.images, bundle)
    import_onnxruntime()
    program = process_memory()
    with OnnxBackend(bundle, threads) as backend:
        plan = plan_lot(
            shape, bundle, scorer, args.memory_budget, program, args.batch, threads, keep=args.resume
        )
        vit = args.images * seconds_per_image(backend, bundle, args.batch)
    found = forecast(scorer, shape, plan, measure=True, vit_seconds=vit)
    if passed_over:
        cli.show_error(passed_over)
    cli.show(forecast_json(found) if args.json else forecast_text(found))
    return 0
