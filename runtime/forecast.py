"""Forecast what scoring a lot will take, before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from .scoring.protocols import MutualScorer
from .types import Plan

_WORTH_MEASURING_FLOP = 5e11
"""A lot with less work than this is scored before a measurement would pay off."""


@dataclass(frozen=True)
class Forecast:
    """The work and the time that scoring a lot will take; the names are the keys of its JSON.

    Attributes
    ----------
    judges : number of other images that score each image.
    pairs : pairs of images that are compared in each of ``layers``.
    reads : how often an image's tokens are read per layer.
    seconds : time to compare the pairs; None if it is too short to be worth measuring.
    scorer, vit : what compares the images, and what runs the ViT.
    vit_seconds : time of the ViT before that; None if it was not measured.
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

    The time to compare is measured for large lots, or on request (``measure``); ``vit_seconds`` is the
    caller's to measure.
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
