"""The regions of the images that were flagged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..types import Array
from .judge import Judgement
from .limits import FLAGGED
from .regions import Region, SizedMap, find_regions

MapOf = Callable[[int], SizedMap | None]
"""The map of an image, by its row, at the image's own size; None if there is none."""


def flagged_regions(
    names: Sequence[str], raw_scores: Array, judgement: Judgement, map_of: MapOf
) -> Iterator[tuple[str, list[Region]]]:
    """Yield each flagged image that has a map with its regions: those that reach the pixel limit.

    ``raw_scores`` (N,) are as written.  One map exists at a time.
    """
    limit = judgement.pixel_limit
    for row, name in enumerate(names):
        if limit is None or judgement.verdicts[row] not in FLAGGED:
            continue
        values = map_of(row)
        if values is not None:
            reached = float(raw_scores[row]) >= limit
            yield name, image_regions(values, limit, judgement.min_region, reached)


def image_regions(values: SizedMap, limit: float, least_area: int, reached: bool) -> list[Region]:
    """Find the regions of one image; ``reached`` says whether its raw score reaches the limit.

    The raw score is the largest value at the model's size.  At the image's own size the largest may be a
    little less, so where it misses the limit, it is the limit: such an image has a region.
    """
    found = find_regions(values, limit, least_area)
    if not found and reached:
        found = find_regions(values, min(limit, values.highest()), least_area)
    return found
