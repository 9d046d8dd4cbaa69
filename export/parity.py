"""Compare a candidate's pixels, tokens, CLS and raw scores with the source's: proof that numbers survived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..runtime.errors import ParityError
from ..runtime.images.reading import normalise
from ..runtime.types import Array, FloatArray, PreprocessSpec
from ..runtime.vit.graphs import NODES, PIECES
from .probe import Numbers


@dataclass(frozen=True)
class Tolerance:
    """Limits of parity: the lowest cosines, and the largest change of a raw score (distance units)."""

    token_cosine: float
    cls_cosine: float
    raw_score: float


# Far above what a right export shows (raw scores change by 2e-7 in fp32, docs/export.md), and low enough that
# one perturbed weight, another activation, position embedding, mean or resize is found: a test tries each.
TOLERANCES = {
    "fp32": Tolerance(token_cosine=0.99999, cls_cosine=0.99999, raw_score=1e-3),
    "fp16": Tolerance(token_cosine=0.9995, cls_cosine=0.9995, raw_score=5e-3),
}
"""Tolerances by the bundle's precision."""

PIXEL_TOLERANCE = 1e-3
"""Largest mean difference of preprocessed images, in the model's normalised units (a gray level is 0.015).

Another JPEG decoder changes a few pixels by one level and stays below; another resize or mean does not.
"""


@dataclass(frozen=True)
class Pixels:
    """Difference of the probe images between two ways of preprocessing, in normalised units."""

    max_abs: float
    mean_abs: float

    @classmethod
    def between(cls, source: FloatArray | None, images: Array, spec: PreprocessSpec) -> Pixels | None:
        """Compare ``source`` (n,3,H,W) with the runtime's ``images`` (n,H,W,3); None without a source."""
        if source is None:
            return None
        difference = np.abs(source.astype(np.float64) - normalise(images, spec))
        return cls(float(difference.max()), float(difference.mean()))


@dataclass(frozen=True)
class LayerParity:
    """Agreement of one layer's tokens: largest absolute difference and lowest cosine."""

    layer: int
    max_abs: float
    min_cosine: float


@dataclass(frozen=True)
class Parity:
    """Agreement of a candidate with its source on the probe images.

    ``pixels`` is None where the source has no preprocessing of its own.
    """

    images: int
    pixels: Pixels | None
    layers: tuple[LayerParity, ...]
    cls_max_abs: float
    cls_min_cosine: float
    raw_score_max_change: float
    raw_score_rank_correlation: float
    attention_as_nodes: Parity | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the content for the manifest."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Format a table for the terminal."""
        rows = [f"  {'':10} {'max abs diff':>13} {'lowest cosine':>14}"]
        if self.pixels is not None:
            rows.append(f"  {'pixels':10} {self.pixels.max_abs:>13.1e}   (mean {self.pixels.mean_abs:.1e})")
        rows += [f"  layer {x.layer:<4} {x.max_abs:>13.1e} {x.min_cosine:>14.8f}" for x in self.layers]
        rows.append(f"  {'CLS':10} {self.cls_max_abs:>13.1e} {self.cls_min_cosine:>14.8f}")
        rows.append(
            f"  raw scores of {self.images} probe images: largest change {self.raw_score_max_change:.1e}, "
            f"rank correlation {self.raw_score_rank_correlation:.4f}"
        )
        if self.pixels is None:
            rows.append("  preprocessing as it was given: the source has none of its own to compare with")
        if (other := self.attention_as_nodes) is not None:
            lowest = min(x.min_cosine for x in other.layers)
            rows.append(
                f"  with {NODES}: lowest cosine of a token {lowest:.8f}, of CLS {other.cls_min_cosine:.8f}, "
                f"largest change of a raw score {other.raw_score_max_change:.1e}"
            )
        return rows


def with_nodes(found: Mapping[str, Parity]) -> Parity:
    """Put the parities of a bundle's graphs together: that of the pieces, which has the other one in it."""
    return replace(found[PIECES], attention_as_nodes=found.get(NODES))


def compare(
    source: Numbers, candidate: Numbers, layers: Sequence[int], pixels: Pixels | None = None
) -> Parity:
    """Compare ``candidate`` with ``source``, both for the same images and patches."""
    per_layer = tuple(
        LayerParity(layer, _max_abs(a, b), min_cosine(a, b))
        for layer, a, b in zip(layers, source.tokens, candidate.tokens, strict=True)
    )
    return Parity(
        images=len(source.cls),
        pixels=pixels,
        layers=per_layer,
        cls_max_abs=_max_abs(source.cls, candidate.cls),
        cls_min_cosine=min_cosine(source.cls, candidate.cls),
        raw_score_max_change=_max_abs(source.raw_scores, candidate.raw_scores),
        raw_score_rank_correlation=rank_correlation(source.raw_scores, candidate.raw_scores),
    )


def require(parity: Parity, tolerance: Tolerance, what: str) -> None:
    """Raise ParityError with the numbers unless ``parity`` is within ``tolerance``."""
    # "not x >= limit" and not "x < limit": NaN compares false with everything and must fail.
    # The rank correlation is only shown: twelve photographs of different things are too few to rely on it.
    problems = _pixel_problems(parity.pixels)
    problems += [
        f"layer {x.layer}: lowest token cosine {x.min_cosine:.7f}, expected at least {tolerance.token_cosine}"
        for x in parity.layers
        if not x.min_cosine >= tolerance.token_cosine
    ]
    if not parity.cls_min_cosine >= tolerance.cls_cosine:
        problems.append(
            f"CLS: lowest cosine {parity.cls_min_cosine:.7f}, expected at least {tolerance.cls_cosine}"
        )
    if not parity.raw_score_max_change <= tolerance.raw_score:
        problems.append(
            f"raw score changed by {parity.raw_score_max_change:.2e}, expected at most {tolerance.raw_score}"
        )
    if problems:
        raise ParityError(f"{what} does not give its source's numbers:\n  " + "\n  ".join(problems))


def _pixel_problems(pixels: Pixels | None) -> list[str]:
    if pixels is None or pixels.mean_abs <= PIXEL_TOLERANCE:
        return []
    return [
        f"preprocessing: images differ by {pixels.mean_abs:.2e} on average and {pixels.max_abs:.2e} at most, "
        f"expected a mean of at most {PIXEL_TOLERANCE}"
    ]


def rank_correlation(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation of two score vectors (n,) without ties."""
    first, second = (np.argsort(np.argsort(v, kind="stable"), kind="stable").astype(float) for v in (a, b))
    return float(np.corrcoef(np.stack([first, second]))[0, 1])


def _max_abs(a: Array, b: Array) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def min_cosine(a: Array, b: Array) -> float:
    """Return the lowest cosine between vectors along the last axis; two zero vectors agree."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    dot, norms = (x * y).sum(-1), np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    # A zero vector on one side only has cosine 0 and fails; on both sides there is nothing that differs.
    both_zero = (np.abs(x).max(-1) == 0) & (np.abs(y).max(-1) == 0)
    cosine = np.divide(dot, norms, out=np.zeros_like(dot), where=norms != 0)
    return float(np.where(both_zero, 1.0, cosine).min())
