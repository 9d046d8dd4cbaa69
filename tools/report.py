"""``musc-edge report``: the page that shows results, for a folder that musc-edge infer wrote."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import arguments, cli
from .usage import UsageError


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser(
        "report",
        help="write a page that shows results: images, heatmaps, verdicts, limits to try",
        description="Write one HTML file that shows results of musc-edge infer in a browser, from disk and "
        "without network.",
    )
    add = parser.add_argument
    add("results", metavar="OUT", type=Path, help="folder that musc-edge infer wrote")
    add("-o", "--out", type=Path, metavar="FILE", help="the page's file (default: report.html in OUT)")
    add("--images", type=Path, metavar="FOLDER",
        help="the lot's folder, if it is not where it was when the lot was scored")  # fmt: skip
    add("--memory-budget", type=arguments.memory, metavar="BYTES",
        help="memory that the program may take, such as 500M; images that need more have no picture "
        "(default: what is free)")  # fmt: skip
    cli.add_common(parser, 5, 6, 7)
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from ..runtime.memory import memory_left
    from ..runtime.results.report.write import write_report
    from .progress import ProgressLine

    for path in (args.results, args.images):
        if path is not None and not path.is_dir():
            raise UsageError(f"{path} is no folder: give results of musc-edge infer, and their images.")
    if args.out is not None and args.out.is_dir():
        raise UsageError(
            f"-o {args.out} is a folder: give the page's file, such as {args.out / 'report.html'}."
        )
    cli.clean_up_on_sigterm()
    room = args.memory_budget and memory_left(args.memory_budget)
    progress = ProgressLine(sys.stderr, {"report": "pictures"})
    written = write_report(args.results, args.out, images=args.images, room=room, progress=progress)
    names = [str(path) for path in written]
    if args.json:
        cli.show(json.dumps({"report": names[0], "pictures": names[1] if len(names) > 1 else None}))
    else:
        cli.show(f"report  {' and '.join(names)}")
    return 0
