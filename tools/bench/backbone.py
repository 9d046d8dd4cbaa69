"""Case ``backbone``: time the ViT alone over batch sizes: latency, images per second, share of the peak."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import numpy as np

from ...runtime.types import Bundle
from ...runtime.vit.choose import make_backend
from ...runtime.vit.extract import empty_slot
from .limits import graph_flop
from .peak import Peaks, Yardstick
from .report import Report
from .stages import calls

WARM = 2


def measure(
    bundle: Bundle,
    backend: str,
    batches: Collection[int],
    threads: int,
    rounds: int,
    report: Report,
) -> None:
    """Time ``rounds`` runs of ``backend`` for each batch size, in turn, into the report's samples."""
    generator = np.random.default_rng(0)
    work = {}
    for batch in batches:
        images = generator.standard_normal((batch, 3, *bundle.manifest.preprocess.size), np.float32)
        work[name_of(batch)] = images, empty_slot(bundle, batch)
    yardstick = Yardstick(report.yardstick)
    with make_backend(backend, bundle, threads, max(batches)) as session:
        for number in range(WARM + rounds):
            began = time.perf_counter()
            for name, (images, slot) in work.items():
                start = time.perf_counter()
                session.extract_into(images, slot)
                if number >= WARM:
                    report.samples.setdefault(name, []).append(time.perf_counter() - start)
            if number >= WARM and backend == "cpu":
                yardstick.measure(time.perf_counter() - began)


def name_of(batch: int) -> str:
    """Return the name of a batch size among the samples."""
    return f"batch {batch}"


def facts(bundle: Bundle, samples: dict[str, list[float]], peaks: Peaks | None) -> dict[str, Any]:
    """Return latency, throughput and share of the peak, if it is known, by batch size."""
    flop = graph_flop(bundle.model_path)
    found: dict[str, Any] = {"flop_per_image": flop}
    for name, seconds in samples.items():
        batch = int(name.split()[1])
        spread = calls(np.array(seconds))
        rate = batch / spread.p50
        share = rate * flop / peaks.flops if flop and peaks else None
        found[name] = {**asdict(spread), "images_per_s": rate, "share_of_limit": share}
    return found
