"""What the command lines share: argument types, errors and signals turned into exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from .._version import __version__
from ..runtime.errors import MuscEdgeError

INTERRUPTED = 130
MAX_THREADS = 256
Say = Callable[[str], None]


def new_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with ``--version``; its commands are added by the caller."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that every command has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(prog: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse, call the command's function ``run`` and return the exit code."""
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command: Callable[[argparse.Namespace], int] = args.run
        return command(args)
    except MuscEdgeError as error:
        if args.debug:
            traceback.print_exc()
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in '... | head'
        sys.stderr.close()
        return 1


def _terminate(number: int, frame: object) -> None:
    """Leave through the same clean-up as an interrupt, with the signal's own exit code."""
    raise SystemExit(128 + number)


def integers(text: str) -> tuple[int, ...]:
    """'1,3,5' -> (1, 3, 5)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers such as 1,3,5") from error


def degrees(text: str) -> tuple[int, ...]:
    """Aggregation degrees: positive odd numbers, each once."""
    values = integers(text)
    if any(value < 1 or value % 2 == 0 for value in values) or len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f"{text!r}: expected different positive odd numbers such as 1,3,5")
    return values


def neighbors(text: str) -> tuple[int, ...]:
    """Window sizes of RsCIN: 1 or more."""
    values = integers(text)
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of 1 or more such as 1,2,3")
    return values


def interval(text: str) -> tuple[float, float]:
    """'0,0.3' -> (0.0, 0.3), with 0 <= lo < hi <= 1."""
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers such as 0,0.3") from error
    if not 0 <= lo < hi <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 <= lo < hi <= 1")
    return lo, hi


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)


def threads(text: str) -> int:
    """A number of threads that a machine can have."""
    if positive(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at most {MAX_THREADS} threads")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    """'224' -> (224, 224); '224x448' -> height 224, width 448."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected pixels such as 224, or HEIGHTxWIDTH such as 224x448"
        )
    return int(parts[0]), int(parts[-1])


def triple(text: str) -> tuple[float, float, float]:
    """'0.485,0.456,0.406' -> three numbers."""
    try:
        r, g, b = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers, for R, G and B") from error
    return r, g, b


def memory(text: str) -> int:
    """'2G', '500M' or a number of bytes."""
    return _amount(text, "an amount of memory such as 500M or 2G")


def pixels(text: str) -> int:
    """'400M' or a number of pixels."""
    return _amount(text, "a number of pixels such as 400M")


def _amount(text: str, expected: str) -> int:
    units = {"K": 10**3, "M": 10**6, "G": 10**9}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        value = int(float(number) * unit)
    except (ValueError, OverflowError):
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return value
