"""Measure how long a check takes beside the ViT alone, for banks of several sizes, in turn in one run.

    python tests/measure/check.py LOT_DIR -b BUNDLE [--rounds 30] [--banks 13,25,50,100x0.05,100x0.1]

A bank is a number of images, or images x a share of their patches.  Banks hold random tokens, since time
depends on sizes alone, so that no lot of a hundred images has to be described first; all else is a real
check of the lot's first image: reading, ViT, comparison, p-value.  Ratios are of medians of rounds in which
all cases take turns, so that other work on the machine meets them alike; p99 by p50 means something on a
quiet machine only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from musc_edge import Bundle, Checker, ReferenceOptions, list_lot, make_reference, open_bundle
from musc_edge.runtime.parallel import cores
from musc_edge.runtime.scoring.image_pairs import best_filter, load_filter
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.row import Bank, PatchBank, RowScorer, WholeBank
from musc_edge.runtime.types import Array
from musc_edge.runtime.vit.extract import empty_slot
from musc_edge.tools.bench.harness import alternate

FEW = 6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lot")
    parser.add_argument("-b", "--bundle", required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--banks", default="13,25,50,100x0.05,100x0.1")
    args = parser.parse_args()
    bundle, images = open_bundle(args.bundle), list_lot(args.lot)
    cases: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = ReferenceOptions(hold_out=0)
        made = make_reference(images[:FEW], bundle, folder / "ref", options=options)
        checker = stack.enter_context(Checker(made, bundle))
        pixels = np.zeros((1, 3, *bundle.manifest.preprocess.size), np.float32)
        cases["the ViT alone"] = lambda: checker._vit.extract_into(pixels, empty_slot(bundle, 1))
        for name in args.banks.split(","):
            row = stack.enter_context(RowScorer(random_bank(name, bundle), cores()))
            cases[name] = partial(check, checker, row, images[0].path)
        busy: dict[str, list[float]] = {name: [] for name in cases}
        timed = {name: partial(on_processor, case, busy[name]) for name, case in cases.items()}
        samples = alternate(timed, args.rounds, warm_up=3)
    size = bundle.manifest.preprocess.size[0]
    print(f"{bundle.manifest.backbone} at {size}, {cores()} threads, {args.rounds} rounds", file=sys.stderr)
    print("| bank | median ms | by the ViT alone | p99 by p50 | processor ms | by the ViT alone |")
    print("|---|---|---|---|---|---|")
    alone = np.median(busy[samples[0].name][-args.rounds :])
    for each in samples:
        p99 = float(np.percentile(each.seconds, 99)) / each.median
        ratio = each.median / samples[0].median
        own = np.median(busy[each.name][-args.rounds :])
        processor = f"{1e3 * own:.0f} | {own / alone:.2f}"
        print(f"| {each.name} | {1e3 * each.median:.0f} | {ratio:.2f} | {p99:.2f} | {processor} |")


def on_processor(case: Callable[[], object], busy: list[float]) -> None:
    """Run a case and note the time on the processor, which other work on the machine hardly changes."""
    start = time.process_time()
    case()
    busy.append(time.process_time() - start)


def check(checker: Checker, row: RowScorer, image: Path) -> None:
    """Check an image with another bank than the checker's own."""
    checker._row = row
    assert checker.check(image).status == "ok"


def random_bank(name: str, bundle: Bundle) -> Bank:
    """A bank of so many images, or images x a share of their patches."""
    count, _, share = name.partition("x")
    m, images = bundle.manifest, int(count)
    method, layers = Method(m.grid), len(m.layers)
    draw = np.random.default_rng(0)
    if share:
        kept = max(1, round(float(share) * m.patches))
        shape = len(method.degrees), kept, images, m.token_width
        hollow = np.zeros((layers, images, len(method.degrees)), bool)
        return PatchBank(method, [_unit(draw, shape) for _ in range(layers)], hollow)
    tokens = [_unit(draw, (images, m.patches, m.token_width)) for _ in range(layers)]
    lengths = np.ones((layers, images, len(method.degrees), m.patches), np.float32)
    return WholeBank(method, load_filter(best_filter("auto")[0]), tokens, lengths, cores())


def _unit(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = draw.standard_normal(shape, np.float32)
    values /= np.sqrt(shape[-1])
    return values


if __name__ == "__main__":
    main()
