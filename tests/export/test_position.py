"""Position embeddings at another grid, against the plain formula of bicubic interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musc_edge.export.position import AUTHORS, AUTHORS_DINO, UPSTREAM, Resampling, resample
from musc_edge.runtime.errors import BundleError
from support.sources import Array

pytestmark = pytest.mark.long


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def weights(stored: int, new: int, offset: float) -> Array:
    """Rows of the resampling from ``stored`` to ``new`` cells; half-pixel centres, borders repeated."""
    matrix = np.zeros((new, stored))
    for row in range(new):
        centre = (row + 0.5) * stored / (new + offset) - 0.5
        base = int(np.floor(centre))
        for cell in range(base - 1, base + 3):
            matrix[row, min(max(cell, 0), stored - 1)] += cubic(centre - cell)
    return matrix


def wanted(embedding: Array, stored: tuple[int, int], grid: tuple[int, int], offset: float) -> Array:
    image = embedding.reshape(*stored, -1)
    rows, columns = (weights(s, n, offset) for s, n in zip(stored, grid, strict=True))
    resampled: Array = np.einsum("ys,xt,stc->yxc", rows, columns, image)
    return resampled.reshape(-1, embedding.shape[1])


@pytest.mark.parametrize("way", [AUTHORS, AUTHORS_DINO])
@pytest.mark.parametrize("grid", [(7, 7), (3, 9), (24, 37)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_plain_formula(way: Resampling, grid: tuple[int, int], prefix: int) -> None:
    embedding = torch.randn(prefix + 20, 6, generator=torch.Generator().manual_seed(0))
    found = resample(embedding, (4, 5), grid, way)
    assert torch.equal(found[:prefix], embedding[:prefix])
    expected = wanted(embedding[prefix:].numpy().astype(np.float64), (4, 5), grid, way.offset)
    np.testing.assert_allclose(found[prefix:].numpy(), expected, rtol=0, atol=1e-5)


def test_the_same_grid_changes_nothing() -> None:
    embedding = torch.randn(17, 6)
    for way in (AUTHORS, AUTHORS_DINO, UPSTREAM):
        assert torch.equal(resample(embedding, (4, 4), (4, 4), way), embedding)


def test_upstream_is_another() -> None:
    embedding = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    ours, upstream = (resample(embedding, (4, 4), (7, 7), way) for way in (AUTHORS, UPSTREAM))
    assert float((ours - upstream).abs().max()) > 0.05


def test_embedding_of_another_grid() -> None:
    with pytest.raises(BundleError, match=r"has 15 tokens, its grid \(4, 4\) more"):
        resample(torch.zeros(15, 6), (4, 4), (5, 5), AUTHORS)


def test_what_the_manifest_says() -> None:
    assert AUTHORS.say((24, 24), (37, 37)) == "bicubic, antialias off, 24x24 to 37x37"
    assert AUTHORS_DINO.say((37, 37), (16, 16)) == (
        "bicubic, antialias off, scale (grid+0.1)/stored, 37x37 to 16x16"
    )
    assert UPSTREAM.say((4, 4), (4, 4)) == "as stored, 4x4"
