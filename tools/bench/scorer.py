"""Case ``scorer``: mutual scoring from tokens to patch scores, against its limit and the authors' form.

``floor`` is the matrix products that the scorer cannot do without (one per pair of images, layer and
degree), with nothing around them.  ``reference`` is the authors' form, written from the published
formula in torch: pooled features, ``cdist`` from each image to all others, minimum, top-k, mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.aggregate import centre, describe
from ...runtime.mutual import NumpyScorer, interval_bounds
from ...runtime.plan import make_plan
from ...runtime.store import HostStore
from ...runtime.types import Array, FloatArray
from .harness import Samples, alternate

INTERVAL = (0.0, 0.3)


@dataclass(frozen=True)
class Size:
    """A lot: N images, S layers, a grid of patches, tokens of width C, aggregation degrees."""

    images: int
    layers: int
    grid: tuple[int, int]
    width: int
    degrees: tuple[int, ...]

    @property
    def flop(self) -> float:
        """Multiplications and additions of the floor."""
        patches = self.grid[0] * self.grid[1]
        pairs = self.images * (self.images - 1) / 2
        return pairs * self.layers * len(self.degrees) * 2 * patches**2 * self.width


def measure(size: Size, rounds: int, reference: bool) -> tuple[list[Samples], float | None]:
    """Time scorer and floor, and the reference on request; also the largest difference of their results.

    Raises
    ------
    ImportError
        If the reference is asked for and torch is not installed.
    """
    tokens = synthetic_tokens(size)
    store = HostStore(tokens, np.empty((size.images, 0), np.float32))
    plan = make_plan(store.shape, 4, None)
    scorer = NumpyScorer(size.grid, size.degrees, INTERVAL)
    results: dict[str, FloatArray] = {}

    def keep(name: str, compute: Callable[[], FloatArray]) -> Callable[[], object]:
        return lambda: results.__setitem__(name, compute())

    cases: dict[str, Callable[[], object]] = {
        "floor": floor(tokens, size),
        "numpy": keep("numpy", lambda: scorer.score(store, plan)),
    }
    if reference:
        cases["reference"] = keep("reference", lambda: reference_scores(tokens, size))
    samples = alternate(cases, rounds)
    difference = float(np.abs(results["numpy"] - results["reference"]).max()) if reference else None
    return samples, difference


def synthetic_tokens(size: Size) -> FloatArray:
    """Tokens (S,N,P,C) of a lot whose images resemble each other: a common image plus noise."""
    rng = np.random.default_rng(0)
    patches = size.grid[0] * size.grid[1]
    common = rng.standard_normal((size.layers, 1, patches, size.width), np.float32)
    noise = rng.standard_normal((size.layers, size.images, patches, size.width), np.float32)
    tokens: FloatArray = common + noise
    return tokens


def floor(tokens: Array, size: Size) -> Callable[[], object]:
    """A case that does only the matrix products, in the scorer's own shapes."""
    layers, images, patches, width = tokens.shape
    tile = make_plan((layers, images, patches, width), 4, None).tile
    features = describe(tokens[0], size.grid, 1)
    product = np.empty((patches, tile * patches), np.float32)

    def run() -> None:
        for _ in range(layers * len(size.degrees)):
            for i in range(images):
                for j0 in range(i + 1, images, tile):
                    other = features[j0 : j0 + tile]
                    np.matmul(features[i], other.reshape(-1, width).T, out=product[:, : len(other) * patches])

    return run


def reference_scores(tokens: FloatArray, size: Size) -> FloatArray:
    """Mutual scores (N,P) in the authors' form, with torch."""
    import torch

    start, stop = interval_bounds(size.images, INTERVAL)
    maps = []
    with torch.no_grad():
        for degree in size.degrees:
            for layer in tokens:
                features = _pooled(torch, torch.from_numpy(centre(layer)), size.grid, degree)
                maps.append(
                    torch.stack(
                        [_reference_image(torch, features, i, start, stop) for i in range(size.images)]
                    )
                )
        scores: FloatArray = torch.stack(maps).mean(0).numpy()
    return scores


def _pooled(torch: Any, tokens: Any, grid: tuple[int, int], degree: int) -> Any:
    """Unit features (N,P,C): r x r means with zero padding."""
    images, patches, width = tokens.shape
    planes = tokens.reshape(images, *grid, width).permute(0, 3, 1, 2)
    pooled = torch.nn.functional.avg_pool2d(planes, degree, 1, degree // 2, count_include_pad=True)
    features = pooled.permute(0, 2, 3, 1).reshape(images, patches, width)
    return features / features.norm(dim=-1, keepdim=True)


def _reference_image(torch: Any, features: Any, i: int, start: int, stop: int) -> Any:
    """Mutual scores (P,) of image i."""
    images, patches, width = features.shape
    others = torch.cat((features[:i], features[i + 1 :])).reshape(-1, width)
    distances = torch.cdist(features[i : i + 1], others).reshape(patches, images - 1, patches).min(-1)[0]
    smallest = torch.topk(distances, stop, largest=False).values
    return torch.topk(smallest, stop - start, largest=True).values.mean(1)
