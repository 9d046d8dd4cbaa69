"""Measure how long a check takes beside the ViT alone, for banks of several sizes, in turn in one run.

    python tests/measure/check.py LOT_DIR -b BUNDLE [--rounds 30] [--keep 13,25,50] [--patches 0.05,0.1]

The lot's images make the references; its first image is checked.  Ratios are of medians of rounds in which
all cases take turns, so that other work on the machine meets them alike; p99 by p50 means something on a
quiet machine only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from musc_edge import Checker, ReferenceOptions, list_lot, make_reference, open_bundle
from musc_edge.runtime.parallel import cores
from musc_edge.runtime.vit.extract import empty_slot
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from musc_edge.tools.bench.harness import alternate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lot")
    parser.add_argument("-b", "--bundle", required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--keep", default="13,25,50", help="images of whole banks")
    parser.add_argument("--patches", default="0.05,0.1", help="shares of the patches of all images")
    args = parser.parse_args()
    bundle, images = open_bundle(args.bundle), list_lot(args.lot)
    cases: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vit = stack.enter_context(OnnxBackend(bundle, cores()))
        pixels = np.zeros((1, 3, *bundle.manifest.preprocess.size), np.float32)
        slot = empty_slot(bundle, 1)
        cases["the ViT alone"] = lambda: vit.extract_into(pixels, slot)
        for name, options in _options(args):
            made = make_reference(images, bundle, folder / str(len(cases)), options=options)
            checker = stack.enter_context(Checker(made, bundle))
            print(name, len(made.manifest.images), "images", file=sys.stderr, flush=True)
            cases[name] = lambda checker=checker: checker.check(images[0].path)  # type: ignore[misc]
        samples = alternate(cases, args.rounds, warm_up=3)
    alone = samples[0]
    size = bundle.manifest.preprocess.size[0]
    print(f"{bundle.manifest.backbone} at {size}, {cores()} threads, {args.rounds} rounds")
    print("\n| case | median ms | by the ViT alone | p99 by p50 |\n|---|---|---|---|")
    for each in samples:
        p99 = float(np.percentile(each.seconds, 99)) / each.median
        print(f"| {each.name} | {1e3 * each.median:.0f} | {each.median / alone.median:.2f} | {p99:.2f} |")


def _options(args: argparse.Namespace) -> list[tuple[str, ReferenceOptions]]:
    """The references to time, by name."""
    whole = [int(count) for count in args.keep.split(",") if count]
    shares = [float(share) for share in args.patches.split(",") if share]
    return [(f"{n} images", ReferenceOptions(images=n, hold_out=0)) for n in whole] + [
        (f"all images, {share:.0%} of patches", ReferenceOptions(patches=share, hold_out=0))
        for share in shares
    ]


if __name__ == "__main__":
    main()
