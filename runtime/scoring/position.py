"""What a place of the image scores in every image of a lot, which is no defect: edges, holders, glare.

In a lot whose images are aligned, part of each map is the same in all of them.  A share of each position's
median over the lot is subtracted before an image's maximum is taken; the maps stay as they are.

Whether a lot is aligned is told without labels, by how much of the maps the position explains: with the
logarithms l(i,p) of the mutual scores, each image's median taken away, and a(p) their median over the images,

    alignment = mad(a)^2 / (mad(a)^2 + mad(l - a)^2)        mad: the median absolute deviation of all entries

It is near 0 for a texture, in which any place may look like any other, and defects hardly move it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..settings import AUTO, Choice, ScoreSettings
from ..types import Array, FloatArray

HALF = 0.5
"""Share of the position's median that is subtracted from an aligned lot."""

ALIGNED = 0.2
"""Alignment from which a lot counts as aligned."""

LEAST_IMAGES = 20
"""Images without which nothing is said: the median of a few images at a position is mostly their chance."""

LOGARITHM_BYTES = 8
"""Bytes that ``alignment`` takes of each value of the maps, beside a few MB."""

_BLOCK = 2**18  # values
_LEAST = 1e-9  # distance: equal patches have none, and no logarithm


def alignment(maps: FloatArray) -> float:
    """Return how much of the maps (N,Gh,Gw) of a lot the position explains, from 0 to 1.

    Positions that are outside of the region of some image, NaN, are left out.
    """
    flat = maps.reshape(len(maps), -1)
    inside = np.ones(flat.shape[1], bool)
    for row in flat:
        inside &= ~np.isnan(row)
    places = np.flatnonzero(inside)
    if not places.size:
        return 0.0
    logs = np.empty((len(flat), len(places)))  # with the maps, all that is held of every value
    for values, row in zip(logs, flat, strict=True):
        np.log(np.maximum(row[places].astype(np.float64), _LEAST), out=values)
        np.subtract(values, np.median(values), out=values)
    position = np.empty(len(places))
    for block in _blocks(logs):
        position[block] = np.median(logs[:, block], axis=0)
    logs -= position
    explained, rest = _mad(position) ** 2, _mad(logs.reshape(-1)) ** 2
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
    flat = maps.reshape(len(maps), -1)
    level = np.zeros(flat.shape[1])
    for block in _blocks(flat):
        part = flat[:, block]
        scored = ~np.isnan(part).all(axis=0)
        level[block][scored] = np.nanmedian(part[:, scored], axis=0)
    return np.asarray(float(share) * level, np.float32).reshape(maps.shape[1:])


def _blocks(values: Array) -> Iterator[slice]:
    """Yield the columns of ``values`` (N,P) in blocks of a few MB, at least one by one."""
    step = max(_BLOCK // len(values), 1)
    for start in range(0, values.shape[1], step):
        yield slice(start, start + step)


def _mad(values: Array) -> float:
    """The median absolute deviation of ``values`` (n,), which are lost: the work is done in their place."""
    values -= np.median(values, overwrite_input=True)
    np.abs(values, out=values)
    return float(np.median(values, overwrite_input=True))
