"""Mutual scoring of a whole lot on the GPU, from tokens to scores in host memory, and the authors' form."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gpu.reference import Reference, choose_portion, random_tokens, synchronize
from musc_edge.kernels.precisions import INT8
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Plan
from musc_edge.tools.bench.harness import alternate
from support.scorer_checks import plan_from_host, put_on_device

DEGREES = (1, 3, 5)


def measure_whole(device: GpuThread, torch_device: str, seconds: float, *, quick: bool) -> dict[str, Any]:
    """200 images of ViT-L at 518 pixels, or a few of next to nothing; within about ``seconds``."""
    images, grid, width, layers = (6, (3, 4), 24, 2) if quick else (200, (37, 37), 1024, 4)
    end, patches = time.monotonic() + seconds, grid[0] * grid[1]
    tokens = random_tokens(torch_device, layers, images, patches, width)
    store = HostStore(tokens, np.empty((images, 0), np.float32))
    ours = CudaScorer(Method(grid, DEGREES), device)
    plan = plan_from_host(ours, store)
    facts: dict[str, Any] = {"images": images, "patches": patches, "width": width, "layers": layers}
    facts |= {"degrees": DEGREES, "plan": str(plan.device), "references": {}, "difference": {}}
    for name, parts in (("float", 2), ("half", 1)):
        reference = Reference(tokens, grid, torch_device, name == "half")
        try:
            left = (end - time.monotonic()) / parts
            facts["references"][name] = in_turn(ours, store, plan, reference, left)
            facts["difference"][name] = difference(device, store, reference)
        except (RuntimeError, MemoryError) as error:  # torch's own, such as too little memory
            facts["references"][name] = {"error": str(error)[:500]}
    facts |= resident(ours, store)
    pairs = images * (images - 1) / 2 * layers * len(DEGREES)
    return facts | {"flop": pairs * 2.0 * patches**2 * width, "notes": ours.notes}


def in_turn(
    ours: CudaScorer, store: HostStore, plan: Plan, reference: Reference, seconds: float
) -> dict[str, Any]:
    """Seconds of both, A B A B, each after a run that is not counted."""
    import torch

    layers, images = store.shape[:2]
    an_image = seconds_an_image(reference, images)
    mine = seconds_of(lambda: ours.score(store, plan))
    portion = choose_portion(images, layers, DEGREES, an_image, (seconds - 3 * mine) / 3)
    synchronize(torch, reference.device)
    cases: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.score(store, plan),
        "authors": lambda: reference.scores(range(portion.layers), portion.degrees, portion.images),
    }
    samples = {s.name: s.seconds for s in alternate(cases, rounds=2, warm_up=0)}
    return {
        "ours": samples["ours"],
        "authors": [s * portion.scale for s in samples["authors"]],
        "measured": str(portion),
    }


def seconds_an_image(reference: Reference, images: int) -> float:
    """Time of the authors' form for one image, layer and degree, with its share of making the features."""

    def some(count: int) -> float:
        return seconds_of(lambda: reference.scores(range(1), DEGREES[:1], count))

    some(1)
    one, more = some(1), some(min(images, 5))
    each = max((more - one) / (min(images, 5) - 1), 0.0)
    return each + max(one - each, 0.0) / images


def resident(ours: CudaScorer, store: HostStore) -> dict[str, Any]:
    """Seconds of ours with the tokens on the device already, and in int8; none without room for them."""
    in_int8 = replace(ours, precision=INT8)
    plan, of_int8 = (scorer.plan(store.shape, 2) for scorer in (ours, in_int8))
    there = put_on_device(ours, store, plan)
    if there is None:
        return {"resident": [], "int8": []}
    cases: dict[str, Callable[[], object]] = {
        "resident": lambda: ours.score(there, plan),
        "int8": lambda: in_int8.score(there, of_int8),
    }
    seconds = {s.name: s.seconds for s in alternate(cases, rounds=3, warm_up=1)}
    change = np.abs(in_int8.score(there, of_int8) - ours.score(there, plan)).max()
    return {**seconds, "int8_difference": float(change)}


def difference(device: GpuThread, store: HostStore, reference: Reference) -> float:
    """The largest difference of the two forms, for a layer, a degree and some images."""
    few = min(8, store.shape[1])
    scorer = CudaScorer(Method(reference.grid, DEGREES[1:2]), device)
    layer = HostStore(store.tokens[:1], store.cls)
    mine = scorer.score(layer, scorer.plan(layer.shape, 2))[:few]
    return float(np.abs(mine - reference.scores(range(1), DEGREES[1:2], few)).max())


def seconds_of(work: Callable[[], object]) -> float:
    """Time that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
