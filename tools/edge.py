"""``musc-edge``: score a lot, look into a bundle, see what this machine can run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import cli

_EXIT_CODES = """exit codes: 0 all scored; 1 internal error; 2 usage; 3 results written, but some images could
not be read; 4 bundle; 5 device; 6 not enough images; 7 output not writable; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return cli.run("musc-edge", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = cli.new_parser("musc-edge", "Find the defects in a lot of unlabeled images, without training.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    infer = commands.add_parser(
        "infer", help="score every image of a folder by all the others", epilog=_EXIT_CODES
    )
    infer.add_argument("lot", metavar="LOT_DIR", help="folder of images, searched with its subfolders")
    infer.add_argument("-b", "--bundle", help="bundle folder (default: $MUSC_EDGE_BUNDLE, else your default)")
    infer.add_argument("-o", "--out", help="folder for the results (default: ./<lot>-musc)")
    infer.add_argument("--overwrite", action="store_true", help="replace results of an earlier run")
    infer.add_argument(
        "--maps",
        choices=("grid", "pixel", "none"),
        default="grid",
        help="anomaly maps to write, float32 .npy: on the patch grid, or at model size (default: grid)",
    )
    infer.add_argument(
        "--degrees",
        type=cli.degrees,
        default=(1, 3, 5),
        metavar="R,R,...",
        help="sides of the neighborhoods, odd (default: 1,3,5)",
    )
    infer.add_argument(
        "--interval",
        type=cli.interval,
        default=(0.0, 0.3),
        metavar="LO,HI",
        help="part of the sorted distances that is averaged (default: 0,0.3)",
    )
    infer.add_argument(
        "--neighbors",
        type=cli.neighbors,
        default=(1, 2, 3),
        metavar="K,K,...",
        help="window sizes of the rescoring, the image itself counted (default: 1,2,3)",
    )
    infer.add_argument("--batch", type=cli.positive, default=8, help="images per run of the ViT (default: 8)")
    infer.add_argument(
        "--threads", type=cli.positive, help="threads for decoding and for the ViT (default: all cores)"
    )
    infer.add_argument(
        "--memory-budget",
        type=cli.memory,
        metavar="SIZE",
        help="memory for features and distances, such as 2G; beyond it a scratch file beside the "
        "results is used (default: half of what is free)",
    )
    cli.add_common(infer)
    infer.set_defaults(run=_infer)
    inspect = commands.add_parser("inspect", help="say what a bundle is")
    inspect.add_argument("bundle", metavar="BUNDLE", nargs="?", help="bundle folder (default: as for infer)")
    cli.add_common(inspect)
    inspect.set_defaults(run=_inspect)
    doctor = commands.add_parser(
        "doctor", help="say what this machine can run, and what to install for the rest"
    )
    cli.add_common(doctor)
    doctor.set_defaults(run=_doctor)
    return parser


def _infer(args: argparse.Namespace) -> int:
    from ..runtime.bundle import find_bundle, open_bundle
    from ..runtime.lot import list_lot
    from ..runtime.output import new_folder
    from ..runtime.pipeline import score_lot
    from ..runtime.results import LOT, describe, write_results
    from ..runtime.types import ScoreSettings
    from .progress import ProgressLine
    from .summary import SKIPPED_EXIT, summary_json, summary_text

    root = Path(args.lot)
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        print(f"musc-edge: {root} {problem}. Give the folder that holds the lot's images.", file=sys.stderr)
        return 2
    out = Path(args.out) if args.out else Path(f"{root.resolve().name}-musc")
    images = list_lot(root, exclude=out)
    bundle = open_bundle(find_bundle(args.bundle))
    settings = ScoreSettings(args.degrees, args.interval, args.neighbors)
    progress = ProgressLine(sys.stderr, {"extract": "ViT", "score": "mutual scoring", "write": "writing"})
    if not args.json:
        print(f"{len(images)} images in {root}; {bundle.manifest.backbone}, backend cpu, scorer numpy")
    with new_folder(out, args.overwrite, marker=LOT) as folder:
        result = score_lot(
            images,
            bundle,
            settings,
            batch=args.batch,
            threads=args.threads,
            memory_budget=args.memory_budget,
            scratch=folder,
            progress=progress,
        )
        write_results(result, folder, root, args.maps, progress)
    print(
        summary_json(result, out, describe(result, root, args.maps))
        if args.json
        else summary_text(result, out)
    )
    return SKIPPED_EXIT if result.skipped else 0


def _inspect(args: argparse.Namespace) -> int:
    from ..runtime.bundle import find_bundle, open_bundle
    from .summary import bundle_json, bundle_text

    bundle = open_bundle(find_bundle(args.bundle), whole=True)
    print(bundle_json(bundle) if args.json else bundle_text(bundle))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from ..runtime.errors import DeviceError
    from .doctor import can_infer, examine, report_json, report_text

    findings = examine()
    print(report_json(findings) if args.json else report_text(findings))
    return 0 if can_infer(findings) else DeviceError.exit_code


if __name__ == "__main__":
    sys.exit(main())
