"""Mutual scoring in the authors' form, in torch, and what the device can do at most, measured by torch.

The form: pooled unit features; for each image ``cdist`` to the features of all others, the minimum over
each other image, top-k, mean.  The authors' features are half precision, and their scoring is float.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from musc_edge.runtime.scoring.interval import interval_bounds
from musc_edge.runtime.settings import PAPER
from musc_edge.runtime.types import Array, FloatArray
from musc_edge.tools.bench.scorer import _pooled, _reference_image


def synchronize(torch: Any, device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds_of(torch: Any, device: str, work: Callable[[], object], repeats: int) -> list[float]:
    """Time of each of ``repeats`` runs, by events on a GPU, after three that are not counted."""
    taken = []
    for number in range(3 + repeats):
        if device == "cpu":
            before = time.perf_counter()
            work()
            seconds = time.perf_counter() - before
        else:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            seconds = start.elapsed_time(end) / 1000
        if number >= 3:
            taken.append(seconds)
    return taken


def peaks(device: str, *, quick: bool) -> dict[str, Any]:
    """FLOP/s of a product of halves and bytes/s of a copy, read and written bytes both counted."""
    import torch

    side, copied = (64, 1 << 16) if quick else (8192, 1 << 30)
    a, b = (torch.randn(side, side, device=device).half() for _ in range(2))
    source, target = (torch.randn(copied // 4, device=device) for _ in range(2))
    product = seconds_of(torch, device, lambda: a @ b, 10)
    copy = seconds_of(torch, device, lambda: target.copy_(source), 10)
    return {
        "flops": 2.0 * side**3 / median(product),
        "bytes_per_s": 2.0 * copied / median(copy),
        "product_seconds": product,
        "copy_seconds": copy,
        "torch": torch.__version__,
    }


def random_tokens(device: str, layers: int, images: int, patches: int, width: int) -> Array:
    """Tokens (S,N,P,C) in half precision: a common image plus noise, drawn on the device for speed."""
    import torch

    torch.manual_seed(0)
    tokens = np.empty((layers, images, patches, width), np.float16)
    for layer in tokens:
        common = torch.randn(patches, width, device=device)
        for i in range(images):
            layer[i] = (common + 0.3 * torch.randn(patches, width, device=device)).half().cpu().numpy()
    return tokens


@dataclass(frozen=True)
class Reference:
    """The authors' form for some layers, degrees and images of a lot."""

    tokens: Array
    grid: tuple[int, int]
    device: str
    half: bool = False

    def scores(self, layers: range, degrees: tuple[int, ...], images: int) -> FloatArray:
        """Mutual scores (images,P) of the first ``images``, averaged over ``layers`` and ``degrees``."""
        import torch

        count = self.tokens.shape[1]
        start, stop = interval_bounds(count, PAPER.interval)
        maps = []
        with torch.no_grad():
            for layer in layers:
                for degree in degrees:
                    features = self._features(torch, layer, degree)
                    rows = [_reference_image(torch, features, i, start, stop) for i in range(images)]
                    maps.append(torch.stack(rows).float())
                    del features
        scores: FloatArray = torch.stack(maps).mean(0).cpu().numpy()
        if self.device == "cuda":
            torch.cuda.empty_cache()  # ours must find the memory that it planned with
        return scores

    def _features(self, torch: Any, layer: int, degree: int) -> Any:
        tokens = torch.from_numpy(self.tokens[layer]).to(self.device).float()
        tokens -= tokens.mean((1, 2), keepdim=True)
        features = _pooled(torch, tokens, self.grid, degree)
        return features.half() if self.half else features


@dataclass(frozen=True)
class Portion:
    """How much of the whole work the reference does in a round, so that it fits the time there is."""

    layers: int
    degrees: tuple[int, ...]
    images: int
    scale: float

    def __str__(self) -> str:
        if self.scale == 1:
            return "all of it"
        degrees = ", ".join(map(str, self.degrees))
        return f"{self.images} images, {self.layers} layer(s), degree(s) {degrees}, times {self.scale:.1f}"


def choose_portion(
    images: int, layers: int, degrees: tuple[int, ...], seconds_an_image: float, allowed: float
) -> Portion:
    """The largest of: everything, a layer, a degree of it, some images of that; within ``allowed`` seconds.

    ``seconds_an_image`` is for one image, layer and degree.
    """
    whole = images * layers * len(degrees)
    choices = [(layers, degrees, images), (1, degrees, images), (1, degrees[:1], images)]
    for some_layers, some_degrees, some_images in choices:
        work = some_layers * len(some_degrees) * some_images
        if work * seconds_an_image <= allowed:
            return Portion(some_layers, some_degrees, some_images, whole / work)
    few = max(1, min(images, int(allowed / seconds_an_image)))
    return Portion(1, degrees[:1], few, whole / few)
