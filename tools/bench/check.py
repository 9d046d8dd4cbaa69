"""Case ``check``: time single images against references of several sizes, in turn with the ViT alone.

A bank of random tokens stands for a reference of its size, since time depends on sizes alone; all else is a
real check of a file: reading, ViT, comparison, p-value.  Cases take turns, so that other work on the machine
meets them alike.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ...runtime.errors import LotError
from ...runtime.images.listing import list_lot
from ...runtime.reference.checker import Checker
from ...runtime.reference.files import open_reference
from ...runtime.reference.make import ReferenceOptions, make_reference
from ...runtime.scoring.image_pairs import best_filter, load_filter
from ...runtime.scoring.method import Method
from ...runtime.scoring.row import Bank, PatchBank, RowScorer, WholeBank
from ...runtime.settings import Resources
from ...runtime.types import Array, Bundle
from ...runtime.vit.extract import empty_slot
from .harness import alternate
from .lot import synthetic_lot
from .report import Report
from .stages import calls

ALONE = "the ViT alone"
WARM = 3
_FEW = 6
"""Images of the reference whose bank is exchanged for random ones."""


@dataclass(frozen=True)
class BankSize:
    """A bank of so many ``images``, with a ``share`` of the patches of each."""

    images: int
    share: float = 1

    @classmethod
    def parse(cls, text: str) -> BankSize:
        """Parse "13" or "100x0.05"; ValueError if it is neither."""
        found = re.fullmatch(r"(\d{1,5})(?:x(0?\.\d+|1))?", text, re.ASCII)
        if not found or not int(found[1]) or not float(found[2] or 1):
            raise ValueError(f"{text!r}: expected images, or images x share of patches, as in 13,100x0.05")
        return cls(int(found[1]), float(found[2] or 1))

    def __str__(self) -> str:
        return f"{self.images} images" + ("" if self.share == 1 else f", {100 * self.share:g} % of patches")

    def bank(self, bundle: Bundle, threads: int) -> Bank:
        """Make a bank of random tokens."""
        m = bundle.manifest
        method, layers = Method(m.grid), len(m.layers)
        draw, degrees = np.random.default_rng(0), len(method.degrees)
        if self.share < 1:
            kept = max(1, round(self.share * m.patches))
            shape = degrees, kept, self.images, m.token_width
            hollow = np.zeros((layers, self.images, degrees), bool)
            return PatchBank(method, [_unit(draw, shape) for _ in range(layers)], hollow)
        tokens = [_unit(draw, (self.images, m.patches, m.token_width)) for _ in range(layers)]
        lengths = np.ones((layers, self.images, degrees, m.patches), np.float32)
        return WholeBank(method, load_filter(best_filter("auto")[0]), tokens, lengths, threads)


def _unit(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = draw.standard_normal(shape, np.float32)
    values /= np.sqrt(shape[-1])
    return values


def measure(
    bundle: Bundle,
    image: Path | None,
    reference: Path | None,
    sizes: Sequence[BankSize],
    rounds: int,
    resources: Resources,
    folder: Path,
    report: Report,
) -> None:
    """Time ``rounds`` checks of each case, in turn, into the report's samples.

    ``folder`` is for made-up images and the small reference that banks of random tokens need.
    """
    cases: dict[str, Callable[[], object]] = {}
    busy: dict[str, list[float]] = {}
    with ExitStack() as stack:
        lot = list_lot(synthetic_lot(folder / "lot", _FEW))
        image = image or lot[0].local
        if reference:
            checker = stack.enter_context(Checker(open_reference(reference), bundle, resources=resources))
            cases[str(reference)] = partial(_check, checker, image)
        if sizes:
            made = make_reference(lot, bundle, folder / "ref", options=ReferenceOptions(hold_out=0))
            checker = stack.enter_context(Checker(made, bundle, resources=resources))
        for size in sizes:
            row = stack.enter_context(RowScorer(size.bank(bundle, resources.workers), resources.workers))
            cases[str(size)] = partial(_check_with, checker, row, image)
        pixels = np.zeros((1, 3, *bundle.manifest.preprocess.size), np.float32)
        cases = {ALONE: lambda: checker._vit.extract_into(pixels, empty_slot(bundle, 1)), **cases}
        timed = {
            name: partial(_on_processor, case, busy.setdefault(name, [])) for name, case in cases.items()
        }
        try:
            alternate(timed, rounds, WARM, report.samples)
        finally:
            report.facts = facts(report.samples, busy)


def facts(samples: dict[str, list[float]], busy: dict[str, list[float]]) -> dict[str, Any]:
    """Return percentiles by case, and the medians as ratios to those of the ViT alone.

    ``cpu_s`` is the time on the processor, over all threads, which other work on the machine hardly changes.
    """
    found: dict[str, Any] = {}
    for name, seconds in samples.items():
        if not seconds or not samples[ALONE]:
            continue
        own, alone = median(busy[name][WARM:]), median(busy[ALONE][WARM:])
        found[name] = {
            **asdict(calls(np.array(seconds))),
            "over_vit": median(seconds) / median(samples[ALONE]),
            "cpu_s": own,
            "cpu_over_vit": own / alone if alone else None,
        }
    return found


def _on_processor(case: Callable[[], object], busy: list[float]) -> None:
    start = time.process_time()
    case()
    busy.append(time.process_time() - start)


def _check(checker: Checker, image: Path) -> None:
    found = checker.check(image)
    if found.status != "ok":
        raise LotError(f"{image} cannot be checked: {found.error}")


def _check_with(checker: Checker, row: RowScorer, image: Path) -> None:
    """Check an image with another bank than the checker's own."""
    checker._rows = [row]
    _check(checker, image)
