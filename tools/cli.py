"""Common parts of the command lines: options, and exit codes for errors and signals."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._signatures import REQUIRED
from .._version import __version__
from ..kernels.precisions import PRECISIONS
from ..runtime.errors import MuscEdgeError
from ..runtime.limits import limit_reached, require_files, require_threads, too_little_memory
from ..runtime.parallel import cores, has_abandoned
from ..runtime.remote import is_url, protocol_of, was_url
from ..runtime.settings import (
    ANYTHING,
    AUTO,
    DEFAULT,
    METHODS,
    PAIRS,
    RESIDUAL,
    Resources,
    ScoreSettings,
    not_of_cuda,
)
from ..runtime.tiling import Tiles
from . import arguments
from .usage import Parser, UsageError

if TYPE_CHECKING:
    from ..runtime.types import Manifest

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
Say = Callable[[str], None]
_METHOD = (
    *("degrees", "interval", "neighbors", "group_size", "window", "burn_out"),
    *("rescore", "position_median", "judge_by"),
)
"""Options that are fields of ScoreSettings, and go before what the preset has."""
_PLACES = (
    *("lot", "images", "image", "folder", "results", "reference", "bundle", "out", "list", "roi"),
    *("add", "calibrate", "before", "after", "model"),
)
"""Arguments that name a file or folder, of all commands."""
_HELD_BACK = (signal.SIGINT, signal.SIGTERM)


def new_parser(prog: str, description: str) -> Parser:
    """Make a parser with ``--version``, to which the caller adds commands."""
    parser = Parser(prog=prog, description=description, epilog=exit_codes(*EXIT_CODES))
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def exit_codes(*codes: int) -> str:
    """A line for ``--help`` on the exit codes of a command."""
    return "exit codes: " + "; ".join(f"{code} {EXIT_CODES[code]}" for code in codes)


def add_common(
    parser: argparse.ArgumentParser, *codes: int, json: str = "print one JSON object on standard output"
) -> None:
    """Add the options that every command has, and a line on its exit codes: ``codes`` beside 0, 1 and 2."""
    parser.epilog = exit_codes(0, 1, 2, *codes, INTERRUPTED)
    parser.add_argument("--json", action="store_true", help=json)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_bundle(parser: argparse.ArgumentParser, text: str, **options: Any) -> None:
    """Add the option that names a bundle, whose help is ``text``, and who must have signed it."""
    parser.add_argument("-b", "--bundle", help=text, **options)
    add_require_signature(parser)


def add_require_signature(parser: argparse.ArgumentParser) -> None:
    """Add the option for who must have signed a bundle: every command that opens one has it."""
    parser.add_argument("--require-signature", action="append", type=arguments.public_key, metavar="KEY",
        help="a public key, or a folder of them: use only what it has signed, of the bundle and of all that "
        "is loaded with it; given several times, what one of them has signed (default: "
        f"${REQUIRED})")  # fmt: skip


def add_scoring(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the method, as a group to which more can be added."""
    group = parser.add_argument_group("method", "one word chooses all; what is given by itself goes before")
    add = group.add_argument
    add_method(group)
    add("--score-by", choices=(PAIRS, RESIDUAL),
        help="what a patch is scored by: its distances to the other images, or what lies outside of what is "
        "common in the lot, without comparing images: fast, for large lots (default: as --method has "
        "it)")  # fmt: skip
    add("--interval", type=arguments.interval, metavar="LO,HI",
        help="part of the sorted distances that is averaged (default: 0,0.3)")  # fmt: skip
    add("--group-size", type=arguments.positive, metavar="M",
        help="score each image by M others, a fixed random choice, instead of by all others: time grows "
        "with N*M, not N*N")  # fmt: skip
    add("--burn-out", action=argparse.BooleanOptionalAction,
        help="leave the few nearest images out where all others lie apart from them, so that a defect which "
        "several images have does not look normal (default: as --method has it)")  # fmt: skip
    add("--copies", choices=("judge", "apart"),
        help="whether images that are copies of each other, the same file or the same shot, judge each other "
        "(default: as --method has it)")  # fmt: skip
    add("--window", type=arguments.window, metavar="W",
        help="compare a patch only with those at most W rows and columns from its place in the other images: "
        "for parts in a fixture; on the CPU (default: with all)")  # fmt: skip
    return group


def add_method(group: argparse._ArgumentGroup) -> None:
    """Add the presets of the method, and the degrees."""
    each = "; ".join(f"{name}: {what}" for name, what in METHODS.items())
    group.add_argument("--method", choices=tuple(METHODS),
        help=f"{each} (default: {DEFAULT})")  # fmt: skip
    group.add_argument("--degrees", type=arguments.degrees_or_auto, metavar="R,R,...|auto",
        help="sides of the neighborhoods, odd, such as 1,3,5; auto: by the bundle's grid (default: as "
        "--method has it)")  # fmt: skip


def add_position_median(group: argparse._ArgumentGroup) -> None:
    """Add the option for what a position has in all images."""
    group.add_argument("--position-median", type=arguments.share_or_auto, metavar="SHARE|auto",
        help="subtract this share of what a position has in all images before an image's maximum is taken; "
        "auto: half of it if the lot is aligned, 0: nothing (default: as --method has it)")  # fmt: skip


def add_tiles(group: argparse._ArgumentGroup) -> None:
    """Add the options that cut images into tiles (docs/tiles.md)."""
    add = group.add_argument
    add("--tiles", type=arguments.tiles, metavar="RxC|SIZE",
        help="cut each image into R rows of C tiles, or into square ones of SIZE pixels of the image, each "
        "as large to the ViT as a whole image; a tile is compared with those at its place")  # fmt: skip
    add("--overlap", type=arguments.overlap, metavar="SHARE|PIXELS",
        help="how far tiles lie over their neighbors, up to half a tile: 0.25 of it, or 64 pixels of the "
        "image (default: 0)")  # fmt: skip
    add("--tiles-free", action="store_true",
        help="compare a tile with those of all places in the other images, as textures allow")  # fmt: skip


def tiles_of(args: argparse.Namespace) -> Tiles | None:
    """Make tiles from the options of ``add_tiles``, where a command has them."""
    tiles: Tiles | None = getattr(args, "tiles", None)
    overlap = getattr(args, "overlap", None)
    free = getattr(args, "tiles_free", False)
    if tiles is None and (free or overlap is not None):
        raise UsageError(f"{'--tiles-free' if free else '--overlap'} takes --tiles, such as --tiles 2x3.")
    return tiles and replace(tiles, overlap=overlap or 0.0, free=free)


def add_region(group: argparse._ArgumentGroup) -> None:
    """Add the options for what of the images is scored (docs/small-defects.md)."""
    add = group.add_argument
    add("--roi", type=arguments.roi, metavar="X,Y,W,H|MASK|DIR",
        help="score only this part: a rectangle in pixels of the image as it is shown, a mask for all images "
        "(light is inside), or a folder with a mask under each image's name")  # fmt: skip
    add("--mask-background", choices=("auto",),
        help="leave out a plain background behind the product, where it is clear to tell")  # fmt: skip


def add_resources(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options for the resources of a run, as a group to which more can be added."""
    group = parser.add_argument_group("resources")
    add = group.add_argument
    add(
        "--batch", type=arguments.batch, default=ANYTHING.batch, help="images per run of the ViT (default: 8)"
    )
    add("--threads", type=arguments.threads,
        help="threads for files, the ViT and mutual scoring (default: all cores)")  # fmt: skip
    add("--backend", choices=(AUTO, "tensorrt", "cuda", "cpu"), default=AUTO,
        help="what runs the ViT: TensorRT, or ONNX Runtime on a GPU or the CPU (default: the first of "
        "these that works here)")  # fmt: skip
    add("--scorer", choices=(AUTO, "cuda", "numba", "numpy"), default=AUTO,
        help="what compares the images (default: the first of the others that works here)")  # fmt: skip
    add("--memory-budget", type=arguments.memory, metavar="SIZE",
        help="memory for the whole program, such as 2G; beyond it scratch files beside the results are "
        "used (default: what it holds and half of what is free)")  # fmt: skip
    add("--device-memory", type=arguments.memory, metavar="SIZE",
        help="memory that the scorer cuda may use of the GPU (default: nine tenths of what "
        "is free)")  # fmt: skip
    return group


def add_cluster(group: argparse._ArgumentGroup) -> None:
    """Add the option for a cluster, to the group of ``add_resources``."""
    group.add_argument("--cluster", type=arguments.cluster, metavar="auto|ADDRESS",
        help="let a cluster of Ray run the ViT and compare the images: auto starts one on this machine, an "
        "address such as 10.0.0.1:6379 is that of one that is there (docs/cluster.md)")  # fmt: skip


def add_precision(group: argparse._ArgumentGroup) -> None:
    """Add the option for what a GPU compares patches in, to the group of ``add_resources``."""
    # Other commands have a --precision of files, and some of them resources too.
    group.add_argument("--precision", choices=PRECISIONS, dest="scorer_precision",
        help="what the scorer cuda compares patches in: int8 is faster on most GPUs and costs some digits "
        "(docs/gpu.md) (default: half)")  # fmt: skip


def add_alpha(parser: argparse.ArgumentParser) -> None:
    """Add the option for the false-alarm rate of single images."""
    parser.add_argument("--alpha", type=arguments.share, default=0.05, metavar="RATE",
        help="false-alarm rate: at most this share of good images is rejected (default: 0.05)")  # fmt: skip


def score_settings(args: argparse.Namespace, manifest: Manifest) -> ScoreSettings:
    """Make settings for a bundle from the options of ``add_scoring``, or of ``add_method`` alone."""
    from ..runtime.scoring.presets import settings_for

    given = {name: getattr(args, name, None) for name in _METHOD}
    given["by"] = getattr(args, "score_by", None)  # args.by is what a verdict judges by
    if copies := getattr(args, "copies", None):
        given["copies_judge"] = copies == "judge"
    return settings_for(
        manifest,
        args.method or DEFAULT,
        tiles=tiles_of(args),
        **{name: value for name, value in given.items() if value is not None},
    )


def resources(args: argparse.Namespace) -> Resources:
    """Make resources from the options of ``add_resources``, and of ``add_precision`` where it was called."""
    precision = getattr(args, "scorer_precision", None)
    if precision and args.scorer != "cuda":
        raise UsageError(not_of_cuda(precision, args.scorer))
    return Resources(
        args.batch, args.threads, args.backend, args.scorer, args.memory_budget, args.device_memory,
        precision=precision, cluster=getattr(args, "cluster", None),
    )  # fmt: skip


def run(prog: str, parser: Parser, argv: Sequence[str] | None) -> int:
    """Parse, call the command's function ``run`` and return the exit code.

    Without ``argv`` this is the process's own command line.  Then the process ends even if a decoder that
    hangs is still running: Python by itself would wait for it.
    """
    code: object = 1
    _received.clear()
    try:
        code = _run(prog, parser, argv)
        return code
    except SystemExit as leaving:
        code = 128 + _received[-1] if _received else leaving.code
        raise SystemExit(code) from leaving
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
        _refuse_urls(args)
        with _signature_required(args):
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
        left = getattr(args, "interrupted", "nothing was written")
        print(f"\n{prog}: interrupted; {left}.", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def _signature_required(args: argparse.Namespace) -> Iterator[None]:
    """Require the signature that the command line asks for within the block, and in processes started there.

    In one place for all commands: whoever opens a bundle looks into this variable.
    """
    given: list[str] | None = getattr(args, "require_signature", None)
    before = os.environ.get(REQUIRED)
    if given:
        os.environ[REQUIRED] = os.pathsep.join(map(os.path.abspath, given))
    try:
        yield
    finally:
        if given:
            os.environ.pop(REQUIRED)
            os.environ.update({REQUIRED: before} if before is not None else {})


def _refuse_urls(args: argparse.Namespace) -> None:
    """Raise UsageError for a URL, which may hold a password, where a path of this machine is taken."""
    for name in _PLACES:
        given = getattr(args, name, None)
        for each in given if isinstance(given, list) else [given]:
            url = was_url(each) if isinstance(each, Path) else is_url(each)
            if url and name != getattr(args, "at_url", None):
                raise UsageError(
                    f"{protocol_of(str(each))}://... is a URL, and a path here was expected ({name}). "
                    "Only infer and plan read lots at URLs (docs/urls.md): copy it here."
                )


def _threads_of(args: argparse.Namespace) -> int:
    """Return how many threads a command may have at once: its own, and those of libraries, one per core."""
    own = getattr(args, "threads", None) or cores()
    return 2 * (own + len(os.sched_getaffinity(0)))


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
    _received.append(number)
    raise SystemExit(128 + number)


_received: list[int] = []
"""Signals that end this process: where one comes while Ray waits, Ray makes an exit with code 1 of it."""
