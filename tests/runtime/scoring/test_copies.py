"""Copies in a lot are found by a gap: not in lots whose images are all different, or all a little alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from musc_edge.runtime.scoring.copies import find_copies, sketch
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array

PATCHES, WIDTH = 20, 48


def random_tokens(count: int, seed: int = 0) -> Array:
    """Tokens (N,P,C) of unlike images."""
    return np.random.default_rng(seed).standard_normal((count, PATCHES, WIDTH)).astype(np.float32)


def store_of(tokens: Array) -> HostStore:
    return HostStore(tokens[None].astype(np.float32), np.empty((len(tokens), 0), np.float32))


def noisy(tokens: Array, share: float, seed: int = 1) -> Array:
    noise = np.random.default_rng(seed).standard_normal(tokens.shape)
    return tokens + share * noise


def test_a_lot_of_different_images_has_none() -> None:
    for seed in range(20):
        assert find_copies(store_of(random_tokens(60, seed))) == []


def test_parts_that_look_alike_are_no_copies() -> None:
    """One part many times, each time with its own noise: all are equally near."""
    for share in (0.001, 0.05, 0.3):
        lot = noisy(np.repeat(random_tokens(1), 60, axis=0), share)
        assert find_copies(store_of(lot)) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_pairs_and_larger_groups_are_found(share: float) -> None:
    lot = random_tokens(60)
    rows = {30: 3, 7: 3, 59: 3, 12: 40}
    for copy, original in rows.items():
        lot[copy] = noisy(lot[original], share, seed=copy)
    assert find_copies(store_of(lot)) == [(3, 7, 30, 59), (12, 40)]


def test_a_third_of_the_lot_may_be_copies_of_one() -> None:
    lot = random_tokens(24)
    for copy in range(1, 8):
        lot[copy] = noisy(lot[0], 0.05, seed=copy)
    assert find_copies(store_of(lot)) == [tuple(range(8))]


def test_every_image_twice() -> None:
    lot = random_tokens(30)
    doubled = np.concatenate([lot, noisy(lot, 0.02)])
    assert find_copies(store_of(doubled)) == [(i, i + 30) for i in range(30)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 300])
def test_all_the_same(count: int) -> None:
    lot = np.repeat(random_tokens(1), count, axis=0)
    assert find_copies(store_of(lot)) == ([tuple(range(count))] if count > 1 else [])


def test_images_without_content_are_the_same() -> None:
    lot = random_tokens(20)
    lot[[4, 9]] = 0
    assert find_copies(store_of(lot)) == [(4, 9)]


def test_small_lots() -> None:
    for count in (2, 3, 4, 5):
        assert find_copies(store_of(random_tokens(count))) == []
        lot = random_tokens(count)
        lot[1] = lot[0]
        assert find_copies(store_of(lot)) == [(0, 1)]


def test_lots_of_more_rows_than_are_compared_at_once() -> None:
    lot = random_tokens(700)
    lot[650] = noisy(lot[10], 0.05)
    lot[699] = lot[300]
    assert find_copies(store_of(lot)) == [(10, 650), (300, 699)]


def test_sketches_keep_distances() -> None:
    lot = noisy(np.repeat(random_tokens(1), 40, axis=0), 0.5)
    units = lot / np.linalg.norm(lot, axis=2, keepdims=True)
    sketches = sketch(store_of(lot))
    for i, j in ((0, 1), (2, 3), (4, 39)):
        exact = ((units[i] - units[j]) ** 2).sum(axis=1).mean()
        assert ((sketches[i] - sketches[j]) ** 2).sum() == pytest.approx(exact, rel=0.35)


def test_pixels_are_asked_about_pairs_that_only_look_alike() -> None:
    lot = random_tokens(40)
    lot[7], lot[20], lot[30] = noisy(lot[3], 0.05, seed=1), noisy(lot[3], 0.05, seed=2), lot[5]
    asked: list[tuple[int, int]] = []

    def confirm(a: int, b: int, others: tuple[Sequence[int], Sequence[int]]) -> bool:
        asked.append((min(a, b), max(a, b)))
        for near in others:
            assert len(set(near)) == 5
            assert not {3, 7, 20} & set(near)
        return 20 not in (a, b)

    assert find_copies(store_of(lot), confirm) == [(3, 7), (5, 30)]
    assert set(asked) <= {(3, 7), (3, 20), (7, 20)}
    assert find_copies(store_of(lot), lambda *_: False) == [(5, 30)]
