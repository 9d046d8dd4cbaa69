"""The measurement of choices: variants by hand, paired differences, and that further images are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from measure import choices
from musc_edge.runtime.types import Array
from support.accuracy.choice_lots import by_lot
from support.accuracy.drawn import DrawnLot
from support.accuracy.measured import Row
from support.accuracy.paired import Paired, difference_line, paired
from support.accuracy.pool import Pool
from support.accuracy.products import FURTHER, GOOD, LARGE, Sample, chosen, further
from support.accuracy.variants import Variant, less_median, residuals

GRID = (3, 4)


def a_lot(images: int = 8) -> DrawnLot:
    """A lot of random maps and tokens; the last image is defective."""
    rng = np.random.default_rng(3)
    kinds = [GOOD] * (images - 1) + ["dent"]
    samples = tuple(Sample(Path(f"{k}.png"), kind) for k, kind in enumerate(kinds))
    cls = rng.random((images, 6), np.float32)
    tokens = rng.standard_normal((2, images, 12, 10)).astype(np.float32)
    pool = Pool("plates", samples, (9, 12), GRID, cls, np.zeros(0), tokens)
    return DrawnLot(pool, np.arange(images), rng.random((3, images, 12), np.float32))


def test_a_variant_subtracts_the_median_and_rescores() -> None:
    lot = a_lot()
    maps = lot.maps((1, 5))
    by_hand = maps.astype(float).copy()
    for row in range(3):
        for column in range(4):
            by_hand[:, row, column] -= 0.5 * sorted(maps[:, row, column])[3:5][0] / 2
            by_hand[:, row, column] -= 0.5 * sorted(maps[:, row, column])[3:5][1] / 2
    assert less_median(maps, 0.5) == pytest.approx(by_hand, abs=1e-6)
    plain, less = Variant((1, 5)), Variant((1, 5), 0.5)
    assert np.array_equal(plain.scores(lot), lot.raw((1, 5)))
    assert (less.scores(lot) < plain.scores(lot)).all()
    assert np.array_equal(Variant((1, 5), rescored=True).scores(lot), lot.rescored(lot.raw((1, 5))))
    assert [v.name for v in (less, Variant((1,), residual=0.95))] == ["1,5, less 0.5 median", "residual 0.95"]


def test_residuals_are_what_a_pca_leaves() -> None:
    lot = a_lot()
    assert lot.pool.tokens is not None
    found = residuals(lot.pool.tokens, GRID, 0.8)
    of_layers = []
    for layer in lot.pool.tokens.astype(float):
        centred = layer - layer.mean(axis=(1, 2), keepdims=True)
        flat = (centred / np.linalg.norm(centred, axis=2, keepdims=True)).reshape(-1, 10)
        flat -= flat.mean(axis=0)
        _, lengths, components = np.linalg.svd(flat, full_matrices=False)
        shares = np.cumsum(lengths**2) / (lengths**2).sum()
        kept = components[: int((shares < 0.8).sum()) + 1]
        of_layers.append(np.linalg.norm(flat - flat @ kept.T @ kept, axis=1).reshape(8, 12))
    assert found == pytest.approx(np.mean(of_layers, axis=0), abs=1e-5)
    assert Variant((1,), residual=0.8).maps(lot).reshape(8, 12) == pytest.approx(found)


def line_of(differences: Array) -> Paired:
    return Paired(("a", "b"), differences)


def test_a_lot_whose_interval_lies_below_has_a_veto() -> None:
    found = line_of(np.array([[0.10, 0.11, 0.12], [-0.03, -0.03, -0.031]]))
    assert found.vetoes == found.lower == ["b"]
    assert found.verdict == "vetoed"
    mean, half = found.interval(0)
    assert (mean, half) == pytest.approx((0.11, 4.3027 * 0.01 / 3**0.5), abs=1e-4)
    assert difference_line("x", found, ["a", "b"]).startswith(
        "| x | +0.110 ± 0.025 | **-0.030 ± 0.001** | +0.040 (0.003)"
    )


def test_a_lot_without_values_has_a_dash() -> None:
    found = paired({"a": np.array([0.5, 0.6])}, {"a": np.array([0.4, 0.4]), "b": np.array([0.1, 0.2])})
    assert found.lots == ("a",)
    assert difference_line("x", found, ["a", "b"]).endswith("| – | – | – |")


def test_an_uncertain_lot_has_none_but_is_said() -> None:
    found = line_of(np.array([[0.10, 0.11, 0.12], [-0.10, 0.06, -0.02]]))
    assert (found.vetoes, found.lower) == ([], ["b"])
    assert found.mean[0] == pytest.approx(0.045)
    assert line_of(found.differences * [[1], [-1]]).verdict == "may"
    assert line_of(-found.differences).verdict == "not enough"


def test_values_are_paired_by_lot_and_draw() -> None:
    rows = [
        Row(lot, 224, draw, 5, variant.name, "further", 0, "auroc", value)
        for variant, shift in ((choices.PAPER, 0.0), (choices.DEFAULT, 0.25))
        for lot in ("a", "b")
        for draw, value in enumerate((0.25 + shift, 0.5 + shift))
    ]
    found = paired(by_lot(rows, choices.DEFAULT, "auroc"), by_lot(rows, choices.PAPER, "auroc"))
    assert found.differences.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    table = choices.presets_table(rows, 224)
    assert table[0] == "| lots | paper, AUROC | default, AUROC |"
    assert table[2] == "| a | 0.375 ± 0.177 | 0.625 ± 0.177 |"
    assert choices.falls(rows, 224) == [
        f"- default ({choices.DEFAULT.name}): mean below −0.01: none; veto: none; may."
    ]


@pytest.mark.parametrize("product", [product for product in LARGE if product != "magnetic tiles"])
def test_further_images_are_in_no_other_pool(product: str) -> None:
    counts = {"mono cells": 313, "poly cells": 402, "textiles": 500}[product]
    images = {
        kind: [Path(f"{kind}-{k}") for k in range(1000 if kind == GOOD else counts)]
        for kind in FURTHER[224][product]
    }
    pools = [chosen(images, LARGE[product]), *(further(product, images, 224, number) for number in range(3))]
    every = [sample.path for pool in pools for sample in pool if sample.kind in images]
    assert len(every) == len(set(every))
    smaller = further(product, images, 392, 1)
    assert {sample.path for sample in smaller} < {sample.path for sample in pools[2]}
