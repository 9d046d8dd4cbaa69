"""What the scoring of a lot will take, said before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from .judges import choose
from .mutual import CpuScorer
from .types import Plan

_WORTH_MEASURING_FLOP = 5e11
"""Below this the answer comes sooner than it is worth asking for."""


@dataclass(frozen=True)
class Forecast:
    """``pairs`` in each of ``layers``, ``judges`` per image, ``seconds`` (None: soon), and the plan.

    ``reads`` is how often an image's tokens are read per layer.
    """

    images: int
    judges: int
    pairs: int
    layers: int
    reads: float
    seconds: float | None
    plan: Plan


def forecast(
    scorer: CpuScorer, shape: tuple[int, int, int, int], plan: Plan, *, measure: bool = False
) -> Forecast:
    """The forecast for tokens of ``shape`` (S,N,P,C); the time is measured for large lots, or on request."""
    layers, images, patches, width = shape
    judges = choose(images, scorer.group)
    loads = judges.loads(plan.block, plan.resident) * plan.block
    large = layers * judges.pairs * 2.0 * patches**2 * width > _WORTH_MEASURING_FLOP
    seconds = scorer.seconds(shape, plan) if large or measure else None
    return Forecast(images, judges.count, judges.pairs, layers, 1 + loads / images, seconds, plan)
