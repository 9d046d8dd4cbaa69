"""Where burn-out acted: patches that look like some other images, which lie apart from all the rest.

Burn-out begins a patch's interval later in some layers and degrees (burn_out.py).  A patch for which that is
most of them has its like in several images: the same defect, or a mark that only some parts have.  In small
lots chance does it too, so that nothing is said of them; how often it is right is in docs/copies.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..._files import shown
from ..._numbers import counted
from ..types import Array, FloatArray

MOST_OF_THEM = 0.5
"""Share of layers and degrees from which a patch counts as repeated."""

LEAST_IMAGES = 40
"""Images of a lot below which chance repeats as many patches as a defect does."""

MANY = 0.02
"""Share of a lot's patches from which it is told."""

_NAMED = 5


def repeated_patches(later: FloatArray) -> Array:
    """Return which patches are repeated (N,P), by the share of layers and degrees (N,Gh,Gw)."""
    found: Array = later.reshape(len(later), -1) >= MOST_OF_THEM
    return found


def repeated_caution(names: Sequence[str], later: FloatArray | None) -> tuple[str, ...]:
    """Return the warning for a lot in which many patches are repeated, with the images that have most."""
    if later is None or len(names) < LEAST_IMAGES:
        return ()
    counts = repeated_patches(later).sum(axis=1)
    patches = later[0].size
    if counts.sum() < MANY * patches * len(names):
        return ()
    most = np.argsort(-counts, kind="stable")[:_NAMED]
    named = ", ".join(f"{shown(names[i])} ({counts[i]})" for i in most)
    return (
        f"something is on several images and not on the others: {counts.sum():,} patches of "
        f"{counted(int((counts > 0).sum()), 'image')} have their like in some of them only, most of them in "
        f"{named}. It may be one defect again and again; burn-out lets it score as if it were on one alone",
    )
