"""Common parts of the command lines: options, argument types, and exit codes for errors and signals."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .._numbers import counted
from .._version import __version__
from ..runtime.errors import MuscEdgeError
from ..runtime.limits import limit_reached, require_files, require_threads, too_little_memory
from ..runtime.parallel import cores, has_abandoned
from ..runtime.settings import ANYTHING, AUTO, MAX_DEGREE, PAPER, Resources, ScoreSettings
from .usage import Parser, UsageError

INTERRUPTED = 130
EXIT_CODES = {
    0: "done",
    1: "internal error",
    2: "usage: an option, or a file or folder that is not there",
    3: "results written, but some images were not scored",
    4: "bundle, reference, source model or engine",
    5: "device, too few files or threads allowed, or a library that is not installed",
    6: "not enough images, or a lot that cannot be scored with these settings and this memory",
    7: "output not writable",
    8: "parity: numbers differ from the source model's",
    9: "results written, and by --fail-on: an image has that verdict, or a lot has none",
    INTERRUPTED: "interrupted",
}
"""What each exit code means, in every command."""
MAX_THREADS, MAX_BATCH, MAX_IMAGES = 256, 1024, 10**7
Say = Callable[[str], None]
_AMOUNT = re.compile(
    r"(?P<number>(\d+\.?\d*|\.\d+)(e\d+)?) *(?P<unit>[kmgt]?)(?P<binary>i(?=b))?b?", re.IGNORECASE | re.ASCII
)
_LEAST_MEMORY, _FEW_GIGABYTES, _LEAST_PIXELS = 100_000, 64, 1000
_HELD_BACK = (signal.SIGINT, signal.SIGTERM)


def new_parser(prog: str, description: str) -> Parser:
    """Make a parser with ``--version``, to which the caller adds commands."""
    parser = Parser(prog=prog, description=description, epilog=exit_codes(*EXIT_CODES))
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def exit_codes(*codes: int) -> str:
    """A line for ``--help`` on the exit codes of a command."""
    return "exit codes: " + "; ".join(f"{code} {EXIT_CODES[code]}" for code in codes)


def add_common(parser: argparse.ArgumentParser, *codes: int) -> None:
    """Add the options that every command has, and a line on its exit codes: ``codes`` beside 0, 1 and 2."""
    parser.epilog = exit_codes(0, 1, 2, *codes, INTERRUPTED)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_scoring(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the method, as a group to which more can be added."""
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--degrees", type=degrees, default=PAPER.degrees, metavar="R,R,...",
        help="sides of the neighborhoods, odd (default: 1,3,5)")  # fmt: skip
    add("--interval", type=interval, default=PAPER.interval, metavar="LO,HI",
        help="part of the sorted distances that is averaged (default: 0,0.3)")  # fmt: skip
    add("--group-size", type=positive, metavar="M",
        help="score each image by M others, a fixed random choice, instead of by all others: time grows "
        "with N*M, not N*N")  # fmt: skip
    return group


def add_resources(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options for the resources of a run, as a group to which more can be added."""
    group = parser.add_argument_group("resources")
    add = group.add_argument
    add("--batch", type=batch, default=ANYTHING.batch, help="images per run of the ViT (default: 8)")
    add("--threads", type=threads,
        help="threads for files, the ViT and mutual scoring (default: all cores)")  # fmt: skip
    add("--backend", choices=(AUTO, "tensorrt", "cuda", "cpu"), default=AUTO,
        help="what runs the ViT: TensorRT, or ONNX Runtime on a GPU or the CPU (default: the first of "
        "these that works here)")  # fmt: skip
    add("--scorer", choices=(AUTO, "cuda", "numba", "numpy"), default=AUTO,
        help="what compares the images (default: the first of the others that works here)")  # fmt: skip
    add("--memory-budget", type=memory, metavar="SIZE",
        help="memory for the whole program, such as 2G; beyond it scratch files beside the results are "
        "used (default: what it holds and half of what is free)")  # fmt: skip
    add("--device-memory", type=memory, metavar="SIZE",
        help="memory that the scorer cuda may use of the GPU (default: nine tenths of what "
        "is free)")  # fmt: skip
    return group


def score_settings(args: argparse.Namespace) -> ScoreSettings:
    """Make settings from the options of ``add_scoring``."""
    neighbors = getattr(args, "neighbors", PAPER.neighbors)
    return ScoreSettings(args.degrees, args.interval, neighbors, args.group_size)


def resources(args: argparse.Namespace) -> Resources:
    """Make resources from the options of ``add_resources``."""
    return Resources(
        args.batch, args.threads, args.backend, args.scorer, args.memory_budget, args.device_memory
    )


def run(prog: str, parser: Parser, argv: Sequence[str] | None) -> int:
    """Parse, call the command's function ``run`` and return the exit code.

    Without ``argv`` this is the process's own command line.  Then the process ends even if a decoder that
    hangs is still running: Python by itself would wait for it.
    """
    code: object = 1
    try:
        code = _run(prog, parser, argv)
        return code
    except SystemExit as leaving:
        code = leaving.code
        raise
    except Exception:
        if argv is None and has_abandoned():
            traceback.print_exc()
        raise
    finally:
        if argv is None and has_abandoned():
            _leave(code)


def _leave(code: object) -> None:
    """End the process as ``sys.exit`` would, but without waiting for threads."""
    # Nothing else is left to clean up: contexts have been left on the way here.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader of the output is gone
            stream.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def _run(prog: str, parser: Parser, argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # any file name can be shown anywhere
    parser.check_order(sys.argv[1:] if argv is None else argv)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.parser.refuse(unknown)
    try:
        command: Callable[[argparse.Namespace], int] = args.run
        require_files()
        require_threads(_threads_of(args))
        return command(args)
    except MuscEdgeError as error:
        if args.debug:
            traceback.print_exc()
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, ImportError, MemoryError) as error:
        memory = too_little_memory(error) if isinstance(error, MemoryError) else None
        found = memory or limit_reached(error)
        if found is None and isinstance(error, ImportError):
            raise
        if args.debug:
            traceback.print_exc()
        print(f"{prog}: {found or error}", file=sys.stderr)
        return found.exit_code if found else 1
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED


def _threads_of(args: argparse.Namespace) -> int:
    """Return how many threads a command may have at once: its own, and those of libraries, one per core."""
    own = getattr(args, "threads", None) or cores()
    return 2 * (own + len(os.sched_getaffinity(0)))


def lot_folder(text: str) -> Path:
    """The folder of a lot; UsageError if there is none."""
    give = "give the folder that holds the lot's images"
    if not text:
        raise UsageError(f"LOT_DIR is empty: {give}.")
    if not Path(text).is_dir():
        problem = "is a file" if Path(text).exists() else "does not exist"
        raise UsageError(f"{text} {problem}: {give}.")
    return Path(text)


def show(text: str) -> None:
    """Print a command's result; failing to print it does not change what was done."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python would try again when it exits
        if not isinstance(error, BrokenPipeError):  # the reader has gone, as in '... | head'
            print(f"the result could not be printed: {error.strerror}", file=sys.stderr)


def say(args: argparse.Namespace) -> Say:
    """Return the function for progress messages: prints to standard error if standard output is JSON."""
    return show_error_line if args.json else show


def show_error_line(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


def show_error(text: str) -> None:
    """Print an error on a new line of standard error."""
    print(f"\n{text}", file=sys.stderr)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold back ctrl-C and SIGTERM until the block ends.

    Libraries that are being imported turn the exception of a signal into other errors, and a file or folder
    that has just been made could not be removed yet.
    """
    held: list[int] = []
    # A mask would not do: the threads of libraries do not have it, and take the signal.
    handlers = {kind: signal.signal(kind, lambda number, frame: held.append(number)) for kind in _HELD_BACK}
    try:
        yield
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
        for number in held:
            signal.raise_signal(number)


def clean_up_on_sigterm() -> None:
    """Make SIGTERM clean up as an interrupt does, from here on, and end with exit code 143."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def integers(text: str) -> tuple[int, ...]:
    """Parse '1,3,5' -> (1, 3, 5)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers such as 1,3,5") from error


def arches(text: str) -> tuple[str, ...]:
    """Parse 'sm_87,sm_86' -> ("sm_87", "sm_86"), each once."""
    from ..kernels.cuda_source import arch_number

    names = tuple(dict.fromkeys(text.split(",")))
    try:
        for name in names:
            arch_number(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def degrees(text: str) -> tuple[int, ...]:
    """Parse aggregation degrees: positive odd numbers, each once."""
    values = integers(text)
    if any(value % 2 == 0 or not 1 <= value <= MAX_DEGREE for value in values) or len(set(values)) != len(
        values
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected different odd numbers from 1 to {MAX_DEGREE} such as 1,3,5"
        )
    return values


def neighbors(text: str) -> tuple[int, ...]:
    """Parse window sizes of RsCIN: 1 or more."""
    values = integers(text)
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of 1 or more such as 1,2,3")
    return values


def interval(text: str) -> tuple[float, float]:
    """Parse '0,0.3' -> (0.0, 0.3), with 0 <= lo < hi <= 1."""
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers such as 0,0.3") from error
    if not 0 <= lo < hi <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 <= lo < hi <= 1")
    return lo, hi


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)


def share(text: str) -> float:
    """Parse a share above 0 and below 1, such as 0.1."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share such as 0.1") from error
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share above 0 and below 1, such as 0.1")
    return value


def threads(text: str) -> int:
    """Parse a number of threads."""
    return _at_most(positive(text), MAX_THREADS, "threads")


def batch(text: str) -> int:
    """Parse the images in one run of the ViT."""
    return _at_most(positive(text), MAX_BATCH, "images")


def images(text: str) -> int | Path:
    """Parse the number of images of a lot, or a folder of them."""
    if text.isdecimal():
        return _at_most(positive(text), MAX_IMAGES, "images")
    if not Path(text or "-").is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of images, or a folder of them")
    return Path(text)


def top(text: str) -> int:
    """Parse how many of the most suspicious images are shown."""
    from ..runtime.results.image_files import MOST_TOP

    return _at_most(positive(text), MOST_TOP, "images")


def _at_most(value: int, limit: int, what: str) -> int:
    if value > limit:
        raise argparse.ArgumentTypeError(f"{value}: expected at most {limit} {what}")
    return value


def image_size(text: str) -> tuple[int, int]:
    """Parse '224' -> (224, 224); '224x448' -> height 224, width 448."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected pixels such as 224, or HEIGHTxWIDTH such as 224x448"
        )
    return int(parts[0]), int(parts[-1])


def triple(text: str) -> tuple[float, float, float]:
    """Parse three numbers such as '0.485,0.456,0.406'."""
    try:
        r, g, b = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers, for R, G and B") from error
    return r, g, b


def spread(text: str) -> tuple[float, float, float]:
    """Parse three numbers above 0."""
    values = triple(text)
    if not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers above 0, for R, G and B")
    return values


def memory(text: str) -> int:
    """Parse '2G', '500M', '1.5 GiB' or a number of bytes."""
    value = _amount(text, "an amount of memory such as 500M or 2G")
    if value < _LEAST_MEMORY:
        unit = "G" if value < _FEW_GIGABYTES else "M"
        meant = f"; did you mean {text}{unit}?" if text.isdecimal() else ""
        raise argparse.ArgumentTypeError(
            f"{text!r} is {counted(value, 'byte')}, too little for anything{meant}"
        )
    return value


def memories(text: str) -> tuple[int, ...]:
    """Parse amounts of memory such as '8G,24G'."""
    return tuple(memory(part) for part in text.split(","))


def pixels(text: str) -> int:
    """Parse '400M' or a number of pixels."""
    value = _amount(text, "a number of pixels such as 400M")
    if value < _LEAST_PIXELS and text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r}: no photograph has so few pixels in all; did you mean {text}M?"
        )
    return value


def _amount(text: str, expected: str) -> int:
    parts = _AMOUNT.fullmatch(text.strip())
    value = 0
    if parts:
        unit, binary = parts["unit"].upper(), parts["binary"]
        with suppress(OverflowError):
            value = int(float(parts["number"]) * (1024 if binary else 1000) ** " KMGT".index(unit or " "))
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return value
