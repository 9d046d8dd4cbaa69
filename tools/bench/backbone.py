"""Case ``backbone``: the ViT alone, over batch sizes: latency, images per second, share of the peak."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from ...runtime.onnx_backend import OnnxBackend
from ...runtime.types import Bundle, Slot
from .limits import graph_flop
from .peak import Peaks
from .stages import calls

WARM = 2


def measure(
    bundle: Bundle, batches: Iterable[int], threads: int, rounds: int, samples: dict[str, list[float]]
) -> None:
    """Add to ``samples`` the seconds of ``rounds`` runs for each batch size, all sizes in turn."""
    m = bundle.manifest
    generator = np.random.default_rng(0)
    work = {}
    for batch in batches:
        images = generator.standard_normal((batch, 3, *m.preprocess.size), np.float32)
        tokens = np.empty((len(m.layers), batch, m.patches, m.token_width), m.tokens[0].dtype)
        work[name_of(batch)] = images, Slot(tokens, np.empty((batch, m.cls_width), np.float32))
    with OnnxBackend(bundle, threads) as backend:
        for number in range(WARM + rounds):
            for name, (images, slot) in work.items():
                start = time.perf_counter()
                backend.extract_into(images, slot)
                if number >= WARM:
                    samples.setdefault(name, []).append(time.perf_counter() - start)


def name_of(batch: int) -> str:
    """The name of a batch size among the samples."""
    return f"batch {batch}"


def facts(bundle: Bundle, samples: dict[str, list[float]], peaks: Peaks) -> dict[str, Any]:
    """Latency, throughput and share of the matrix-product peak, by batch size."""
    flop = graph_flop(bundle.model_path)
    found: dict[str, Any] = {"flop_per_image": flop}
    for name, seconds in samples.items():
        batch = int(name.split()[1])
        spread = calls(np.array(seconds))
        rate = batch / spread.p50
        share = rate * flop / peaks.flops if flop else None
        found[name] = {**asdict(spread), "images_per_s": rate, "share_of_limit": share}
    return found
