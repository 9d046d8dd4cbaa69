"""The cases of ``musc-bench``, each with its options and its measurement.

The command line (cli.py) knows them only as ``Case``.  Imports that cost time are made where they are used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..._extras import install
from ...runtime.settings import PAPER
from .. import arguments, cli

if TYPE_CHECKING:
    from .report import Report


@dataclass(frozen=True)
class Case:
    """A case of the benchmark.

    ``measure`` fills the report as it goes, so that an interrupt leaves what was measured before it.
    """

    name: str
    help: str
    add_options: Callable[[Any], None]
    measure: Callable[[argparse.Namespace, Report], None]


def all_threads(args: argparse.Namespace) -> int:
    """Return the threads that were asked for, else one for each core."""
    from ...runtime.parallel import cores

    threads: int = args.threads or cores()
    return threads


# ---- lot -------------------------------------------------------------------------------------


def _lot_options(parser: Any) -> None:
    add = parser.add_argument
    add("lot", metavar="LOT_DIR", nargs="?", help="folder of images")
    add("--synthetic", type=arguments.positive, metavar="N", help="N made-up images instead of a folder")
    cli.add_bundle(parser, "bundle folder (default: as for musc-edge infer)")
    cli.add_scoring(parser)
    cli.add_resources(parser)
    add("--cold-rounds", type=arguments.positive, default=3, help="processes started anew (default: 3)")
    _add_rounds(parser)
    parser.set_defaults(usage_error=parser.error)


def _measure_lot(args: argparse.Namespace, report: Report) -> None:
    if (args.lot is None) == (args.synthetic is None):
        args.usage_error("give either LOT_DIR or --synthetic N")
    given = arguments.lot_folder(args.lot) if args.lot is not None else None
    import tempfile
    from pathlib import Path

    from ...runtime.images.listing import list_lot
    from ...runtime.vit.bundle import find_bundle, open_bundle
    from . import gpu_peak, lot, peak
    from .harness import enough, warm_up

    bundle = open_bundle(find_bundle(args.bundle))
    with tempfile.TemporaryDirectory(prefix="musc-bench-lot-") as folder:
        root = given or lot.synthetic_lot(Path(folder) / "lot", args.synthetic)
        images = list_lot(root)
        job = lot.Job(root, bundle.root, cli.score_settings(args, bundle.manifest), cli.resources(args))
        measured = lot.Measured()
        report.facts["warm_up_rounds"] = warm_up(lambda: lot.run_once(job))
        yardstick = peak.Yardstick(report.yardstick)
        before = peak.measure(job.resources.workers)
        try:
            while not enough(measured.lot, args.rounds):
                seconds = lot.run_once(job, measured)
                if measured.on_cpu:
                    yardstick.measure(seconds)
            report.facts["cold"] = lot.cold_starts(job, images[0].local, args.cold_rounds)
        finally:
            report.samples, report.calls = measured.samples(), dict(measured.calls)
            if measured.lot:
                peaks = peak.merged(before, peak.measure(job.resources.workers))
                report.facts |= lot.lot_facts(measured)
                of_gpu = None
                if not measured.on_cpu:
                    of_gpu = gpu_peak.measure_used(bundle, report.facts)
                report.facts["stages"] = lot.stage_facts(measured, job, bundle, peaks, of_gpu)
                report.facts["peaks"] = peak.facts(peaks)
                report.facts["timer"] = lot.timer_cost(measured.spans, report.facts["lot_s"])


# ---- backbone --------------------------------------------------------------------------------


def _backbone_options(parser: Any) -> None:
    add = parser.add_argument
    cli.add_bundle(parser, "bundle folder (default: as for musc-edge infer)")
    add("--batches", type=_batches, default=(1, 2, 4, 8, 16), metavar="B,B,...",
        help="images in a run (default: 1,2,4,8,16)")  # fmt: skip
    add("--backend", choices=("cpu", "cuda", "tensorrt"), default="cpu",
        help="cpu and cuda are ONNX Runtime (default: cpu)")  # fmt: skip
    add("--threads", type=arguments.threads, help="threads of the ViT (default: all cores)")
    _add_rounds(parser, 10)


def _batches(text: str) -> tuple[int, ...]:
    return tuple(arguments.batch(part) for part in text.split(","))


def _measure_backbone(args: argparse.Namespace, report: Report) -> None:
    from ...runtime.vit.bundle import find_bundle, open_bundle
    from . import backbone, gpu_peak, peak
    from .limits import Limits

    bundle = open_bundle(find_bundle(args.bundle))
    threads = all_threads(args)
    before = peak.measure(threads)
    try:
        backbone.measure(bundle, args.backend, args.batches, threads, args.rounds, report)
    finally:
        peaks = peak.merged(before, peak.measure(threads))
        limit: Limits | None = peaks
        if args.backend != "cpu":
            limit = gpu_peak.measure_used(bundle, report.facts)
        report.facts |= backbone.facts(bundle, report.samples, limit)
        report.facts["peaks"] = peak.facts(peaks)


# ---- scorer ----------------------------------------------------------------------------------


def _scorer_options(parser: Any) -> None:
    add = parser.add_argument
    add(
        "--images",
        type=arguments.integers,
        default=(90,),
        metavar="N,N,...",
        help="lots of N images (default: 90)",
    )
    add("--layers", type=arguments.positive, default=1, help="S (default: 1)")
    add(
        "--grid", type=arguments.image_size, default=(16, 16), metavar="G|GhxGw", help="patches (default: 16)"
    )
    add("--width", type=arguments.positive, default=384, help="C (default: 384)")
    add("--degrees", type=arguments.degrees, default=PAPER.degrees, help="r (default: 1,3,5)")
    add("--threads", type=arguments.threads, help="of every case (default: all cores)")
    add("--scorers", type=_scorers, default=("numpy", "numba"), help="what to time (default: numpy,numba)")
    add("--against", choices=("reference",), help="in turn with the authors' form in torch")
    add("--no-warm-up", action="store_true", help="count the first round: for sizes that take minutes")
    _add_rounds(parser, 5)


def _scorers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= {"numpy", "numba", "cuda"}:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected some of numpy, numba and cuda, as in numpy,numba"
        )
    return names


def _measure_scorer(args: argparse.Namespace, report: Report) -> None:
    from ...runtime.errors import DeviceError
    from . import scorer

    try:
        for images in args.images:
            size = scorer.Size(images, args.layers, args.grid, args.width, args.degrees)
            scorer.measure(
                size, args.rounds, all_threads(args), args.scorers, args.against == "reference", report,
                warm_up=0 if args.no_warm_up else 1,
            )  # fmt: skip
    except ImportError as error:
        raise DeviceError(
            f"the reference needs torch ({error}). Install it with: {install('reference')}"
        ) from error


# ---- check -----------------------------------------------------------------------------------


def _check_options(parser: Any) -> None:
    add = parser.add_argument
    add("image", metavar="IMAGE", nargs="?", help="an image file (default: a made-up image)")
    cli.add_bundle(parser, "bundle folder (default: as for musc-edge infer)")
    add("--reference", metavar="REF", help="a reference to check against, besides --banks")
    add("--banks", type=_banks, default=None, metavar="M[xSHARE],...",
        help="random banks of M images, with a share of their patches (default: 13,25,100x0.05,100x0.1, or "
        "none with --reference)")  # fmt: skip
    cli.add_resources(parser)
    _add_rounds(parser, 50)
    parser.set_defaults(usage_error=parser.error)


def _banks(text: str) -> tuple[str, ...]:
    from .check import BankSize

    sizes = tuple(text.split(","))
    try:
        for size in sizes:
            BankSize.parse(size)
        return sizes
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _measure_check(args: argparse.Namespace, report: Report) -> None:
    import tempfile
    from pathlib import Path

    from ...runtime.vit.bundle import find_bundle, open_bundle
    from . import check

    image = Path(args.image) if args.image is not None else None
    if image and not image.is_file():
        args.usage_error(f"there is no file {args.image!r}: give an image, or none")
    banks = args.banks if args.banks is not None else () if args.reference else _BANKS
    sizes = [check.BankSize.parse(text) for text in banks]
    reference = Path(args.reference) if args.reference else None
    bundle = open_bundle(find_bundle(args.bundle))
    with tempfile.TemporaryDirectory(prefix="musc-bench-check-") as folder:
        check.measure(bundle, image, reference, sizes, args.rounds, cli.resources(args), Path(folder), report)


_BANKS = ("13", "25", "100x0.05", "100x0.1")


# ---- peak, startup ---------------------------------------------------------------------------


def _peak_options(parser: Any) -> None:
    parser.add_argument("--threads", type=arguments.threads, help="threads (default: all cores)")
    parser.add_argument("--gpu", action="store_true", help="the GPU too, by pycuda")
    _add_rounds(parser, 10)


def _measure_peak(args: argparse.Namespace, report: Report) -> None:
    from . import gpu_peak, peak

    of_gpu = gpu_peak.measure(None, args.rounds) if args.gpu else None
    peaks = peak.measure(all_threads(args), args.rounds)
    report.samples = peak.samples(peaks)
    report.facts["peaks"] = peak.facts(peaks)
    if of_gpu:
        report.samples |= gpu_peak.samples(of_gpu)
        report.facts["gpu_peaks"] = gpu_peak.facts(of_gpu)


def _startup_options(parser: Any) -> None:
    _add_rounds(parser, 10)


def _measure_startup(args: argparse.Namespace, report: Report) -> None:
    from .startup import measure

    measure(args.rounds, report)


# ---- all of them -----------------------------------------------------------------------------


def _add_rounds(parser: Any, default: int | None = None) -> None:
    shown = default or "until the median is sure to 2 %%, or two minutes"
    parser.add_argument(
        "--rounds", type=arguments.positive, default=default, help=f"counted rounds (default: {shown})"
    )


CASES = (
    Case("lot", "the whole job and every stage of it, cold and warm", _lot_options, _measure_lot),
    Case("backbone", "the ViT over batch sizes", _backbone_options, _measure_backbone),
    Case("scorer", "mutual scoring, against its matrix products", _scorer_options, _measure_scorer),
    Case("check", "single images against references, beside the ViT alone", _check_options, _measure_check),
    Case("peak", "what this machine can do at most: products and copies", _peak_options, _measure_peak),
    Case("startup", "start of the commands, above bare Python", _startup_options, _measure_startup),
)
