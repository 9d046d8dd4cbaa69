"""One image against a bank: its row of mutual scoring, held against the oracle and the scorer of lots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from musc_edge.runtime.errors import DeviceError, LotError
from musc_edge.runtime.scoring.image_pairs import load_filter
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import mutual_scores
from musc_edge.runtime.scoring.row import Bank, PatchBank, RowScorer, WholeBank, describe, unit_vectors
from musc_edge.runtime.types import Array, FloatArray
from support import oracle

GRID = (3, 4)


def lot(images: int = 9, seed: int = 0, grid: tuple[int, int] = GRID) -> FloatArray:
    """Tokens (2,N,P,8) of images that share a picture, as parts of a product do."""
    rng = np.random.default_rng(seed)
    shape = (2, images, grid[0] * grid[1], 8)
    shared = rng.standard_normal((2, 1, *shape[2:]))
    tokens: FloatArray = (shared + 0.7 * rng.standard_normal(shape)).astype(np.float32)
    return tokens


def whole(tokens: FloatArray, method: Method, kind: str = "numpy", threads: int = 2) -> WholeBank:
    """A bank of all images of ``tokens`` (S,M,P,C)."""
    return WholeBank.of(method, load_filter(kind), list(tokens), threads)


def patches(tokens: FloatArray, method: Method, kept: Sequence[int]) -> PatchBank:
    """A bank of the patches ``kept`` of each image."""
    queries = [[describe(image, method) for image in layer] for layer in tokens]
    hollow = np.array([[(query.inverse == 0).any(axis=1) for query in layer] for layer in queries])
    units = [
        np.array(
            [
                np.stack([unit_vectors(query, method, t)[list(kept)] for query in layer], axis=1)
                for t in range(len(method.degrees))
            ]
        )
        for layer in queries
    ]
    return PatchBank(method, units, hollow)


def row(bank: Bank, tokens: Array, threads: int = 2) -> FloatArray:
    with RowScorer(bank, threads) as scorer:
        return scorer.score(list(tokens))


@pytest.mark.parametrize("kind", ["numpy", "numba"])
@pytest.mark.parametrize("interval", [(0.0, 0.3), (0.2, 0.8), (0.0, 1.0)])
def test_the_row_is_that_of_the_oracle(kind: str, interval: tuple[float, float]) -> None:
    tokens, method = lot(), Method(GRID, (1, 3), interval)
    expected = oracle.mutual_scores(tokens, GRID, (1, 3), interval)[-1].reshape(GRID)
    found = row(whole(tokens[:, :-1], method, kind), tokens[:, -1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_all_patches_give_what_whole_images_give() -> None:
    tokens, method = lot(), Method(GRID)
    found = row(patches(tokens[:, :-1], method, range(12)), tokens[:, -1])
    np.testing.assert_allclose(found, row(whole(tokens[:, :-1], method), tokens[:, -1]), rtol=0, atol=1e-5)


def test_the_bytes_are_those_of_a_lot_in_which_the_image_comes_last() -> None:
    tokens, method = lot(), Method(GRID)
    kind = load_filter("numba").name
    found = row(whole(tokens[:, :-1], method, kind), tokens[:, -1])
    np.testing.assert_allclose(found.ravel(), mutual_scores(tokens, GRID)[-1], rtol=0, atol=1e-7)


def by_hand(tokens: FloatArray, kept: Sequence[int], degrees: Sequence[int]) -> Array:
    """The row of the last image in plain float64, where only some patches of the others are there."""
    total = np.zeros(12)
    for degree in degrees:
        for layer in tokens.astype(np.float64):
            units = [oracle.normalise(oracle.aggregate(oracle.layer_norm(x), GRID, degree)) for x in layer]
            for p in range(12):
                nearest = [np.linalg.norm(u[list(kept)] - units[-1][p], axis=1).min() for u in units[:-1]]
                total[p] += np.mean(sorted(nearest)[: int(0.3 * len(nearest))])
    return (total / len(tokens) / len(degrees)).reshape(GRID)


@pytest.mark.parametrize("kept", [[0], [3, 7, 11], [1, 2, 4, 5, 9]])
def test_some_patches_give_the_distances_to_these(kept: list[int]) -> None:
    tokens, method = lot(images=11), Method(GRID, (1, 3))
    found = row(patches(tokens[:, :-1], method, kept), tokens[:, -1])
    np.testing.assert_allclose(found, by_hand(tokens, kept, (1, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("constant", [0, 8])
def test_patches_without_content_lie_where_the_oracle_has_them(constant: int) -> None:
    """Of an image in the bank, and of the one that is scored."""
    tokens, method = lot(), Method(GRID)
    tokens[:, constant] = 1.5
    expected = oracle.mutual_scores(tokens, GRID, (1, 3, 5), (0.0, 0.3))[-1].reshape(GRID)
    for bank in (whole(tokens[:, :-1], method), patches(tokens[:, :-1], method, range(12))):
        np.testing.assert_allclose(row(bank, tokens[:, -1]), expected, rtol=0, atol=1e-5)


def test_threads_change_no_byte() -> None:
    tokens, method = lot(images=14), Method(GRID)
    for make in (
        lambda threads: whole(tokens[:, :-1], method, "numpy", threads),
        lambda threads: patches(tokens[:, :-1], method, [1, 5, 6]),
    ):
        rows = [row(make(threads), tokens[:, -1], threads).tobytes() for threads in (1, 2, 3, 20)]
        assert len(set(rows)) == 1


def test_a_large_bank_is_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, method = lot(), Method(GRID)
    bank = patches(tokens[:, :-1], method, range(12))
    at_once = row(bank, tokens[:, -1])
    monkeypatch.setattr("musc_edge.runtime.scoring.row._GRAM", 5 * 12 * 8)  # five rows of the grid's twelve
    np.testing.assert_allclose(row(bank, tokens[:, -1]), at_once, rtol=0, atol=1e-6)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(LotError, match="4 images are too few"):
        RowScorer(whole(lot(images=3), Method(GRID)), 1)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e38])
def test_tokens_that_are_not_finite_or_beyond_any_sense_are_refused(value: float) -> None:
    tokens = lot()
    broken = tokens[:, -1].copy()
    broken[1, 3, 2] = value
    with pytest.raises(DeviceError, match="not finite"):
        row(whole(tokens[:, :-1], Method(GRID)), broken)
