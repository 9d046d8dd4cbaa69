"""What a place of the image scores in every image of a lot, which is no defect: edges, holders, glare.

In a lot whose images are aligned, part of each map is the same in all of them.  A share of each position's
median over the lot is subtracted before an image's maximum is taken; the maps stay as they are.

Whether a lot is aligned is told without labels, by how much of the maps the position explains: with the
logarithms l(i,p) of the mutual scores, each image's median taken away, and a(p) their median over the images,

    alignment = mad(a)^2 / (mad(a)^2 + mad(l - a)^2)        mad: the median absolute deviation of all entries

It is near 0 for a texture, in which any place may look like any other, and defects hardly move it.
"""

from __future__ import annotations

import numpy as np

from ..settings import AUTO, Choice, ScoreSettings
from ..types import Array, FloatArray

HALF = 0.5
"""Share of the position's median that is subtracted from an aligned lot."""

ALIGNED = 0.2
"""Alignment from which a lot counts as aligned."""

LEAST_IMAGES = 20
"""Images without which nothing is said: the median of a few images at a position is mostly their chance."""

_LEAST = 1e-9  # distance: equal patches have none, and no logarithm


def alignment(maps: FloatArray) -> float:
    """Return how much of the maps (N,Gh,Gw) of a lot the position explains, from 0 to 1.

    Positions that are outside of the region of some image, NaN, are left out.
    """
    inside = maps[:, ~np.isnan(maps).any(axis=0)]
    if not inside.size:
        return 0.0
    logs = np.log(np.maximum(inside.reshape(len(maps), -1).astype(np.float64), _LEAST))
    logs -= np.median(logs, axis=1, keepdims=True)
    position = np.median(logs, axis=0)
    explained, rest = _mad(position) ** 2, _mad(logs - position) ** 2
    return explained / (explained + rest) if explained > 0 else 0.0


def settled(settings: ScoreSettings, maps: FloatArray) -> ScoreSettings:
    """Return settings whose share of the position's median is a number: "auto" is decided by the maps."""
    if settings.position_median != AUTO:
        return settings
    if len(maps) < LEAST_IMAGES:
        why = f"of {len(maps)} images, fewer than {LEAST_IMAGES}, nobody can tell whether they are aligned"
        return settings.with_choice(Choice("position_median", 0.0, why))
    found = alignment(maps)
    share, word = (HALF, "from") if found >= ALIGNED else (0.0, "below")
    why = f"the position explains {100 * found:.0f} % of the maps: {word} {100 * ALIGNED:.0f} %"
    return settings.with_choice(Choice("position_median", share, why))


def position_level(maps: FloatArray, share: float | str) -> FloatArray | None:
    """Return what is subtracted at each position (Gh,Gw) of the maps (N,Gh,Gw); None if nothing is.

    A share that is still "auto" is a mistake of the caller's (``settled``).  It is 0 where no image has a
    score, outside of a region.
    """
    if not share:
        return None
    level = np.zeros(maps.shape[1:])
    scored = ~np.isnan(maps).all(axis=0)
    level[scored] = np.nanmedian(maps[:, scored], axis=0)
    return np.asarray(float(share) * level, np.float32)


def _mad(values: Array) -> float:
    return float(np.median(np.abs(values - np.median(values))))
