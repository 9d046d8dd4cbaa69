"""What the figures are held against: `infer` on the same files, the authors' code on the same features."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from musc_edge import score_lot
from musc_edge.runtime.types import Array, LotImage
from musc_edge.tools.evaluation.image_metrics import image_metrics

from .authors import authors_scores
from .drawn import DrawnLot, score_drawn
from .measured import MAIN, PAPER_DEGREES, Case, lots
from .pool import Pool, features
from .products import GOOD, SIZES
from .setup import Setup

_GOLDEN = Path(__file__).parents[2] / "data" / "elpv_mono_60.json"
_CHECKED = ("mono cells, certain", "tiles, all kinds")
_IMAGES = 30
"""Images of a lot that the authors' code scores, which takes minutes."""
_FEW = {224: 30, 294: 12, 392: 8, 518: 6}
"""Images of a lot that is scored from its files again, by image size."""


def auroc(labels: Array, scores: Array) -> float:
    """AUROC of a lot, to which a shift or scale of the scores makes no difference."""
    return float(image_metrics(labels, np.asarray(scores), 0).auroc.value)


def golden_line() -> str:
    """AUROC of the golden lot, whose scores the authors' code gave."""
    golden = json.loads(_GOLDEN.read_text(encoding="ascii"))
    labels = np.array(golden["labels"]).astype(bool)
    raw, rescored = (auroc(labels, np.array(golden[name])) for name in ("image_scores", "rescored"))
    return f"\nThe golden lot of 60 mono cells (tests/data/elpv_mono_60.json): {raw:.3f} → {rescored:.3f}."


def authors_table(at: Setup, checkout: Path) -> list[str]:
    """Lines of a table: a lot by the authors' code and by this one, on the same features."""
    head = [
        "| lot | AUROC, theirs raw → rescored | ours "
        "| largest difference: patch scores | raw | rescored (0 to 1) |",
        "|---|---|---|---|---|---|",
    ]
    return head + [
        _kept(at.work / f"authors-{number}.txt", partial(_beside_authors, at, checkout, case))
        for number, case in enumerate(MAIN)
        if case.name == _CHECKED[0]
    ]


def _beside_authors(at: Setup, checkout: Path, case: Case) -> str:
    pool = at.pool(case.product)
    lot = _lot(pool, case, _IMAGES)
    store = features(at.bundle(224), [pool.samples[i] for i in lot.rows], threads=2)
    theirs = authors_scores(checkout, store, pool.size)
    raw = lot.raw(PAPER_DEGREES)
    scores = lot.rescored(raw)
    lot_scores = (scores - raw.min()) / np.ptp(raw)
    ours = lot.maps(PAPER_DEGREES).reshape(len(raw), -1)
    return (
        f"| {case.name}, {len(raw)} images "
        f"| {auroc(lot.labels, theirs.raw):.3f} → {auroc(lot.labels, theirs.lot_scores):.3f} "
        f"| {auroc(lot.labels, raw):.3f} → {auroc(lot.labels, scores):.3f} "
        f"| {np.abs(ours - theirs.patches).max():.1e} | {np.abs(raw - theirs.raw).max():.1e} "
        f"| {np.abs(lot_scores - theirs.lot_scores).max():.1e} |"
    )


def infer_table(at: Setup, sizes: Sequence[int]) -> list[str]:
    """Lines of a table: the largest difference from scores of the same files by ``score_lot``."""
    head = ["| lot | image size | raw scores | scores | maps |", "|---|---|---|---|---|"]
    return head + [
        _kept(at.work / f"infer-{size}-{number}.txt", partial(_beside_infer, at, size, case))
        for size in sizes
        for number, case in enumerate(MAIN)
        if size in SIZES[case.product] and case.name in _CHECKED
    ]


def _beside_infer(at: Setup, size: int, case: Case) -> str:
    lot = _lot(at.pool(case.product, size), case, _FEW[size])
    raw, scores, maps = from_files(at, lot, size)
    ours = lot.raw(PAPER_DEGREES)
    return (
        f"| {case.name}, {len(ours)} images | {size} | {np.abs(ours - raw).max():.1e} "
        f"| {np.abs(lot.rescored(ours) - scores).max():.1e} "
        f"| {np.abs(lot.maps(PAPER_DEGREES) - maps).max():.1e} |"
    )


def _kept(path: Path, measure: Callable[[], str]) -> str:
    """A line from the file where it is kept; else it is measured, and kept."""
    if not path.exists():
        path.write_text(measure(), encoding="utf-8")
        print(path.name, file=sys.stderr, flush=True)
    return path.read_text(encoding="utf-8")


def from_files(at: Setup, lot: DrawnLot, size: int) -> tuple[Array, Array, Array]:
    """Raw scores, scores and maps of a lot's files, as `musc-edge infer` computes them."""
    names = [LotImage(f"{place:04}", lot.pool.samples[row].path) for place, row in enumerate(lot.rows)]
    result = score_lot(names, at.bundle(size), "paper")
    return result.raw_scores, result.scores, result.maps


def _lot(pool: Pool, case: Case, images: int) -> DrawnLot:
    """A small lot of a case, a fifth of it defective."""
    bad = min(images // 5, len(pool.of(*case.kinds)))
    good = min(images - bad, len(pool.of(GOOD)))
    return score_drawn(pool, next(lots(pool, Case(case.name, case.product, case.kinds, good, bad), 1)))
