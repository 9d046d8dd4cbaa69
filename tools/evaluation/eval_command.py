"""``musc-edge eval``: how good results are, where the truth is known."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .. import cli
from ..usage import UsageError
from .choices import LAYOUTS, RESAMPLES

REPORT, TABLE, TEXT, CURVES = "evaluation.json", "evaluation.csv", "evaluation.txt", "curves.png"
_MOST_RESAMPLES = 100_000


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser(
        "eval",
        help="measure results against what is known of the images",
        description="Measure results against labels and masks, which never reach the scoring: results are "
        "read as musc-edge infer wrote them.",
    )
    add = parser.add_argument
    add(
        "results",
        metavar="OUT",
        nargs="+",
        type=Path,
        help="folders that musc-edge infer wrote, one a product",
    )
    add("--truth", required=True, type=Path, metavar="FOLDER|CSV",
        help="folder of the masks, or around it; or a table: image, label[, mask, kind]")  # fmt: skip
    add("--layout", choices=LAYOUTS,
        help="how the truth is laid out (default: csv for a file, else folder)")  # fmt: skip
    add("--threshold", type=float, metavar="T", help="score from which an image is rejected (default: the "
        "verdicts of the results, else the best for F1)")  # fmt: skip
    add("--bootstrap", type=_draws, default=RESAMPLES, metavar="N",
        help=f"draws of the bootstrap intervals, 0 for none (default: {RESAMPLES})")  # fmt: skip
    add("-o", "--out", type=Path, help=f"folder for {TEXT}, {TABLE}, {REPORT} and {CURVES}")
    add("--overwrite", action="store_true", help="replace an earlier evaluation")
    cli.add_common(parser, 5, 6, 7)
    parser.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> int:
    from ..extras import need

    need("musc-edge eval")
    from ...runtime.results.output import new_folder
    from ...runtime.results.read_results import all_lots
    from ..progress import ProgressLine
    from .eval_text import evaluation_csv, evaluation_facts, evaluation_text
    from .evaluate import evaluate

    for path in (*args.results, args.truth):
        if not path.exists():
            raise UsageError(f"{path} does not exist: give results of musc-edge infer, and their truth.")
    layout = args.layout or ("csv" if args.truth.is_file() else "folder")
    progress = ProgressLine(sys.stderr, {"evaluate": "evaluating"})
    cli.clean_up_on_sigterm()
    names = frozenset({REPORT, TABLE, TEXT, CURVES})
    out = new_folder(args.out, args.overwrite, REPORT, names) if args.out else nullcontext()
    with out as folder:
        categories = [
            evaluate(
                lot, args.truth, layout, threshold=args.threshold, resamples=args.bootstrap, progress=progress
            )
            for lot in all_lots(args.results)
        ]
        text, facts = evaluation_text(categories, layout), evaluation_facts(categories, layout)
        if folder:
            from .curves import draw_curves

            (folder / TEXT).write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
            content = evaluation_csv(categories, layout)
            (folder / TABLE).write_text(content, encoding="utf-8", errors="surrogateescape")
            (folder / REPORT).write_text(json.dumps(facts, indent=1) + "\n", encoding="ascii")
            draw_curves(categories, folder / CURVES)
    cli.show(json.dumps(facts, indent=1) if args.json else text)
    return 0


def _draws(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to {_MOST_RESAMPLES}")
    return int(text)
