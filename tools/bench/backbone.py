"""Case ``backbone``: time the ViT alone over batch sizes: latency, images per second, share of the peak."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np

from ...runtime import scorers
from ...runtime.errors import DeviceError
from ...runtime.store.features import DeviceStore, UploadStore
from ...runtime.types import Bundle, DeviceSlot, FeatureBackend, FloatArray, Slot
from ...runtime.vit.choose import make_backend
from ...runtime.vit.extract import empty_slot, store_shape
from .limits import Limits, graph_flop
from .peak import Yardstick
from .report import Report
from .stages import calls

WARM = 2
STAYS = ", tokens stay"
"""Behind the name of a batch whose tokens the ViT leaves on the GPU, where the scorer reads them."""


def measure(
    bundle: Bundle,
    backend: str,
    batches: Collection[int],
    threads: int,
    rounds: int,
    report: Report,
) -> None:
    """Time ``rounds`` runs of ``backend`` for each batch size, in turn, into the report's samples.

    Tokens come to the host; from a backend on the GPU they also stay there, if the scorer can use the GPU.
    """
    generator = np.random.default_rng(0)
    size = bundle.manifest.preprocess.size
    images = {batch: generator.standard_normal((batch, 3, *size), np.float32) for batch in batches}
    yardstick = Yardstick(report.yardstick)
    with ExitStack() as stack:
        store = _device_store(stack, bundle, max(batches), report) if backend != "cpu" else None
        session = stack.enter_context(make_backend(backend, bundle, threads, max(batches)))
        work = dict(_work(bundle, images, session, store))
        for number in range(WARM + rounds):
            began = time.perf_counter()
            for name, (batch, slot) in work.items():
                start = time.perf_counter()
                session.extract_into(batch, slot)
                if number >= WARM:
                    report.samples.setdefault(name, []).append(time.perf_counter() - start)
            if number >= WARM and backend == "cpu":
                yardstick.measure(time.perf_counter() - began)


def _device_store(stack: ExitStack, bundle: Bundle, batch: int, report: Report) -> DeviceStore | None:
    """Open the GPU and make room for a batch there; None, with the reason in the facts, if that cannot be."""
    try:
        device = stack.enter_context(scorers.open_gpu(bundle, []))
    except DeviceError as error:
        report.facts["tokens_stay"] = f"not measured: {error}"
        return None
    dtype = bundle.manifest.tokens[0].dtype
    tokens = device.run(lambda gpu: gpu.empty(store_shape(batch, bundle), dtype))
    return DeviceStore(device, tokens, np.empty((batch, bundle.manifest.cls_width), np.float32), batch)


def _work(
    bundle: Bundle, images: dict[int, FloatArray], session: FeatureBackend, store: DeviceStore | None
) -> Iterator[tuple[str, tuple[FloatArray, Slot | DeviceSlot]]]:
    """Yield each batch by its name, with where its tokens go."""
    there = store.for_backend(fills_device=session.fills_device) if store else None
    for batch, pixels in images.items():
        yield name_of(batch), (pixels, empty_slot(bundle, batch))
        if there and not isinstance(there, UploadStore):
            yield name_of(batch) + STAYS, (pixels, there.slot(0, batch))


def name_of(batch: int) -> str:
    """Return the name of a batch size among the samples."""
    return f"batch {batch}"


def facts(bundle: Bundle, samples: dict[str, list[float]], peaks: Limits | None) -> dict[str, Any]:
    """Return latency, throughput and share of the peak, if it is known, by batch size."""
    flop = graph_flop(bundle.model_path)
    found: dict[str, Any] = {"flop_per_image": flop}
    for name, seconds in samples.items():
        batch = int(name.removesuffix(STAYS).split()[1])
        spread = calls(np.array(seconds))
        rate = batch / spread.p50
        share = rate * flop / peaks.flops if flop and peaks else None
        found[name] = {**asdict(spread), "images_per_s": rate, "share_of_limit": share}
    return found
