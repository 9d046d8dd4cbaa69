"""Lots drawn from a pool, scored by the distances that the pool keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.interval import interval_bounds, interval_mean
from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.rescore import in_distance_units, rescore
from musc_edge.runtime.settings import PAPER
from musc_edge.runtime.types import Array, FloatArray

from .pool import DEGREES, Pool
from .products import GOOD


@dataclass(frozen=True)
class DrawnLot:
    """A lot of a pool's images ``rows`` (n,); ``by_degree`` (R,n,P) are its mutual scores of each degree."""

    pool: Pool
    rows: Array
    by_degree: FloatArray

    @property
    def labels(self) -> Array:
        """Whether each image is defective (n,)."""
        return np.array([self.pool.samples[i].kind != GOOD for i in self.rows])

    def maps(self, degrees: Sequence[int]) -> FloatArray:
        """Anomaly maps (n,Gh,Gw)."""
        chosen = self.by_degree[[DEGREES.index(degree) for degree in degrees]]
        mean: FloatArray = chosen.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean.reshape(-1, *self.pool.grid)

    def raw(self, degrees: Sequence[int]) -> Array:
        """Raw scores (n,)."""
        return raw_scores(self.maps(degrees), self.pool.size)

    def rescored(self, raw: Array, neighbors: Sequence[int] = PAPER.neighbors) -> Array:
        """Scores (n,) of ``raw`` ones, in distance units."""
        return in_distance_units(rescore(raw, self.pool.cls[self.rows], neighbors), raw)


def score_drawn(pool: Pool, rows: Array, group_size: int | None = None) -> DrawnLot:
    """Score the images ``rows`` of a pool as one lot, in this order."""
    judges = choose(len(rows), group_size)
    start, stop = interval_bounds(judges.count + 1, PAPER.interval)
    _, _, layers, degrees, patches = pool.near.shape
    found = np.empty((len(rows), layers, degrees, patches), np.float32)
    for place, image in enumerate(judges.order):
        others = rows[judges.order[judges.of(place)]]
        distances = np.asarray(pool.near[rows[image], others]).reshape(judges.count, -1)
        found[image] = interval_mean(distances, start, stop).reshape(layers, degrees, patches)
    by_degree: FloatArray = found.mean(axis=1, dtype=np.float64).astype(np.float32).swapaxes(0, 1)
    return DrawnLot(pool, rows, by_degree)


def draw(rng: np.random.Generator, *parts: tuple[Array, int]) -> Array:
    """Draw so many rows of each part, without replacement, in random order."""
    rows = np.concatenate([rng.permutation(part)[:count] for part, count in parts])
    return rng.permutation(rows)
