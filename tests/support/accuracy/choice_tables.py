"""Tables of docs/choices.md beside those of differences from the paper: rescoring, and what scoring takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from musc_edge import mutual_scores

from .choice_lots import by_lot
from .measured import Row, name_of
from .paired import difference_head, difference_line, paired
from .setup import Setup
from .variants import CLS, NONE, SALIENT, Variant, residuals

METRICS = {"auroc": "AUROC", "ap": "AP", "aupro_0.3": "AUPRO@0.3"}
SECONDS_HEAD = ("| choices | size | images | processor seconds |", "|---|---|---|---|")


def rescoring_tables(rows: Sequence[Row], choices: Sequence[Variant]) -> list[str]:
    """Tables, by metric, of what each rescoring changes of the raw scores of some choices."""
    return [line for metric in ("auroc", "ap") for line in ("", *_rescoring(rows, choices, metric))]


def _rescoring(rows: Sequence[Row], choices: Sequence[Variant], metric: str) -> list[str]:
    lines: list[str] = []
    for choice in choices:
        base = by_lot(rows, replace(choice, rescore=NONE), metric)
        lines = lines or difference_head(list(base), f"{METRICS[metric]} against the same choices, raw")
        for rescore in (CLS, SALIENT):
            variant = replace(choice, rescore=rescore)
            values = by_lot(rows, variant, metric)
            lines += [difference_line(variant.name, paired(values, base), list(base))] if values else []
    return lines


def kept_lines(path: Path, make: Callable[[], list[str]]) -> list[str]:
    """Lines of a table from the file where they are kept; else they are made, and kept."""
    if not path.exists():
        path.write_text(json.dumps(make()), encoding="utf-8")
    lines: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return lines


def seconds_table(at: Setup, size: int, choices: Mapping[str, Variant]) -> list[str]:
    """Seconds of one processor core that it takes to score a lot by some choices, the ViT apart."""
    pool = at.further_pool("mono cells", size, 0)
    assert pool.tokens is not None
    tokens = np.array(pool.tokens)
    lines = []
    for name, choice in choices.items():
        work: Callable[[], object] = partial(mutual_scores, tokens, pool.grid, choice.degrees, threads=1)
        if choice.residual:
            work = partial(residuals, tokens, pool.grid, choice.residual)
        what = choice.name if choice.residual else name_of(choice.degrees)
        lines.append(f"| {name}: {what} | {size} | {tokens.shape[1]} | {_processor_seconds(work):.1f} |")
    return lines


def _processor_seconds(work: Callable[[], object]) -> float:
    work()  # compiled code and pages of memory are there from here on
    start = time.process_time()
    work()
    return time.process_time() - start
