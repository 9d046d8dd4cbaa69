"""``musc-edge units``: units of systemd that run ``musc-edge watch`` and ``musc-edge serve`` as services."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from . import cli
from .usage import UsageError

NAMES = ("musc-edge-watch@.service", "musc-edge-serve.service")
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))
"""Folders that the units do not let the services see."""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("units", help="write units of systemd for watch and serve")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR",
        help="folder for them: /etc/systemd/system, or another to look at them first")  # fmt: skip
    cli.add_common(parser, 7)
    parser.set_defaults(run=_units)


def _units(args: argparse.Namespace) -> int:
    from .._files import write_whole
    from ..runtime.errors import OutputError

    if not args.out.is_dir():
        raise UsageError(
            f"there is no folder {args.out}: give one for the units, such as /etc/systemd/system."
        )
    program = _program()
    written = []
    for name in NAMES:
        try:
            write_whole(args.out / name, unit(name, program).encode(), 0o644)
        except OSError as error:
            raise OutputError(f"{args.out / name} cannot be written: {error.strerror}.") from error
        written.append(str(args.out / name))
    cli.show(
        json.dumps({"written": written, "program": str(program)}) if args.json else _text(written, program)
    )
    return 0


def unit(name: str, program: Path) -> str:
    """Return the text of a unit that starts ``program``."""
    folder = files(__package__) / "systemd"
    text = (folder / name).read_text(encoding="utf-8")
    common = (folder / "common.conf").read_text(encoding="utf-8")
    # In a unit % begins what systemd puts in.
    return text.replace("@COMMON@", common).replace("@MUSC_EDGE@", str(program).replace("%", "%%"))


def _program() -> Path:
    """The musc-edge that runs now."""
    program = Path(sys.executable).parent / "musc-edge"
    if not program.is_file():
        raise UsageError(f"there is no {program}: install musc-edge with pip, and start it by that name.")
    if any(character in str(program) for character in " \"'\\$"):
        raise UsageError(f"{program}: systemd cannot start a program with such a path; expected one like "
            "/opt/musc-edge/bin/musc-edge.")  # fmt: skip
    return program


def _text(written: list[str], program: Path) -> str:
    lines = [f"written: {each}" for each in written] + [f"They start {program}."]
    if hidden := next((folder for folder in _HIDDEN if program.is_relative_to(folder)), None):
        lines.append(
            f"The services cannot see {hidden}: install musc-edge elsewhere, such as in /opt/musc-edge, and "
            "write them from there."
        )
    lines.append("Next: systemctl daemon-reload; settings and secrets: docs/line.md, 'As a service'")
    return "\n".join(lines)
