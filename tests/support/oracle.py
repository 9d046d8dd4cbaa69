"""The MuSc algorithm in plain float64 loops: slow, obvious, and sharing no code with the package.

It follows the paper (arXiv 2401.16753) and the authors' released code step by step, so that a reader can
check it against either.  The tests hold the package's fast implementations against it.  Letters: ``N``
images, ``S`` layers, ``P = Gh * Gw`` patches of the grid, ``C`` the token width, ``D`` the CLS width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.floating[Any]]


def layer_norm(image: Floats) -> Floats:
    """One image's tokens (P,C), normalised over all P*C values together, no affine, eps 1e-5."""
    shifted = image - image[0, 0]  # changes no result, and makes a constant image exactly zero
    centred = shifted - shifted.mean()
    normed: Floats = centred / np.sqrt((centred**2).mean() + 1e-5)
    return normed


def aggregate(image: Floats, grid: tuple[int, int], degree: int) -> Floats:
    """LNAMD: each token becomes the mean of its degree x degree neighborhood; outside the grid is zero.

    The padded zeros are counted, so the divisor is degree**2 at the border too.
    """
    Gh, Gw = grid
    tokens = image.reshape(Gh, Gw, -1)
    reach = (degree - 1) // 2
    pooled = np.zeros_like(tokens)
    for y in range(Gh):
        for x in range(Gw):
            for v in range(max(0, y - reach), min(Gh, y + reach + 1)):
                for u in range(max(0, x - reach), min(Gw, x + reach + 1)):
                    pooled[y, x] += tokens[v, u]
    return pooled.reshape(Gh * Gw, -1) / degree**2


def normalise(tokens: Floats) -> Floats:
    """Each row divided by its Euclidean length; a zero row stays zero."""
    unit = np.zeros_like(tokens)
    for p, token in enumerate(tokens):
        length = np.sqrt((token**2).sum())
        if length > 0:
            unit[p] = token / length
    return unit


def mutual_scores(
    tokens: Numbers,
    grid: tuple[int, int],
    degrees: Sequence[int],
    interval: tuple[float, float],
    *,
    burn_out: bool = False,
    copies: Sequence[Sequence[int]] = (),
) -> Floats:
    """Anomaly maps on the grid (N,P) of tokens (S,N,P,C): MSM averaged over the layers and the degrees.

    For each patch: its distance to every *other* image (to that image's nearest patch), sorted; then the
    mean of the sorted distances from int(lo*K) up to, not including, int(hi*K), of K = N-1 distances; with
    ``burn_out`` of as many, from where ``burnt`` says.  Distances among ``copies``, groups of images, do not
    count.
    """
    S, N, P, _ = tokens.shape
    total = np.zeros((N, P))
    for degree in degrees:
        for layer in range(S):
            images = [layer_norm(image.astype(np.float64)) for image in tokens[layer]]
            units = [normalise(aggregate(image, grid, degree)) for image in images]
            for i in range(N):
                for p in range(P):
                    distances = []
                    for j in range(N):
                        if j != i and not any({i, j} <= set(group) for group in copies):
                            squares = ((units[j] - units[i][p]) ** 2).sum(axis=1)
                            distances.append(float(np.sqrt(squares.min())))
                    first, last = int(interval[0] * len(distances)), int(interval[1] * len(distances))
                    later = burnt(sorted(distances), last) if burn_out else 0
                    total[i, p] += np.mean(sorted(distances)[first + later : last + later])
    mean: Floats = total / (S * len(degrees))
    return mean


def burnt(s: Sequence[float], last: int) -> int:
    """How many of the sorted distances s_1, s_2, ... are left out before the mean.

    Among k from a tenth of all, rounded up, to ``last`` the one with the largest s_(k+1) - s_k, if that is
    more than a tenth of the median; else none.
    """
    best, left_out = 0.1 * float(np.median(s)), 0
    for k in range((len(s) + 9) // 10, last + 1):
        if s[k] - s[k - 1] > best:  # s_(k+1) is s[k]
            best, left_out = s[k] - s[k - 1], k
    return left_out


def upsample(maps: Numbers, size: tuple[int, int]) -> Floats:
    """Bilinear resize of maps (N,Gh,Gw) to (N,H,W) where corner pixels keep their values (align_corners).

    An output of one pixel along an axis takes the first row or column, as torch does.
    """
    maps = maps.astype(np.float64)
    N, Gh, Gw = maps.shape
    H, W = size
    out = np.zeros((N, H, W))
    for h in range(H):
        for w in range(W):
            y = h * (Gh - 1) / (H - 1) if H > 1 else 0.0
            x = w * (Gw - 1) / (W - 1) if W > 1 else 0.0
            y0, x0 = min(int(y), Gh - 1), min(int(x), Gw - 1)
            y1, x1 = min(y0 + 1, Gh - 1), min(x0 + 1, Gw - 1)
            top = (1 - (x - x0)) * maps[:, y0, x0] + (x - x0) * maps[:, y0, x1]
            bottom = (1 - (x - x0)) * maps[:, y1, x0] + (x - x0) * maps[:, y1, x1]
            out[:, h, w] = (1 - (y - y0)) * top + (y - y0) * bottom
    return out


def rescore(scores: Numbers, cls: Numbers, neighbors: Sequence[int]) -> Floats:
    """RsCIN: min-max scaled scores (N,), averaged over the k images with the most similar cls (N,D).

    The image itself is one of its k; similarity is the inner product, and each row's kept similarities
    are divided by their sum.  The result is the mean over k.  Where the authors' code fails, this
    chooses: constant scores become zeros, and a k beyond the lot takes the whole lot.
    """
    N = len(scores)
    low, high = float(scores.min()), float(scores.max())
    if high == low:
        return np.zeros(N)
    scaled = (scores.astype(np.float64) - low) / (high - low)
    similarity = cls.astype(np.float64) @ cls.astype(np.float64).T
    total = np.zeros(N)
    for k in neighbors:
        for i in range(N):
            window = np.argsort(-similarity[i], kind="stable")[:k]
            weights = similarity[i, window] / similarity[i, window].sum()
            total[i] += (weights * scaled[window]).sum()
    return total / len(neighbors)


def residual_scores(tokens: Numbers, grid: tuple[int, int], degrees: Sequence[int], share: float) -> Floats:
    """What of each patch (N,P) lies outside of the lot's leading components, by an SVD of all its patches.

    The leading ones are taken off one by one, until their variances make up the share of all; one direction
    at least is left.
    """
    S, N, P, C = tokens.shape
    total = np.zeros((N, P))
    for degree in degrees:
        for layer in range(S):
            images = [layer_norm(image.astype(np.float64)) for image in tokens[layer]]
            rest = np.concatenate([normalise(aggregate(image, grid, degree)) for image in images])
            rest -= rest.mean(axis=0)
            _, strengths, directions = np.linalg.svd(rest, full_matrices=False)
            reached = 0.0
            for strength, direction in zip(strengths[: C - 1], directions, strict=False):
                if reached >= share * (strengths**2).sum():
                    break
                rest -= np.outer(rest @ direction, direction)
                reached += strength**2
            total += np.sqrt((rest**2).sum(axis=1)).reshape(N, P)
    mean: Floats = total / (S * len(degrees))
    return mean
