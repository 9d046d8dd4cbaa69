"""MSM, mutual scoring (paper, section 3.3, equations 3-5), on the CPU with numpy.

For a patch m of image i:  d(m; j) = min over the patches n of image j of |f_m - f_n|,  j != i;
its mutual score is the mean of the sorted d(m; j) from index int(lo*(N-1)) to int(hi*(N-1)).

The features are unit vectors, so the nearest patch is the one with the largest cosine, and one
matrix product F_i @ F_j.T serves both images: its row maxima give i's distances to j, its column maxima
j's distances to i.  That halves the authors' multiplications, and only the maxima are turned into
distances.

Cost per layer and degree: N*(N-1)/2 products of 2*P*P*C FLOP, N*N*P*4 bytes of minima.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .aggregate import check_degree, describe
from .errors import LotError
from .plan import make_plan
from .store import HostStore, host_array
from .types import Array, FeatureStore, FloatArray, Plan, Progress, no_progress

MIN_IMAGES = 5
NARROWEST = 1e-4
"""Least width of the interval: a narrower one would need lots of more than 10,000 images."""


def mutual_scores(
    tokens: Array,
    grid: tuple[int, int],
    degrees: Sequence[int] = (1, 3, 5),
    interval: tuple[float, float] = (0.0, 0.3),
) -> FloatArray:
    """Mutual score of every patch of a lot.

    Parameters
    ----------
    tokens : ndarray of shape (S, N, P, C)
        Patch tokens of S layers, raw, mean-subtracted or layer-normalised.
    grid : (Gh, Gw)
        With Gh * Gw = P.
    degrees : odd sides r of the aggregation neighborhoods.
    interval : (lo, hi), the part of the sorted distances that is averaged.

    Returns
    -------
    ndarray of shape (N, P), float32, averaged over layers and degrees.

    Raises
    ------
    LotError
        If the lot is too small for the interval, or a setting or shape is not usable.
    """
    tokens = np.asarray(tokens)
    sizes = (*tokens.shape[:1], *tokens.shape[2:], *grid)  # the number of images is judged by the interval
    if tokens.ndim != 4 or min(sizes) < 1 or grid[0] * grid[1] != tokens.shape[2]:
        raise LotError(
            f"tokens have shape {tokens.shape}, expected (S, N, P, C) with P = {grid[0]} x {grid[1]}."
        )
    if not np.isfinite(tokens).all():
        raise LotError("the tokens hold values that are not finite. Check the backend's precision.")
    scorer = NumpyScorer(grid, tuple(degrees), interval)
    store = HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
    return scorer.score(store, make_plan(store.shape, tokens.dtype.itemsize, budget=None))


def interval_bounds(images: int, interval: tuple[float, float]) -> tuple[int, int]:
    """Index range [start, stop) of the sorted distances to the other images that is averaged.

    Raises
    ------
    LotError
        If the range is empty, as it is below 5 images with the default interval.
    """
    lo, hi = _checked(interval)
    start, stop = int(lo * (images - 1)), int(hi * (images - 1))
    if stop <= start:
        raise LotError(
            f"{images} images are too few: the interval {lo}, {hi} of the distances to {max(images - 1, 0)} "
            f"other images is empty. Score at least {smallest_lot(interval)} images together."
        )
    return start, stop


def smallest_lot(interval: tuple[float, float]) -> int:
    """Least number of images for which ``interval`` is not empty, never below MIN_IMAGES."""
    lo, hi = _checked(interval)
    size = MIN_IMAGES
    while int(lo * (size - 1)) >= int(hi * (size - 1)):
        size += 1
    return size


def _checked(interval: tuple[float, float]) -> tuple[float, float]:
    """The interval itself, or LotError if it is not one."""
    lo, hi = interval
    if not (lo >= 0 and lo + NARROWEST <= hi <= 1):
        raise LotError(
            f"interval {lo}, {hi} is not usable: expected 0 <= lo < hi <= 1, at least {NARROWEST} apart."
        )
    return lo, hi


def interval_mean(distances: FloatArray, start: int, stop: int) -> FloatArray:
    """Mean of the sorted ``distances`` (K,P) from index ``start`` to ``stop`` along the first axis."""
    columns = np.ascontiguousarray(distances.T)
    columns.partition((start, stop - 1) if start else stop - 1, axis=1)
    chosen = np.sort(columns[:, start:stop], axis=1)  # one order of summation, whatever the lot's order
    mean: FloatArray = chosen.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean


@dataclass(frozen=True)
class NumpyScorer:
    """Mutual scores with numpy's matrix product; the fallback that is always there."""

    grid: tuple[int, int]
    degrees: tuple[int, ...] = (1, 3, 5)
    interval: tuple[float, float] = (0.0, 0.3)
    scratch: Path | None = None  # folder for what the plan puts on disk

    def __post_init__(self) -> None:
        if not self.degrees:
            raise LotError("no aggregation degree given: expected odd numbers such as 1,3,5.")
        for degree in self.degrees:
            check_degree(degree)

    def score(self, store: FeatureStore, plan: Plan, progress: Progress = no_progress) -> FloatArray:
        """Mutual scores (N,P) of the images in ``store``, averaged over layers and degrees.

        Raises
        ------
        LotError
            If the lot is too small for the interval.
        """
        layers, images, patches, _ = store.shape
        start, stop = interval_bounds(images, self.interval)
        rounds = [(layer, degree) for layer in range(layers) for degree in self.degrees]
        pairs = images * (images - 1) // 2
        total = np.zeros((images, patches), np.float64)
        distances = host_array((images, images, patches), np.float32, plan.minima_on_disk, self.scratch)
        for number, (layer, degree) in enumerate(rounds):

            def report(done: int, before: int = number * pairs) -> None:
                progress("score", before + done, len(rounds) * pairs, "pairs")

            self._fill(distances, store, layer, degree, plan, report)
            for i in range(images):
                total[i] += interval_mean(np.delete(distances[i], i, axis=0), start, stop)
        return (total / len(rounds)).astype(np.float32)

    def _fill(
        self,
        distances: FloatArray,
        store: FeatureStore,
        layer: int,
        degree: int,
        plan: Plan,
        report: Callable[[int], None],
    ) -> None:
        """Fill ``distances`` (N,N,P) of one layer and degree; entry [i,i] is left undefined."""
        _, images, patches, _ = store.shape
        product = np.empty((patches, plan.tile * patches), np.float32)
        blocks = [range(i, min(i + plan.resident, images)) for i in range(0, images, plan.resident)]
        done = 0
        for number, left in enumerate(blocks):
            mine = self._features(store, layer, degree, left, plan.tile)
            for right in blocks[number:]:
                others = mine if right == left else self._features(store, layer, degree, right, plan.tile)
                for i in left:
                    own = mine.cut(i - left.start, 1)
                    done += _compare(distances, i, own, right, others, product, plan.tile)
                    report(done)
                del others  # or three blocks would be in memory while the next one is made

    def _features(self, store: FeatureStore, layer: int, degree: int, images: range, tile: int) -> _Features:
        """Features of some images, made a tile at a time so that only the result is large."""
        _, _, patches, width = store.shape
        vectors = np.empty((len(images), patches, width), np.float32)
        for i0 in range(images.start, images.stop, tile):
            i1 = min(i0 + tile, images.stop)
            block = describe(store.block(layer, i0, i1), self.grid, degree)
            vectors[i0 - images.start : i1 - images.start] = block
        lengths: FloatArray = np.asarray(vectors.any(axis=2), np.float32)
        return _Features(vectors, lengths)


class _Features(NamedTuple):
    """Feature vectors (n,P,C) and their lengths (n,P): 1, or 0 for a patch without content."""

    vectors: FloatArray
    lengths: FloatArray

    def cut(self, start: int, count: int) -> _Features:
        """The features of ``count`` images."""
        return _Features(self.vectors[start : start + count], self.lengths[start : start + count])


def _compare(
    distances: FloatArray,
    i: int,
    own: _Features,
    block: range,
    others: _Features,
    product: FloatArray,
    tile: int,
) -> int:
    """Fill in the distances of image i and the images behind it in ``block``, both ways; returns how many.

    ``own`` and ``others`` are the features of image i and of the block; ``product`` is scratch.
    """
    patches, width = own.vectors.shape[1:]
    for j0, j1 in _tiles(block, i + 1, tile):
        other = others.cut(j0 - block.start, j1 - j0)
        out = product[:, : (j1 - j0) * patches]
        np.matmul(own.vectors[0], other.vectors.reshape(-1, width).T, out=out)
        cosines = out.reshape(patches, j1 - j0, patches)
        distances[i, j0:j1] = _distance(cosines.max(axis=2).T, own, other)
        distances[j0:j1, i] = _distance(cosines.max(axis=0), other, own)
    return block.stop - max(block.start, i + 1)


def _tiles(block: range, first: int, tile: int) -> Iterator[tuple[int, int]]:
    """Cut the part of ``block`` from ``first`` on at multiples of ``tile``.

    The cuts do not depend on the blocks, so every product has the same shape whatever the plan, and
    the results are the same to the last bit.
    """
    start = max(block.start, first)
    while start < block.stop:
        stop = min(start - start % tile + tile, block.stop)
        yield start, stop
        start = stop


def _distance(cosine: FloatArray, own: _Features, others: _Features) -> FloatArray:
    """Distances (n,P) of the patches of ``own`` to the nearest of ``others``; one of the two is one image.

    ``cosine`` (n,P) is the largest product with a patch of the other image.  A zero feature has no
    angle: it lies at distance 1 from every unit feature and at 0 from another zero.
    """
    squared = own.lengths + np.float32(1) - np.float32(2) * cosine
    other_has_zero = (others.lengths == 0).any(axis=1)[:, None]
    if other_has_zero.any():
        squared = np.where(other_has_zero, np.minimum(squared, own.lengths), squared)
    distance: FloatArray = np.sqrt(np.maximum(squared, np.float32(0)))
    return distance
