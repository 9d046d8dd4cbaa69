"""Measure mutual scoring on a real lot: what groups, budgets and twice the images cost.

    python tests/measure/scoring.py groups BUNDLE LOT LABELS.json PLOT.png
    python tests/measure/scoring.py budgets BUNDLE LOT
    python tests/measure/scoring.py doubling BUNDLE LOT

    python tests/measure/scoring.py lot DOWNLOADS LOT LABELS.json

The last lays out a LOT of 400 solar cells from the downloaded packages, with LABELS.json, which says of each
image whether it is defective.  The others print the tables of docs/scoring.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from musc_edge.export.parity import rank_correlation
from musc_edge.runtime.images.listing import list_lot
from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.scoring.rescore import in_distance_units, rescore
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Bundle, FloatArray
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.extract import extract
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from musc_edge.tools.demo import auroc, lay_out_lot

GROUPS = (25, 50, 100, 200, None)
BUDGETS = ("500M", "1G", "4G")
THREADS = len(os.sched_getaffinity(0))


def features(bundle: Bundle, lot: Path) -> tuple[HostStore, list[str]]:
    """The features of a lot, in memory, and the images' names."""
    survey = survey_lot(list_lot(lot), ReadOptions(), THREADS)
    m = bundle.manifest
    tokens = np.empty((len(m.layers), len(survey.images), m.patches, m.token_width), m.tokens[0].dtype)
    store = HostStore(tokens, np.empty((len(survey.images), m.cls_width), np.float32))
    with OnnxBackend(bundle, THREADS) as backend:
        read, _ = extract(survey, backend, m.preprocess, store, threads=THREADS)
    return store, [image.name for image in read]


def score(bundle: Bundle, store: HostStore, group: int | None) -> tuple[FloatArray, float, float]:
    """Maps (N,Gh,Gw), seconds, and the largest error of the forecast, from a tenth of the work on."""
    scorer = CpuScorer(Method(bundle.manifest.grid, group_size=group))
    plan = scorer.plan(store.shape, 4, HostNeeds(threads=THREADS))
    marks: list[tuple[float, float]] = []
    start = time.perf_counter()

    def note(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "score":
            marks.append((time.perf_counter() - start, done / total))

    maps = scorer.score(store, plan, note).reshape(-1, *bundle.manifest.grid)
    seconds = time.perf_counter() - start
    begun = marks[0][0]
    guesses = [begun + (at - begun) / share for at, share in marks if 0.1 <= share < 1]
    off = max(abs(guess - seconds) / seconds for guess in guesses)
    return maps, seconds, off


def measure_groups(bundle: Bundle, lot: Path, labels: dict[str, bool], plot: Path) -> None:
    """The price of scoring each image by M others instead of by all."""
    store, names = features(bundle, lot)
    rows: list[dict[str, Any]] = []
    for group in reversed(GROUPS):
        maps, seconds, off = score(bundle, store, group)
        raw = raw_scores(maps, bundle.manifest.preprocess.size)
        rescored = in_distance_units(rescore(raw, store.cls), raw)
        if group is None:
            exact_maps, exact = maps, raw
        rows.append({
            "M": group or "all", "s": seconds, "off": off,
            "raw": auroc(dict(zip(names, raw, strict=True)), labels),
            "rescored": auroc(dict(zip(names, rescored, strict=True)), labels),
            "rank": rank_correlation(raw, exact), "change": float(np.abs(raw - exact).mean()),
            "map": float(np.abs(maps - exact_maps).mean()),
        })  # fmt: skip
    print("| M | seconds | AUROC raw | AUROC rescored | rank correlation with all | mean change of a raw "
          "score | of a patch | error of the forecast, at most |\n|" + "---|" * 8)  # fmt: skip
    for r in rows[::-1]:
        print(f"| {r['M']} | {r['s']:.1f} | {r['raw']:.4f} | {r['rescored']:.4f} | {r['rank']:.4f} | "
              f"{r['change']:.4f} | {r['map']:.4f} | {r['off']:.0%} |")  # fmt: skip
    draw(rows[::-1], len(names), plot)


def draw(rows: list[dict[str, Any]], images: int, path: Path) -> None:
    """Time and accuracy over M."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = [images - 1 if r["M"] == "all" else r["M"] for r in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(sizes, [r["s"] for r in rows], "o-", color="#1b6ca8")
    left.set(xlabel="other images that score an image", ylabel="seconds of mutual scoring", xlim=0, ylim=0)
    right.plot(sizes, [r["rank"] for r in rows], "^:", color="#555555", label="rank correlation with all")
    right.plot(sizes, [r["raw"] for r in rows], "o-", color="#1b6ca8", label="AUROC of the raw score")
    right.plot(sizes, [r["rescored"] for r in rows], "s--", color="#c8553d", label="AUROC of the score")
    right.set(xlabel="other images that score an image", xlim=0, ylim=(0.85, 1.005))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def measure_budgets(bundle: Path, lot: Path) -> None:
    """Peak memory of the whole command, measured from outside, and whether the results are the same bytes."""
    print(
        "| budget | peak memory | plan | features | distances | seconds | scores.csv and maps |\n|"
        + "---|" * 7
    )
    digests = set()
    for budget in BUDGETS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            command = [sys.executable, "-m", "musc_edge.tools.edge", "infer", str(lot), "-b", str(bundle)]
            command += ["-o", str(out), "--memory-budget", budget, "--json"]
            start = time.monotonic()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout
            plan = json.loads(process.stdout.read())["plan"]
            _, _, usage = os.wait4(process.pid, 0)
            files = [out / "scores.csv", *sorted((out / "maps").rglob("*.npy"))]
            digests.add(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest())
        where = {True: "file", False: "memory"}
        print(f"| {budget} | {usage.ru_maxrss * 1024 / 1e6:.0f} MB | {plan['memory_bytes'] / 1e6:.0f} MB | "
              f"{where[plan['tokens_on_disk']]} | {where[plan['cosines_on_disk']]} | "
              f"{time.monotonic() - start:.0f} | {'the same' if len(digests) == 1 else 'DIFFERENT'} |",
              flush=True)  # fmt: skip


def measure_doubling(bundle: Bundle, lot: Path) -> None:
    """Time of N and 2N images, in turn."""
    store, _ = features(bundle, lot)
    print("| judges | N | seconds: smallest, median, largest | error of the forecast, at most | ratio |")
    print("|" + "---|" * 5)
    for group, sizes in ((None, (80, 160)), (24, (160, 320))):
        times: dict[int, list[float]] = {size: [] for size in sizes}
        off: dict[int, list[float]] = {size: [] for size in sizes}
        score(bundle, store.first(sizes[0]), group)
        for _ in range(3):
            for size in sizes:
                _, seconds, error = score(bundle, store.first(size), group)
                times[size].append(seconds)
                off[size].append(error)
        ratios = [b / a for a, b in zip(*times.values(), strict=True)]
        for size, taken in times.items():
            spread = (
                f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                if size == sizes[1]
                else ""
            )
            row = [
                str(group or "all"),
                str(size),
                f"{min(taken):.1f}, {np.median(taken):.1f}, {max(taken):.1f}",
            ]
            print("| " + " | ".join([*row, f"{max(off[size]):.0%}", spread]) + " |", flush=True)


def main() -> None:
    what, *paths = sys.argv[1:]
    places = [Path(path) for path in paths]
    if what == "lot":
        places[2].write_text(json.dumps(lay_out_lot(places[0], places[1], 300, 100)), encoding="utf-8")
    elif what == "groups":
        labels = json.loads(places[2].read_text(encoding="utf-8"))
        measure_groups(open_bundle(places[0]), places[1], labels, places[3])
    elif what == "budgets":
        measure_budgets(places[0], places[1])
    else:
        measure_doubling(open_bundle(places[0]), places[1])


if __name__ == "__main__":
    main()
