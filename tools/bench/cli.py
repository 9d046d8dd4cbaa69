"""``musc-bench``: where the time goes, and how far it is from the limit."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import cli

if TYPE_CHECKING:
    from .harness import Samples


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return cli.run("musc-bench", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = cli.new_parser("musc-bench", "Measure where the time goes, and how far it is from the limit.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    startup = commands.add_parser("startup", help="start of the package and its commands, above bare Python")
    startup.set_defaults(run=_startup)
    scorer = commands.add_parser("scorer", help="mutual scoring, against its matrix products")
    scorer.add_argument("--images", type=cli.positive, default=90, help="N (default: 90)")
    scorer.add_argument("--layers", type=cli.positive, default=1, help="S (default: 1)")
    scorer.add_argument(
        "--grid", type=cli.image_size, default=(16, 16), metavar="G|GhxGw", help="patches (default: 16)"
    )
    scorer.add_argument("--width", type=cli.positive, default=384, help="C (default: 384)")
    scorer.add_argument("--degrees", type=cli.degrees, default=(1, 3, 5), help="r (default: 1,3,5)")
    scorer.add_argument("--threads", type=cli.threads, help="of every case (default: all cores)")
    scorer.add_argument(
        "--scorers", type=_scorers, default=("numpy", "numba"), help="what to time (default: numpy,numba)"
    )
    scorer.add_argument("--against", choices=("reference",), help="in turn with the authors' form in torch")
    scorer.set_defaults(run=_scorer)
    for command in (startup, scorer):
        command.add_argument("--rounds", type=cli.positive, default=5, help="counted rounds (default: 5)")
        cli.add_common(command)
    return parser


def _scorers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= {"numpy", "numba"}:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numpy, numba or both, as in numpy,numba")
    return names


def _startup(args: argparse.Namespace) -> int:
    from .harness import table
    from .startup import measure

    samples = measure(args.rounds)
    bare = samples[0].median
    extra = {s.name: s.median - bare for s in samples[1:]}
    if args.json:
        _print_json("startup", vars(args), samples, {"above_bare_python_s": extra})
        return 0
    print(table(samples, 1e-3, "ms"))
    print(
        "above bare Python (medians): " + ", ".join(f"{name} {t * 1e3:.0f} ms" for name, t in extra.items())
    )
    return 0


def _scorer(args: argparse.Namespace) -> int:
    from ...runtime.errors import DeviceError
    from .harness import ratios, table
    from .scorer import FLOOR, REFERENCE, Size, measure

    size = Size(args.images, args.layers, args.grid, args.width, args.degrees)
    threads = args.threads or len(os.sched_getaffinity(0))
    try:
        samples, differences = measure(
            size, args.rounds, threads, args.scorers, reference=args.against == "reference"
        )
    except ImportError as error:
        raise DeviceError(
            f"the reference needs torch ({error}). Install it with: pip install 'musc-edge[bench]'"
        ) from error
    by_name = {s.name: s for s in samples}
    over_floor = {kind: ratios(by_name[kind], by_name[FLOOR]) for kind in args.scorers}
    reference = by_name.get(REFERENCE)
    over_ours = {kind: ratios(reference, by_name[kind]) for kind in args.scorers} if reference else {}
    if args.json:
        extra = {"over_floor": over_floor, "reference_over": over_ours, "max_difference": differences}
        _print_json("scorer", {**vars(args), "threads": threads}, samples, extra)
        return 0
    grid = "x".join(map(str, size.grid))
    sizes = f"N={size.images} grid={grid} C={size.width} layers={size.layers} degrees={size.degrees}"
    print(f"{sizes}, {threads} threads: {size.flop / 1e9:.0f} GFLOP")
    print(table(samples))
    print(f"floor runs at {size.flop / by_name[FLOOR].median / 1e9:.0f} GFLOP/s")
    for names, found in (("{} / floor", over_floor), ("reference / {}", over_ours)):
        for kind, (low, mid, high) in found.items():
            print(f"{names.format(kind):<18} {mid:.2f} ({low:.2f} to {high:.2f})")
    print("largest differences of scores: " + ", ".join(f"{k} {d:.1e}" for k, d in differences.items()))
    return 0


def _print_json(case: str, args: dict[str, Any], samples: list[Samples], extra: dict[str, Any]) -> None:
    from .harness import machine

    settings = {k: v for k, v in args.items() if k not in ("run", "json", "debug")}
    seconds = {s.name: list(s.seconds) for s in samples}
    print(
        json.dumps(
            {"case": case, "settings": settings, "seconds": seconds, **extra, "machine": machine()}, indent=2
        )
    )


if __name__ == "__main__":
    sys.exit(main())
