"""``musc-export engine``: its options and its report on the engine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._numbers import counted
from . import arguments, cli

if TYPE_CHECKING:
    from ..export.engine import Built
    from ..runtime.types import Bundle


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser("engine", help="a TensorRT engine of a bundle, on the device it will run on")
    add = parser.add_argument
    add("bundle", metavar="BUNDLE")
    add("--flavor", choices=("tensorrt", "rtx"),
        help="NVIDIA's TensorRT or TensorRT-RTX (default: the one that is installed)")  # fmt: skip
    add("--max-batch", type=arguments.batch, default=8, metavar="N",
        help="the most images in one run (default: 8)")  # fmt: skip
    add("--compute-capability", type=_compute_capabilities, default=(), metavar="M.N,...",
        help="with TensorRT-RTX: build for other GPUs, such as 8.6,8.9; the engine is not proven until "
        "'musc-export verify' has passed on one")  # fmt: skip
    add("--workspace", type=arguments.memory, metavar="SIZE",
        help="memory of the GPU that a build may use, such as 2G")  # fmt: skip
    add("--timing-cache", type=Path, metavar="FILE",
        help="measurements of earlier builds, read and added to")  # fmt: skip
    cli.add_require_signature(parser)
    cli.add_common(parser, 4, 5, 7, 8)
    parser.set_defaults(run=_engine)


def _compute_capabilities(text: str) -> tuple[str, ...]:
    parts = text.split(",")
    for part in parts:
        major, dot, minor = part.partition(".")
        if not (major.isdecimal() and dot and minor.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r}: expected compute capabilities such as 8.6,8.9")
    return tuple(dict.fromkeys(parts))


def _engine(args: argparse.Namespace) -> int:
    from .._signatures import ENGINE
    from ..export.engine import choose_target, make_engine
    from ..runtime.vit.bundle import open_bundle
    from ..runtime.vit.engines import sidecar_of
    from .progress import ProgressLine
    from .signed_by import unsigned_text

    bundle = open_bundle(args.bundle, whole=True)
    with cli.without_interrupts():
        target = choose_target(args.flavor, args.compute_capability)
    cli.clean_up_on_sigterm()
    progress = ProgressLine(sys.stderr, {})
    try:
        built = make_engine(
            bundle, target, args.max_batch, workspace=args.workspace, timing_cache=args.timing_cache,
            say=cli.say(args), progress=progress,
        )  # fmt: skip
    finally:
        progress.close()
    unsigned = unsigned_text(bundle.root, sidecar_of(built.path), ENGINE)
    cli.show(_as_json(built, unsigned) if args.json else _as_text(built, bundle, unsigned))
    return 0


def _as_json(built: Built, unsigned: str | None) -> str:
    from dataclasses import asdict

    parity = built.parity.as_dict() if built.parity else None
    facts = {"engine": str(built.path), **asdict(built.info), "parity": parity, "not_signed": unsigned}
    return json.dumps(facts, indent=2)


def _as_text(built: Built, bundle: Bundle, unsigned: str | None) -> str:
    info = built.info
    lines = [
        f"engine {built.path}",
        f"  {info.plan_bytes / 1e6:.0f} MB, built in {info.build_seconds} s for {info.made_for}, "
        f"{info.min_batch} to {counted(info.max_batch, 'image')}, {info.variant}",
    ]
    if built.parity:
        lines += [*built.parity.lines(), f"Next: musc-edge infer LOT_DIR -b {bundle.root} --backend tensorrt"]
    else:
        lines += [
            "  NOT YET PROVEN: no GPU here can run it, to compare its numbers with the bundle's.",
            f"Next, on such a GPU: musc-export verify {bundle.root} --backend tensorrt",
        ]
    if unsigned:
        lines.append(f"  {unsigned}")
    return "\n".join(lines)
