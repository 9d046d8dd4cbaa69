"""Rescoring by the most suspicious patches (RsCon), against the formula line by line."""

from __future__ import annotations

import numpy as np
import pytest

from musc_edge import LotError, Resources, ScoreSettings, rescore, score_lot
from musc_edge.runtime.scoring.rescore import (
    SALIENT_NEIGHBORS,
    _largest,
    in_distance_units,
    rescored,
    salient_tokens,
)
from musc_edge.runtime.types import FeatureStore, FloatArray
from support.lots import random_store
from support.references import BUNDLE

STORE = random_store(3, (2, 9, 6, 5))  # S, N, P, C
MAPS = np.random.default_rng(4).uniform(0.2, 0.9, (9, 2, 3)).astype(np.float32)
RAW = MAPS.reshape(9, 6).max(axis=1).astype(np.float64)


def by_hand() -> list[float]:
    """RsCon, an image after the other: cosines of the salient patches' tokens, averaged over the layers."""
    tokens = [
        [STORE.block(layer, i, i + 1)[0, int(np.argmax(MAPS[i]))].astype(np.float64) for layer in range(2)]
        for i in range(9)
    ]

    def cosine(a: int, b: int) -> float:
        pairs = zip(tokens[a], tokens[b], strict=True)
        return float(np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]))

    found = []
    for i in range(9):
        nearest = sorted(range(9), key=lambda j: -cosine(i, j))
        means = []
        for k in (1, 7):
            weights = [cosine(i, j) for j in nearest[:k]]
            means.append(sum(w * RAW[j] for w, j in zip(weights, nearest, strict=False)) / sum(weights))
        found.append(float(np.mean(means)))
    return found


def test_salient_is_the_formula() -> None:
    assert SALIENT_NEIGHBORS == (1, 7)
    np.testing.assert_allclose(rescored("salient", RAW, RAW, STORE, MAPS), by_hand(), atol=1e-6)


def test_the_salient_patch_is_that_of_the_raw_score(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FloatArray] = []

    def salient(store: FeatureStore, maps: FloatArray) -> FloatArray:
        seen.append(maps)
        return salient_tokens(store, maps)

    monkeypatch.setattr("musc_edge.runtime.scoring.rescore.salient_tokens", salient)
    settings = ScoreSettings((1,), rescore="salient", position_median=1.0)
    result = score_lot(BUNDLE.parent / "lot", BUNDLE, settings, Resources(scorer="numpy"))
    assert result.level is not None
    assert result.level.any()
    np.testing.assert_array_equal(seen[0], result.maps - result.level)


def test_salient_tokens_are_unit_vectors_and_zero_stays_zero() -> None:
    np.testing.assert_allclose(np.linalg.norm(salient_tokens(STORE, MAPS), axis=1), 1.0, atol=1e-6)
    empty = random_store(3, (2, 9, 6, 5))
    empty.tokens[:] = 0
    assert not salient_tokens(empty, MAPS).any()


def test_cls_is_the_papers_and_none_is_the_raw_score() -> None:
    cls = np.random.default_rng(5).standard_normal((9, 4)).astype(np.float32)
    cls /= np.linalg.norm(cls, axis=1, keepdims=True)
    paper = rescore(RAW, cls)
    np.testing.assert_array_equal(rescored("cls", RAW, paper, STORE, MAPS), in_distance_units(paper, RAW))
    np.testing.assert_array_equal(rescored("none", RAW, paper, STORE, MAPS), RAW)


def test_an_image_whose_weights_sum_to_nothing_keeps_its_own_score() -> None:
    opposite = np.array([[1, 0], [-1, 0], [0, 0]], np.float32)  # and one without direction
    found = rescore(np.array([3.0, 7.0, 5.0]), opposite, (1, 2, 3))
    np.testing.assert_array_equal(found, [0, 1, 0.5])


def test_a_word_that_is_none_is_refused() -> None:
    with pytest.raises(LotError, match="'mean': expected one of cls, salient, none"):
        ScoreSettings(rescore="mean")


@pytest.mark.parametrize("count", [1, 3, 40])
def test_of_equal_similarities_the_first_images_are_taken(count: int) -> None:
    similarity = np.random.default_rng(0).integers(-3, 4, (30, 40)).astype(np.float32)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(_largest(similarity, count), expected)
