"""Case ``scorer``: time mutual scoring from tokens to patch scores, against its limits and the authors' form.

``floor`` is the matrix products that the scorer cannot do without, one per pair of images and layer, by
the same threads, with nothing around them.  ``floor, a product per degree`` is the limit of any form that
pools the tokens first.  ``reference`` is the authors' form, written from the published formula in torch:
pooled features, ``cdist`` from each image to all others, minimum, top-k, mean.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.parallel import in_order
from ...runtime.scorers import open_scorer
from ...runtime.scoring.aggregate import centre
from ...runtime.scoring.blas import one_thread_per_product
from ...runtime.scoring.interval import interval_bounds
from ...runtime.scoring.method import Method
from ...runtime.scoring.plan import HostNeeds
from ...runtime.scoring.protocols import MutualScorer
from ...runtime.settings import PAPER, Resources
from ...runtime.store.features import HostStore
from ...runtime.types import FloatArray
from .harness import Samples, alternate, ratios
from .report import Report

FLOOR, FLOOR_PER_DEGREE, REFERENCE = "floor", "floor, a product per degree", "reference"


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
        return pairs * self.layers * 2 * patches**2 * self.width

    @property
    def moved(self) -> float:
        """Bytes that are read or written at least: the tokens once, the cosines twice."""
        patches = self.grid[0] * self.grid[1]
        cosines = self.images * (self.images - 1) * len(self.degrees) * patches * 4
        return self.layers * (self.images * patches * self.width * 4.0 + 2.0 * cosines)


def measure(
    size: Size,
    rounds: int,
    threads: int,
    scorers: tuple[str, ...],
    reference: bool,
    report: Report,
    warm_up: int = 1,
) -> None:
    """Time scorers and floors, and the reference on request, in turn, all with ``threads`` threads.

    Raises
    ------
    ImportError
        If the reference is asked for and torch is not installed.
    DeviceError
        If a scorer is not there.
    """
    tokens = synthetic_tokens(size)
    store = HostStore(tokens, np.empty((size.images, 0), np.float32))
    results: dict[str, FloatArray] = {}
    cases: dict[str, Callable[[], object]] = {
        FLOOR: lambda: products(tokens, threads, repeat=1),
        FLOOR_PER_DEGREE: lambda: products(tokens, threads, repeat=len(size.degrees)),
    }

    def score(scorer: MutualScorer) -> None:
        plan = scorer.plan(store.shape, 4, HostNeeds(threads=threads))
        results[scorer.kind] = scorer.score(store, plan)

    name = f"N={size.images}"
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for kind in scorers:
            scorer = stack.enter_context(open_scorer(Method(size.grid, size.degrees), Resources(scorer=kind)))
            # The default argument binds this scorer; the loop's variable changes before the case is run.
            cases[kind] = lambda scorer=scorer: score(scorer)  # type: ignore[misc]
        if reference:
            cases[REFERENCE] = lambda: results.update({REFERENCE: reference_scores(tokens, size, threads)})
        try:
            alternate(cases, rounds, warm_up, into=seconds)
        finally:
            report.samples |= {f"{name} {case}": found for case, found in seconds.items()}
            report.facts[name] = _facts(size, threads, seconds, results)


def _facts(
    size: Size, threads: int, seconds: dict[str, list[float]], results: dict[str, FloatArray]
) -> dict[str, Any]:
    """Return FLOP, bytes, ratios to the floor and of the reference, and largest differences of scores."""
    rounds = min(map(len, seconds.values()), default=0)
    facts: dict[str, Any] = {"threads": threads, "flop": size.flop, "bytes": size.moved}
    if rounds == 0:
        return facts
    whole = {name: Samples(name, tuple(found[:rounds])) for name, found in seconds.items()}
    kinds = [name for name in whole if name not in (FLOOR, FLOOR_PER_DEGREE, REFERENCE)]
    facts["floor_flops"] = size.flop / whole[FLOOR].median
    facts["over_floor"] = {kind: ratios(whole[kind], whole[FLOOR]) for kind in kinds}
    if REFERENCE in whole:
        facts["reference_over"] = {kind: ratios(whole[REFERENCE], whole[kind]) for kind in kinds}
    first = results.get(REFERENCE, results[kinds[0]])
    facts["max_difference"] = {kind: float(np.abs(found - first).max()) for kind, found in results.items()}
    return facts


def synthetic_tokens(size: Size) -> FloatArray:
    """Make tokens (S,N,P,C) of a lot whose images resemble each other: a common image plus noise."""
    rng = np.random.default_rng(0)
    patches = size.grid[0] * size.grid[1]
    common = rng.standard_normal((size.layers, 1, patches, size.width), np.float32)
    noise = rng.standard_normal((size.layers, size.images, patches, size.width), np.float32)
    tokens: FloatArray = common + noise
    return tokens


def products(tokens: FloatArray, threads: int, repeat: int) -> None:
    """Compute the product of each pair of images in each layer, ``repeat`` times."""
    layers, images, patches, _ = tokens.shape

    def multiply(work: tuple[int, int]) -> None:
        layer, i = work
        product = np.empty((patches, patches), np.float32)
        for j in range(i + 1, images):
            for _ in range(repeat):
                np.matmul(tokens[layer, i], tokens[layer, j].T, out=product)

    with one_thread_per_product(threads):
        rows = [(layer, i) for layer in range(layers) for i in range(images)]
        for _ in in_order(rows, multiply, threads, ahead=2 * threads):
            pass


def reference_scores(tokens: FloatArray, size: Size, threads: int) -> FloatArray:
    """Compute mutual scores (N,P) in the authors' form, with torch."""
    import torch

    torch.set_num_threads(threads)
    start, stop = interval_bounds(size.images, PAPER.interval)
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
    """Return unit features (N,P,C): r x r means with zero padding."""
    images, patches, width = tokens.shape
    planes = tokens.reshape(images, *grid, width).permute(0, 3, 1, 2)
    # Counting the padding divides by r * r everywhere, as the authors' unfold with zeros does.
    pooled = torch.nn.functional.avg_pool2d(planes, degree, 1, degree // 2, count_include_pad=True)
    features = pooled.permute(0, 2, 3, 1).reshape(images, patches, width)
    return features / features.norm(dim=-1, keepdim=True)


def _reference_image(torch: Any, features: Any, i: int, start: int, stop: int) -> Any:
    """Compute the mutual scores (P,) of image i."""
    images, patches, width = features.shape
    others = torch.cat((features[:i], features[i + 1 :])).reshape(-1, width)
    distances = torch.cdist(features[i : i + 1], others).reshape(patches, images - 1, patches).min(-1)[0]
    # The range [start, stop) of the sorted distances: of the ``stop`` smallest, the largest ones.
    smallest = torch.topk(distances, stop, largest=False).values
    return torch.topk(smallest, stop - start, largest=True).values.mean(1)
