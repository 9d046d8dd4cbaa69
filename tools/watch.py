"""``musc-edge watch``: check the images that come into a folder, and record each once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._numbers import counted
from . import arguments, cli
from .delivery_options import add_delivery, delivery
from .drift_options import add_drift, drift_witness
from .extras import need
from .usage import UsageError

if TYPE_CHECKING:
    from ..runtime.line.result_log import Entry

KEEP = "10G"
_WIDTH = len("not flagged")
_ABOUT = """Check each new image in FOLDER against a reference, and record the result once, whatever ends the
program: in results.csv, results.jsonl and results.sqlite in OUT, with the pictures of rejected images. Runs
until it is told to stop. What comes while it is not running is checked when it is started again."""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("watch", help="check images as they come into a folder", description=_ABOUT)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="folder that the images come into, with its subfolders")
    add("--reference", required=True, metavar="REF", help="what musc-edge reference made")
    add("-o", "--out", required=True, help="folder for the results, outside of FOLDER; it is gone on with")
    cli.add_bundle(parser, "the bundle that the reference was made with (default: as for infer)")
    cli.add_alpha(parser)
    watching = parser.add_argument_group("watching")
    add = watching.add_argument
    add("--existing", action="store_true",
        help="check also the images that were there before the first start with this OUT")  # fmt: skip
    add("--poll", type=arguments.seconds, metavar="SECONDS",
        help="search the folder so often, instead of listening to the kernel (default where it is on a "
        "network share: 2)")  # fmt: skip
    add("--settle", type=arguments.seconds, default=2.0, metavar="SECONDS",
        help="how long a file must not have changed that nobody was seen to close (default: 2)")  # fmt: skip
    add("--patience", type=arguments.seconds, default=60.0, metavar="SECONDS",
        help="how long a file that cannot be read must not have changed before it is recorded as unreadable "
        "(default: 60)")  # fmt: skip
    add_drift(parser)
    pictures = parser.add_argument_group("pictures")
    add = pictures.add_argument
    add("--pictures", choices=("reject", "all", "none"), default="reject",
        help="whose pictures, maps and overlays are kept in OUT (default: reject)")  # fmt: skip
    add("--keep", type=arguments.memory, default=arguments.memory(KEEP), metavar="SIZE",
        help="room that OUT may take: the oldest pictures go first, the results stay (default: "
        f"{KEEP})")  # fmt: skip
    add_delivery(parser)
    cli.add_resources(parser)
    cli.add_common(parser, 4, 5, 6, 7, json="print each result as a line of JSON")
    parser.set_defaults(run=_watch, usage_error=parser.error)


def _watch(args: argparse.Namespace) -> int:
    from ..runtime.line.folder_watch import FolderWatch, WatchOptions
    from ..runtime.line.mounts import remote_kind
    from ..runtime.line.pictures import Pictures
    from ..runtime.line.result_log import ResultLog
    from ..runtime.line.station import Station, Witness
    from ..runtime.reference.checker import Checker
    from ..runtime.reference.files import open_reference
    from ..runtime.vit.bundle import find_bundle
    from .service import Systemd, stopping

    folder = Path(args.folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {args.folder!r}: give the one that the images come into.")
    if args.poll is None and not remote_kind(folder):
        need("musc-edge watch")
    systemd = Systemd()
    reference, bundle = open_reference(args.reference), find_bundle(args.bundle)
    options = WatchOptions(args.poll, args.settle, args.patience, args.existing)
    with (
        stopping() as stop,
        ResultLog(args.out) as log,
        Checker(reference, bundle, args.alpha, cli.resources(args)) as checker,
    ):
        for text in (*checker.warnings, *checker.notes):
            cli.show_error_line(text)
        pictures = Pictures(log, reference.manifest, args.keep, args.pictures, cli.show_error_line)
        monitors = drift_witness(args, reference, log)
        for monitor in monitors:
            for text in monitor.notes:
                cli.show_error_line(text)
        witnesses: tuple[Witness, ...] = (pictures, *monitors)
        station = Station(Path(args.reference).resolve().name, checker, log, witnesses)
        with (
            FolderWatch(folder, station, options, cli.show_error_line) as watch,
            delivery(args, log),
        ):
            begun = len(log)
            _say(args, f"watching {watch.folder}; results in {log.folder}, {begun} so far")
            systemd.ready(f"watching {watch.folder}")
            changed = False
            while not stop:
                systemd.alive()
                if entry := watch.turn():
                    cli.show(_line(entry, args.json))
                    changed = _tell_drift(args, entry, changed)
            systemd.stopping()
            _say(args, f"stopped; {counted(len(log) - begun, 'image')} recorded")
    return stop.exit_code


def _say(args: argparse.Namespace, text: str) -> None:
    cli.say(args)(text)


def _tell_drift(args: argparse.Namespace, entry: Entry, before: bool) -> bool:
    """Say that the line has changed, or is steady again; returns whether it has changed."""
    from ..runtime.line.receiver import has_changed

    now = has_changed(entry)
    if now and not before:
        _say(args, f"{entry.time}  the line has changed: {'; '.join(entry.facts['drift']['what'])}")
    elif before and not now:
        _say(args, f"{entry.time}  the line is steady again")
    return now


def _line(entry: Entry, as_json: bool) -> str:
    """A result as a line: when, verdict, raw score, p, name; or why there is none."""
    import json

    from ..runtime.results.text import printable

    if as_json:
        return json.dumps(entry.content())
    facts = entry.facts
    name = printable(facts["image"])
    if facts["status"] != "ok":
        return f"{entry.time}  {facts['status']:<{_WIDTH}}  {name} ({facts['error']})"
    notes = "".join(f"\n  warning: {text}" for text in facts["warnings"])
    numbers = f"raw {facts['raw_score']:.4f}  p {facts['p']:.4f}"
    return f"{entry.time}  {facts['verdict']:<{_WIDTH}}  {numbers}  {name}{notes}"
