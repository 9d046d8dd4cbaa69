"""What the scoring of a lot will take, said before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from .scoring.protocols import MutualScorer
from .types import Plan

_WORTH_MEASURING_FLOP = 5e11
"""Below this the answer comes sooner than it is worth asking for."""


@dataclass(frozen=True)
class Forecast:
    """``pairs`` in each of ``layers``, ``judges`` per image, by which ``scorer``, and the plan.

    ``seconds`` is the time to compare them (None: soon), ``vit_seconds`` that of the ViT before (None: not
    measured), which ``vit`` runs; ``reads`` is how often an image's tokens are read per layer.
    """

    images: int
    judges: int
    pairs: int
    layers: int
    reads: float
    seconds: float | None
    plan: Plan
    scorer: str
    vit: str
    vit_seconds: float | None = None


def forecast(
    scorer: MutualScorer,
    shape: tuple[int, int, int, int],
    plan: Plan,
    *,
    vit: str,
    measure: bool = False,
    vit_seconds: float | None = None,
) -> Forecast:
    """The forecast for tokens of ``shape`` (S,N,P,C).

    The time to compare is measured for large lots, or on request; that of the ViT is the caller's.
    """
    layers, images, patches, width = shape
    judges = scorer.judges(images)
    loads = judges.loads(plan.block, plan.blocks_in_memory) * plan.block
    large = layers * judges.pairs * 2.0 * patches**2 * width > _WORTH_MEASURING_FLOP
    seconds = scorer.seconds(shape, plan) if large or measure else None
    reads = 1 + loads / images
    return Forecast(
        images, judges.count, judges.pairs, layers, reads, seconds, plan, scorer.kind, vit, vit_seconds
    )
