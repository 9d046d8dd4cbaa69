"""Tokens of a lot in which the same defect is on several images."""

from __future__ import annotations

import numpy as np

from musc_edge.runtime.types import FloatArray

GRID = (3, 4)
PLACE = 5
"""The patch with the defect."""


def repeated_defect(images: int, defective: int, width: int = 16, seed: int = 0) -> FloatArray:
    """Tokens (2,N,12,C) of parts that look alike, the first ones with one defect on the same patch."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((2, 1, GRID[0] * GRID[1], width))
    tokens = shared + 0.35 * rng.standard_normal((2, images, *shared.shape[2:]))
    tokens[:, :defective, PLACE] = 1.5 * rng.standard_normal((2, 1, width))
    tokens[:, :defective, PLACE] += 0.05 * rng.standard_normal((2, defective, width))
    found: FloatArray = tokens.astype(np.float32)
    return found
