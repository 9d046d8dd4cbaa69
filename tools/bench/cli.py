"""``musc-bench``: measure where the time goes, and how far it is from the limit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .. import cli
from ..usage import Parser
from .commands import CASES, Case

_NOT_SETTINGS = ("run", "json", "debug", "out", "overwrite", "usage_error", "parser")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return cli.run("musc-bench", _parser(), argv)


def _parser() -> Parser:
    parser = cli.new_parser("musc-bench", "Measure where the time goes, and how far it is from the limit.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for case in CASES:
        command = commands.add_parser(case.name, help=case.help)
        case.add_options(command)
        command.add_argument(
            "-o", "--out", help="folder for report.json, samples.csv, report.txt, report.png"
        )
        command.add_argument("--overwrite", action="store_true", help="replace an earlier report")
        command.set_defaults(run=partial(_measure, case))
        cli.add_common(command, 4, 5, 6, 7)
    compare = commands.add_parser("compare", help="what got slower or faster beyond the noise")
    compare.add_argument("before", metavar="A", type=Path, help="report.json of the one, or its folder")
    compare.add_argument("after", metavar="B", type=Path, help="report.json of the other, or its folder")
    compare.set_defaults(run=_compare)
    cli.add_common(compare)
    return parser


def _measure(case: Case, args: argparse.Namespace) -> int:
    from ...runtime.results.output import new_folder
    from . import report as reports
    from .report_text import table_of
    from .resources import Monitor
    from .write_report import write_report

    settings = {name: _plain(value) for name, value in vars(args).items() if name not in _NOT_SETTINGS}
    report = reports.Report(case.name, settings)
    names = frozenset({reports.REPORT, reports.SAMPLES, reports.TABLE, reports.PICTURE})
    out = new_folder(Path(args.out), args.overwrite, reports.REPORT, names) if args.out else nullcontext()
    cli.clean_up_on_sigterm()
    with out as folder:
        with Monitor() as monitor:
            try:
                case.measure(args, report)
            except KeyboardInterrupt:
                report.partial = True
        report.resources = asdict(monitor.usage())
        table = table_of(report)
        if folder:
            write_report(report, table, folder)
    cli.show(json.dumps(report.content(), indent=1) if args.json else table)
    if report.partial:
        cli.show_error("interrupted: this is what was measured before, marked partial.")
    return cli.INTERRUPTED if report.partial else 0


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _compare(args: argparse.Namespace) -> int:
    from .compare_reports import compare, compare_text, differences
    from .report import read_report

    before, after = read_report(args.before), read_report(args.after)
    remarks, changes = differences(before, after), compare(before, after)
    if args.json:
        cli.show(json.dumps({"remarks": remarks, "changes": [asdict(c) for c in changes]}, indent=1))
    else:
        cli.show(compare_text(changes, remarks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
