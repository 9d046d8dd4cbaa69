"""Rescoring: smooth image scores over images that are alike.

RsCIN (paper, section 3.4): smooth image scores over images whose CLS embeddings are alike.

With scores s scaled to 0-1 over the lot and W the cosine similarity of the CLS embeddings, keep for
each window size k the k largest entries of every row of W (the image itself counts), divide the row
by its sum, and multiply with s; the result is the mean over all k.  Of equal similarities the image
that comes first in the lot is kept.

Rows sum to one, so rescoring commutes with affine maps and the result can be given back in distance
units, in which lots can be compared; the 0-1 value of the worst image of a perfect lot is high too.

RsCon, as in MuSc-V2 (arXiv 2511.10047), of which no code and no formula could be had here: the same with the
token of each image's most suspicious patch in place of the CLS embedding, and k = 1, 7.  Images that are
suspicious for the same thing support each other, and one that is so by chance is brought down by those which
have the like and score low.  The patch is the one with the largest mutual score; its token is taken from all
layers, each of unit length, so that W is the mean over the layers of their cosines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import LotError
from ..settings import PAPER, RESCORE
from ..types import Array, FeatureStore, FloatArray
from .blocks import ByBlocks, here, row_blocks

_, SALIENT, NONE = RESCORE
SALIENT_NEIGHBORS = (1, 7)
"""Window sizes of RsCon, the image itself counted."""


def rescore(
    scores: Array, cls: Array, neighbors: Sequence[int] = PAPER.neighbors, by_blocks: ByBlocks = here
) -> Array:
    """Smooth image scores over images that look alike: RsCIN (paper, section 3.4).

    Parameters
    ----------
    scores : ndarray of shape (N,)
        Raw scores in any unit.
    cls : ndarray of shape (N, D)
        CLS embeddings, L2-normalised.
    neighbors : sequence of int, default (1, 2, 3)
        Window sizes k, the image itself counted; k above N counts as N.
    by_blocks : ByBlocks
        Who works on blocks of rows of W.

    Returns
    -------
    ndarray of shape (N,), float64
        The paper's values from 0 to 1; all zero if all scores are equal.

    Raises
    ------
    LotError
        If shapes do not fit, a value is not finite, or a window size is below 1.
    """
    scores, cls = np.asarray(scores, np.float64), np.asarray(cls, np.float32)
    neighbors = tuple(neighbors)
    _check(scores, cls, neighbors)
    spread = np.ptp(scores)
    if spread == 0:
        return np.zeros_like(scores)
    scaled = (scores - scores.min()) / spread
    windows = [min(k, len(scores)) for k in neighbors]
    blocks = by_blocks(smooth, row_blocks(len(scores)), scaled, cls, np.array(windows))
    rescored: Array = np.concatenate(list(blocks))
    return rescored


def salient_tokens(store: FeatureStore, maps: FloatArray) -> FloatArray:
    """Return the token of each image's patch with the largest mutual score, of all layers: (N, S * C).

    L2-normalised.

    Parameters
    ----------
    store : FeatureStore
        Tokens of shape (S, N, P, C).
    maps : ndarray of shape (N, Gh, Gw)
    """
    layers, count, _, width = store.shape
    found = np.zeros((count, layers, width), np.float32)
    patches = np.nanargmax(maps.reshape(count, -1), axis=1)
    for layer in range(layers):
        for row, token in enumerate(store.picked(layer, patches).astype(np.float32)):
            length = np.linalg.norm(token)
            if length > 0:
                found[row, layer] = token / (length * np.sqrt(layers))
    return found.reshape(count, layers * width)


def rescored(
    kind: str,
    raw: Array,
    lot_scores: Array,
    store: FeatureStore,
    maps: FloatArray,
    by_blocks: ByBlocks = here,
) -> Array:
    """Return the column ``score`` (N,) by ``ScoreSettings.rescore``; ``lot_scores`` are those of RsCIN.

    ``maps`` (N,Gh,Gw) are those that the raw scores are the maxima of.
    """
    if kind == NONE:
        return raw
    if kind == SALIENT:
        lot_scores = rescore(raw, salient_tokens(store, maps), SALIENT_NEIGHBORS, by_blocks)
    return in_distance_units(lot_scores, raw)


def in_distance_units(lot_scores: Array, raw_scores: Array) -> Array:
    """Map rescored values (N,) from 0-1 back to the range of the raw scores (N,)."""
    low, high = float(raw_scores.min()), float(raw_scores.max())
    return low + (high - low) * lot_scores


def smooth(rows: range, scaled: Array, cls: Array, windows: Array) -> Array:
    """Average the scores of the most similar images, weighted and over all windows, for some rows of W.

    Where the weights of a window do not sum to something positive (similarities of opposite sign),
    the image keeps its own score.
    """
    similarity = cls[rows.start : rows.stop] @ cls.T
    own, most = scaled[rows.start : rows.stop], int(windows.max())
    # Cumulative sums over the neighbors, sorted once, give every window size at the same time.
    nearest = _largest(similarity, most)
    weights = np.take_along_axis(similarity, nearest, axis=1).astype(np.float64)
    total = weights.cumsum(axis=1)
    weighted = (weights * scaled[nearest]).cumsum(axis=1)
    averages = np.divide(weighted, total, out=np.repeat(own[:, None], most, axis=1), where=total > 0)
    mean: Array = averages[:, windows - 1].mean(axis=1)
    return mean


def _largest(similarity: Array, count: int) -> Array:
    """Return the columns (n,count) of the largest of each row, the largest first; of equal ones the first."""
    order = -similarity
    limits = np.partition(order, count - 1, axis=1)[:, count - 1]
    found = np.empty((len(order), count), np.int64)
    for row, (values, limit) in enumerate(zip(order, limits, strict=True)):
        among = np.flatnonzero(values <= limit)
        found[row] = among[np.argsort(values[among], kind="stable")[:count]]
    return found


def _check(scores: Array, cls: Array, neighbors: Sequence[int]) -> None:
    if scores.ndim != 1 or cls.ndim != 2 or len(scores) != len(cls) or len(scores) == 0:
        raise LotError(f"scores {scores.shape} and cls {cls.shape}: expected (N,) and (N, D).")
    if not neighbors or min(neighbors) < 1:
        raise LotError(f"neighbors {tuple(neighbors)}: expected window sizes of 1 or more, such as 1,2,3.")
    if not (np.isfinite(scores).all() and np.isfinite(cls).all()):
        raise LotError("scores or CLS embeddings hold values that are not finite.")
