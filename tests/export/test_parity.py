"""The comparison that decides whether a bundle has its source's numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from musc_edge.export.parity import (
    TOLERANCES,
    LayerParity,
    Parity,
    Tolerance,
    compare,
    rank_correlation,
    require,
)
from musc_edge.export.probe import Numbers
from musc_edge.runtime.errors import ParityError
from musc_edge.runtime.scoring.anomaly_map import raw_scores
from musc_edge.runtime.scoring.mutual import mutual_scores
from musc_edge.runtime.types import FloatArray
from support.sources import Array, built, change_weight, pixels, run
from support.tiny_vit import tiny_vit

LAYERS = (2, 5, 8)
GRID = (3, 4)
FP32 = TOLERANCES["fp32"]


def numbers(seed: int = 0) -> Numbers:
    """Tokens (3,6,12,16) without mean, as of six images, unit CLS embeddings and scores."""
    random = np.random.default_rng(seed)
    tokens = random.standard_normal((3, 6, 12, 16)).astype(np.float32)
    tokens -= tokens.mean(axis=(2, 3), keepdims=True)
    cls = random.standard_normal((6, 8)).astype(np.float32)
    cls /= np.linalg.norm(cls, axis=1, keepdims=True)
    return Numbers(tokens, cls, 1 + random.permutation(6) / 10)


def change(source: Numbers, field: str, place: tuple[int, ...] | None, value: float) -> Numbers:
    """A copy of ``source`` in which one place of a field, or all of it, is set to or moved by ``value``."""
    array = getattr(source, field).copy()
    if place is None:
        array += value
    else:
        array[place] = value
    return dataclasses.replace(source, **{field: array})


def check(source: Numbers, candidate: Numbers, tolerance: Tolerance = FP32) -> Parity:
    parity = compare(source, candidate, LAYERS)
    require(parity, tolerance, "the candidate")
    return parity


def test_identical_numbers_pass() -> None:
    parity = check(numbers(), numbers())
    assert parity.images == 6
    assert [layer.layer for layer in parity.layers] == list(LAYERS)
    assert all(layer.max_abs == 0 for layer in parity.layers)
    assert all(layer.min_cosine == pytest.approx(1, abs=1e-12) for layer in parity.layers)
    assert (parity.cls_max_abs, parity.raw_score_max_change) == (0, 0)
    assert parity.cls_min_cosine == pytest.approx(1, abs=1e-12)
    assert parity.raw_score_rank_correlation == pytest.approx(1)


def test_rounding_passes() -> None:
    source = numbers()
    noise = np.random.default_rng(1).uniform(-1e-5, 1e-5, source.tokens.shape).astype(np.float32)
    parity = check(source, dataclasses.replace(source, tokens=source.tokens + noise))
    assert all(0 < layer.max_abs <= 1.1e-5 for layer in parity.layers)


def floats(values: Any) -> FloatArray:
    return np.array(values, np.float32)


def test_values_by_hand() -> None:
    """Two tokens (3,4) and (1,0): one turned by an angle with cosine 0.6, the other only longer."""
    source = Numbers(floats([[[[3, 4], [1, 0]]]]), floats([[1, 0], [0, 1]]), np.array([1.0, 2.0]))
    candidate = Numbers(floats([[[[5, 0], [2, 0]]]]), floats([[1, 0], [0.6, 0.8]]), np.array([1.5, 1.2]))
    parity = compare(source, candidate, [7])
    (layer,) = parity.layers
    assert (layer.layer, layer.max_abs) == (7, 4)
    assert layer.min_cosine == pytest.approx(0.6)
    assert parity.cls_max_abs == pytest.approx(0.6)
    assert parity.cls_min_cosine == pytest.approx(0.8)
    assert parity.raw_score_max_change == pytest.approx(0.8)
    assert parity.raw_score_rank_correlation == pytest.approx(-1)


@pytest.mark.parametrize(
    ("field", "place", "value", "message"),
    [
        ("tokens", None, 0.05, r"layer 2: lowest token cosine 0\.9\d{6}, expected at least 0\.99999"),
        ("tokens", (1, 4, 7), 0.0, r"layer 5: lowest token cosine 0\.0000000, expected at least 0\.99999"),
        ("tokens", (2, 5, 11, 15), 3.0, r"layer 8: lowest token cosine 0\.\d{7}"),
        ("tokens", (0, 0, 0, 0), np.nan, r"layer 2: lowest token cosine nan"),
        ("tokens", (0, 0, 0, 0), np.inf, r"layer 2: lowest token cosine nan"),
        ("cls", (3,), 0.0, r"CLS: lowest cosine 0\.0000000, expected at least 0\.99999"),
        ("cls", None, 0.01, r"CLS: lowest cosine 0\.9\d{6}"),
        ("cls", (0, 0), np.nan, r"CLS: lowest cosine nan"),
        ("raw_scores", (2,), 9.0, r"raw score changed by [78]\.\d\de\+00, expected at most 0\.001"),
        ("raw_scores", None, 0.0011, r"raw score changed by 1\.10e-03, expected at most 0\.001"),
        ("raw_scores", (0,), np.nan, r"raw score changed by nan"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_changes_are_found(field: str, place: tuple[int, ...] | None, value: float, message: str) -> None:
    with pytest.raises(ParityError, match=message) as caught:
        check(numbers(), change(numbers(), field, place, value))
    assert str(caught.value).startswith("the candidate does not give its source's numbers")


def test_nan_in_the_source_is_found_too() -> None:
    with pytest.raises(ParityError, match="layer 8: lowest token cosine nan"):
        check(change(numbers(), "tokens", (2, 1, 1, 1), np.nan), numbers())


def test_only_what_differs_is_named() -> None:
    with pytest.raises(ParityError) as caught:
        check(numbers(), change(numbers(), "tokens", (1, 0, 0), 0.0))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "layer 5" in lines[1]


@pytest.mark.parametrize(
    "swap",
    [
        lambda n: dataclasses.replace(n, tokens=n.tokens[[1, 0, 2]]),
        lambda n: dataclasses.replace(n, tokens=n.tokens[:, ::-1]),
        lambda n: dataclasses.replace(n, tokens=n.tokens[:, :, ::-1]),
        lambda n: dataclasses.replace(n, tokens=-n.tokens),
    ],
    ids=["layers", "images", "patches", "signs"],
)
def test_swapped_tokens_are_found(swap: Callable[[Numbers], Numbers]) -> None:
    with pytest.raises(ParityError, match=r"layer 2.*\n.*layer 5"):
        check(numbers(), swap(numbers()))


def test_a_token_that_is_zero_in_both_agrees() -> None:
    zero = change(numbers(), "tokens", (1, 2, 3), 0.0)
    assert check(zero, zero).layers[1].min_cosine == pytest.approx(1, abs=1e-12)


def test_the_limits_themselves_pass() -> None:
    at = Parity(2, None, (LayerParity(0, 1.0, 0.5),), 1.0, 0.25, 0.125, 1.0)
    require(at, Tolerance(0.5, 0.25, 0.125), "what is at its limits")
    for beyond in (Tolerance(0.51, 0.25, 0.125), Tolerance(0.5, 0.26, 0.125), Tolerance(0.5, 0.25, 0.124)):
        with pytest.raises(ParityError):
            require(at, beyond, "what is beyond")


def test_one_changed_weight_of_the_vit() -> None:
    """The smallest change that a damaged file could make: one number of one weight of the first layer."""
    images = pixels(6, (12, 16))
    graph = built(tiny_vit(), (12, 16), (0, 2)).model
    source = measured(run(graph, images))
    assert compare(source, measured(run(graph, images)), (0, 2)).layers[0].max_abs == 0
    index = next(k for k, w in enumerate(graph.graph.initializer) if w.name.endswith("projection.weight"))
    weight = np.array(numpy_helper.to_array(graph.graph.initializer[index]))
    weight[3, 1, 2, 0] += 0.1
    change_weight(graph, index, weight)
    parity = compare(source, measured(run(graph, images)), (0, 2))
    with pytest.raises(ParityError, match=r"layer 0: .*\n.*layer 2: "):
        require(parity, FP32, "the graph")


def measured(values: dict[str, Array]) -> Numbers:
    """Numbers of a tiny ViT's outputs for layers 0 and 2 at 12x16 pixels."""
    tokens = np.stack([values["tokens_0"], values["tokens_2"]])
    maps = mutual_scores(tokens, GRID).reshape(-1, *GRID)
    return Numbers(tokens, values["cls"], raw_scores(maps, (12, 16)))


# ---- rank correlation and report -------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([1, 2, 3, 4, 5], [10, 20, 30, 40, 500], 1.0),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 1 - 6 * 4 / (5 * 24)),
        ([0.3, 0.1, 0.2, 0.9], [7, 6, 8, 5], 1 - 6 * (0 + 1 + 4 + 9) / (4 * 15)),
        ([106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17], -29 / 165),
    ],
)
def test_rank_correlation(a: list[float], b: list[float], wanted: float) -> None:
    """Spearman's 1 - 6 sum(d*d) / (n*(n*n-1)); the last case is the textbook one of Wikipedia."""
    assert rank_correlation(np.array(a, float), np.array(b, float)) == pytest.approx(wanted)


def test_report() -> None:
    parity = compare(numbers(), change(numbers(), "tokens", (1, 0, 0, 0), 2.0), LAYERS)
    stored = parity.as_dict()
    assert json.loads(json.dumps(stored))["layers"][1]["layer"] == 5
    assert stored["raw_score_max_change"] == 0
    lines = "\n".join(parity.lines())
    for layer in LAYERS:
        assert f"layer {layer}" in lines
    assert f"{parity.layers[1].min_cosine:.8f}" in lines
    assert f"{parity.layers[1].max_abs:.1e}" in lines
    assert "6 probe images" in lines
    assert math.isfinite(parity.raw_score_rank_correlation)
