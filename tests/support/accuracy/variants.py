"""Choices of the method that are measured beside each other on the same lots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musc_edge.runtime.scoring.aggregate import centre, rescale
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.position import ALIGNED, HALF, alignment, position_level
from musc_edge.runtime.scoring.rescore import rescored
from musc_edge.runtime.scoring.subspace import Moments, describe, subspaces
from musc_edge.runtime.settings import RESCORE
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array, FloatArray

from .drawn import DrawnLot
from .measured import name_of

CLS, SALIENT, NONE = RESCORE
_RESCORED = {CLS: ["rescored"], SALIENT: ["rescored by salient patches"], NONE: []}


@dataclass(frozen=True)
class Variant:
    """One set of choices.

    Attributes
    ----------
    degrees : sides of the neighborhoods; with ``residual`` the tokens stay as they are.
    median_share : share of each position's median over the lot that is subtracted before the maximum; "auto"
        is half of it where the lot is aligned, as the product decides by default.
    rescore : what makes images alike for the scores that judge: "cls" (RsCIN, with the paper's window sizes),
        "salient" (RsCon), or "none", the raw scores.
    residual : share of the variance whose components are taken off instead of comparing pairs; 0 compares.
    """

    degrees: tuple[int, ...] = (1, 3, 5)
    median_share: float | str = 0.0
    rescore: str = NONE
    residual: float = 0.0

    @property
    def name(self) -> str:
        """Such as "1,3,5, less 0.5 median, rescored"."""
        parts = [f"residual {self.residual:g}" if self.residual else name_of(self.degrees)]
        if self.median_share:
            share = self.median_share
            parts.append("median auto" if isinstance(share, str) else f"less {share:g} median")
        return ", ".join([*parts, *_RESCORED[self.rescore]])

    def maps(self, lot: DrawnLot) -> FloatArray:
        """Anomaly maps (n,Gh,Gw), from which no median is subtracted."""
        if not self.residual:
            return lot.maps(self.degrees)
        found = residuals(tokens_of(lot), lot.pool.grid, self.residual)
        return found.reshape(-1, *lot.pool.grid)

    def scores(self, lot: DrawnLot, maps: FloatArray | None = None) -> Array:
        """What judges the images of a lot (n,); ``maps`` are its own, if they are made already."""
        maps = less_median(self.maps(lot) if maps is None else maps, self.median_share)
        raw = raw_scores(maps, lot.pool.size)
        if self.rescore == SALIENT:
            store = HostStore(tokens_of(lot), lot.pool.cls[lot.rows])
            return rescored(SALIENT, raw, raw, store, maps)
        return lot.rescored(raw) if self.rescore == CLS else raw


def tokens_of(lot: DrawnLot) -> Array:
    """Patch tokens (S,n,P,C) of a lot, of a pool that has kept them."""
    if lot.pool.tokens is None:
        raise SystemExit(f"the pool of {lot.pool.product} has kept no tokens.")
    return lot.pool.tokens[:, lot.rows]


def less_median(maps: FloatArray, share: float | str) -> FloatArray:
    """Subtract a share of each position's median over the lot from maps (n,Gh,Gw)."""
    level = position_level(maps, settled_share(maps, share))
    return maps if level is None else maps - level


def settled_share(maps: FloatArray, share: float | str) -> float:
    """Return a share as a number: "auto" is decided by the maps (n,Gh,Gw)."""
    if isinstance(share, str):
        return HALF if alignment(maps) >= ALIGNED else 0.0
    return share


def residuals(tokens: Array, grid: tuple[int, int], share: float) -> FloatArray:
    """Return how far tokens (S,n,P,C) lie outside of the components with ``share`` of a layer's variance.

    Mean (n,P) over layers, of tokens that are averaged over no neighborhood.
    """
    found = [_residuals(layer, grid, share) for layer in tokens]
    return np.asarray(np.mean(found, axis=0, dtype=np.float64), np.float32)


def _residuals(tokens: Array, grid: tuple[int, int], share: float) -> FloatArray:
    described = [describe(rescale(centre(one[None])[0]), grid, (1,))[0][0] for one in tokens]
    moments = Moments.none(1, tokens.shape[2])
    for one in described:
        moments.add(Moments.of(one[None].astype(np.float64)))
    (common,) = subspaces(moments, share)
    return np.stack([common.residuals(one) for one in described])
