"""Case ``lot``: time the whole job on a lot, cold and warm, and each of its stages against its limit.

Warm rounds score the lot again and again in one process: files to results, with the bundle opened and the
ViT loaded anew each time, as a run of the command does.  Cold is a process of its own, from its start to the
tokens of the first image.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from ...runtime.beginning import Watch
from ...runtime.pipeline import score_lot
from ...runtime.results.image_files import OutputOptions
from ...runtime.results.lot_result import LotResult
from ...runtime.results.write import plan_facts, write_results
from ...runtime.settings import Resources, ScoreSettings
from ...runtime.timing import StageTimer
from ...runtime.types import Bundle
from .gpu_peak import GpuPeaks
from .limits import Limits, least_gpu_work, least_work
from .peak import Peaks
from .stages import Timeline, calls, timeline

COLD_STEPS = ("start of Python", "bundle", "imports", "ViT", "first image")


@dataclass(frozen=True)
class Job:
    """The job to run: a lot, a bundle, and options as of ``musc-edge infer``."""

    lot: Path
    bundle: Path
    settings: ScoreSettings
    resources: Resources


@dataclass
class Measured:
    """The rounds of a job: seconds of each round, of its stages added over threads, and of single calls."""

    lot: list[float] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    spans: int = 0
    last: LotResult | None = None

    @property
    def on_cpu(self) -> bool:
        """True if the CPU alone did the work of the last round."""
        return self.last is not None and not _on_gpu(self.last)

    def add(self, result: LotResult, timer: StageTimer, start: float, stop: float) -> None:
        """Add one round."""
        spans = timer.spans()
        self.lot.append(stop - start)
        self.timelines.append(timeline(spans, start, stop))
        for name in self.timelines[-1].busy:
            self.calls[name] += np.diff(spans[name]).ravel().tolist()
        self.spans = sum(map(len, spans.values()))
        self.last = result

    def samples(self) -> dict[str, list[float]]:
        """Return the seconds of every round, of the lot and of each stage."""
        stages = {name: None for line in self.timelines for name in line.busy}
        rounds = {name: [line.busy.get(name, 0.0) for line in self.timelines] for name in stages}
        return {"lot": self.lot, **rounds}


def run_once(job: Job, measured: Measured | None = None) -> float:
    """Score the lot and write its results to a temporary folder; returns the seconds."""
    timer = StageTimer()
    with tempfile.TemporaryDirectory(prefix="musc-bench-") as folder:
        start = time.perf_counter()
        result = score_lot(job.lot, job.bundle, job.settings, job.resources, watch=Watch(timer=timer))
        write_results(
            result, Path(folder), job.lot, OutputOptions(threads=job.resources.workers), timer=timer
        )
        stop = time.perf_counter()
    if measured:
        measured.add(result, timer, start, stop)
    return stop - start


def cold_starts(job: Job, image: Path, rounds: int) -> dict[str, list[float]]:
    """Time each step of a new process up to the features of one image; seconds by step, for each round."""
    steps: dict[str, list[float]] = {name: [] for name in COLD_STEPS}
    command = [
        sys.executable,
        "-m",
        f"{__package__}.first_image",
        str(job.bundle),
        str(image),
        str(job.resources.workers),
        job.resources.backend,
    ]
    for _ in range(rounds):
        start = time.monotonic()
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        marks = [start, *map(float, run.stdout.split())]
        for name, before, after in zip(COLD_STEPS, marks, marks[1:], strict=False):
            steps[name].append(after - before)
    return steps


def stage_facts(
    measured: Measured, job: Job, bundle: Bundle, peaks: Peaks, of_gpu: GpuPeaks | None
) -> dict[str, Any]:
    """Summarise each stage: its share, the spread of its calls, its distance to the limit.

    ``of_gpu`` are the peaks of the GPU that some stages ran on; None if there is none, or they are not known.
    """
    result = measured.last
    if result is None:
        return {}
    images = len(result.images)
    pairs = images * result.run.judges // 2
    itemsize = np.dtype(bundle.manifest.tokens[0].dtype).itemsize
    sizes = images, pairs, result.run.judges, len(result.run.settings.degrees), itemsize
    least = least_work(bundle, *sizes)
    on_gpu = _on_gpu(result)
    limits: dict[str, Limits] = dict.fromkeys(least, peaks)
    if "compare" in on_gpu:
        least |= least_gpu_work(bundle, *sizes)
    for name in on_gpu:
        if of_gpu:
            limits[name] = of_gpu.upload if name == "upload" else of_gpu
        else:
            least.pop(name, None)
    samples = measured.samples()
    busy = {name: median(values) for name, values in samples.items() if name != "lot"}
    total = sum(busy.values())
    facts = {}
    for name, seconds in busy.items():
        # The ViT has all threads in one call; other stages have one thread for each call.
        lanes = 1 if name in ("extract", "map", *on_gpu) else job.resources.workers
        limit = least[name].seconds(limits[name]) if name in least else None
        facts[name] = {
            "busy_s": seconds,
            "share_of_busy": seconds / total,
            "calls": asdict(calls(np.array(measured.calls[name]))),
            "flop": least[name].flop if name in least else None,
            "bytes": least[name].moved if name in least else None,
            "limit_s": limit,
            "share_of_limit": limit * lanes / seconds if limit else None,
        }
    return facts


def _on_gpu(result: LotResult) -> tuple[str, ...]:
    """Return the stages that ran on a GPU."""
    vit = () if result.run.backend == "cpu" else ("extract",)
    scorer = ("load", "upload", "aggregate", "compare", "select") if result.run.scorer == "cuda" else ()
    return (*vit, *scorer)


def lot_facts(measured: Measured) -> dict[str, Any]:
    """Summarise the lot as a whole."""
    result = measured.last
    if result is None:
        return {}
    images, middle = len(result.images), median(measured.lot)
    lines = measured.timelines
    return {
        "images": images,
        "skipped": len(result.skipped),
        "lot_s": middle,
        "per_image_s": middle / images,
        "images_per_s": images / middle,
        "takt_s": max(measured.lot) / images,  # the pace of a line that even the slowest round keeps up with
        "timeline": {
            "busy_s": median(sum(line.busy.values()) for line in lines),
            "overlap_s": median(line.overlap for line in lines),
            "idle_s": median(line.idle for line in lines),
            "explained": min(line.explained for line in lines),
        },
        "scorer": result.run.scorer,
        "backend": result.run.backend,
        "plan": plan_facts(result.run.plan),
    }


def timer_cost(spans: int, lot_s: float, count: int = 20_000) -> dict[str, float]:
    """Measure the cost of the timer: seconds for a span, and all spans' share of a lot's time."""
    timer = StageTimer()
    start = time.perf_counter()
    for _ in range(count):
        with timer.work("nothing"):
            pass
    each = (time.perf_counter() - start) / count
    return {"span_s": each, "spans": spans, "share": spans * each / lot_s}


def synthetic_lot(folder: Path, images: int, side: int = 300) -> Path:
    """Fill ``folder`` with different textured images, for a machine that has no lot at hand."""
    folder.mkdir(parents=True)
    for k in range(images):
        Image.fromarray(_texture(k, side)).save(folder / f"{k:05}.png")
    return folder


def _texture(seed: int, side: int) -> Any:
    """Draw gray pixels (side,side) uint8: lines as on a product, with shade and noise by ``seed``."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    lines = 40 * ((x + generator.integers(0, 8)) % 50 < 3) + 25 * ((y + generator.integers(0, 8)) % 100 < 4)
    shade = generator.uniform(90, 140) + 20 * np.sin(x / generator.uniform(60, 120))
    noise = generator.normal(0, 6, (side, side))
    return np.clip(shade + lines + noise, 0, 255).astype(np.uint8)
