"""Lots of two products: where the spanning tree is cut."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge.runtime.scoring.cautions import separate_group
from musc_edge.runtime.types import FloatArray


def lot(*groups: int, odd: int = 0) -> FloatArray:
    """Embeddings of some groups, far apart, and of odd images, each alone."""
    draw = np.random.default_rng(0)
    centres = 40.0 * np.eye(len(groups) + odd, 60)
    sizes = [*groups, *[1] * odd]
    points = [centre + draw.standard_normal((size, 60)) for centre, size in zip(centres, sizes, strict=True)]
    return np.concatenate(points).astype(np.float32)


@pytest.mark.parametrize(
    ("cls", "smaller"),
    [
        (lot(80), 0),
        (lot(60, 20), 20),
        (lot(20, 60), 20),
        (lot(300, 120, odd=5), 124),
        (lot(80, odd=6), 0),
        (lot(60, 4), 0),
        (lot(6, 3), 0),
    ],
    ids=[
        "one",
        "two",
        "two, the larger last",
        "and odd ones, which hang on to it",
        "odd ones alone",
        "too small",
        "too few",
    ],
)
def test_the_smaller_of_two_groups_is_counted(cls: FloatArray, smaller: int) -> None:
    assert separate_group(cls) == smaller
