"""``musc-edge``: score a lot, check single images, inspect a bundle, say what this machine can run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import check, cli, infer, plan, reference, report, units, verdict, watch
from .evaluation import eval_command
from .selftest import command as selftest
from .serve import command as serve
from .usage import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return cli.run("musc-edge", _parser(), argv)


def _parser() -> Parser:
    parser = cli.new_parser("musc-edge", "Find the defects in a lot of unlabeled images, without training.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    infer.add_parser(commands)
    plan.add_parser(commands)
    verdict.add_parser(commands)
    report.add_parser(commands)
    eval_command.add_parser(commands)
    reference.add_parser(commands)
    check.add_parser(commands)
    watch.add_parser(commands)
    serve.add_parser(commands)
    units.add_parser(commands)
    inspect = commands.add_parser("inspect", help="say what a bundle or a reference is")
    inspect.add_argument("bundle", metavar="BUNDLE|REF", nargs="?",
        help="folder of a bundle or a reference (default: the bundle, as for infer)")  # fmt: skip
    inspect.add_argument(
        "--sheet",
        metavar="PNG",
        help="of a reference: write a picture of the images in its bank, and of others that were accepted",
    )
    cli.add_require_signature(inspect)
    cli.add_common(inspect, 4, 5, 7)
    inspect.set_defaults(run=_inspect, usage_error=inspect.error)
    selftest.add_parser(commands)
    doctor = commands.add_parser(
        "doctor", help="say what this machine can run, and what to install for the rest"
    )
    cli.add_common(doctor, 5)
    doctor.set_defaults(run=_doctor)
    return parser


def _inspect(args: argparse.Namespace) -> int:
    from ..runtime.reference.files import check_all, is_reference, open_reference
    from ..runtime.reference.sheet import draw_sheet
    from ..runtime.vit.bundle import find_bundle, open_bundle
    from .reference_text import reference_json, reference_text
    from .summary import bundle_json, bundle_text

    if args.bundle and is_reference(args.bundle):
        if args.require_signature:
            args.usage_error("--require-signature is for bundles: nobody signs a reference")
        reference = open_reference(args.bundle)
        check_all(reference)
        if args.sheet:
            draw_sheet(reference, Path(args.sheet))
        cli.show(reference_json(reference) if args.json else reference_text(reference))
        return 0
    if args.sheet:
        args.usage_error("--sheet is for references, and a bundle has no images")
    bundle = open_bundle(find_bundle(args.bundle), whole=True)
    cli.show(bundle_json(bundle) if args.json else bundle_text(bundle))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from ..runtime.errors import DeviceError
    from .doctor import can_infer, examine, rehearsed, report_json, report_text

    findings = examine()
    rehearsal = rehearsed()
    cli.show(report_json(findings, rehearsal) if args.json else report_text(findings, rehearsal))
    return 0 if can_infer(findings) else DeviceError.exit_code


if __name__ == "__main__":
    sys.exit(main())
