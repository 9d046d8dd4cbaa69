"""The measurement of choices: variants by hand, paired differences, and that further images are others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from measure import choices
from musc_edge.runtime.scoring.rescore import in_distance_units, rescore
from musc_edge.runtime.settings import AUTO
from musc_edge.runtime.types import Array
from support.accuracy.choice_lots import by_lot
from support.accuracy.drawn import DrawnLot
from support.accuracy.measured import Row
from support.accuracy.paired import Paired, difference_line, paired
from support.accuracy.pool import Pool, within
from support.accuracy.products import FURTHER, GOOD, LARGE, Sample, chosen, further, judging
from support.accuracy.variants import CLS, SALIENT, Variant, less_median, residuals

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
    assert np.array_equal(Variant((1, 5), rescore=CLS).scores(lot), lot.rescored(lot.raw((1, 5))))
    assert [v.name for v in (less, Variant((1,), residual=0.95))] == ["1,5, less 0.5 median", "residual 0.95"]


def test_salient_patches_rescore_by_their_tokens() -> None:
    lot = a_lot()
    assert lot.pool.tokens is not None
    maps = less_median(lot.maps((1, 5)), 0.5)
    patches = [max(range(12), key=image.ravel().__getitem__) for image in maps]
    chosen = np.stack([lot.pool.tokens[:, row, patch] for row, patch in enumerate(patches)])
    chosen /= np.linalg.norm(chosen, axis=2, keepdims=True) * 2**0.5
    raw = Variant((1, 5), 0.5).scores(lot)
    expected = in_distance_units(rescore(raw, chosen.reshape(8, -1), (1, 7)), raw)
    assert Variant((1, 5), 0.5, rescore=SALIENT).scores(lot) == pytest.approx(expected, abs=1e-6)


def test_the_median_is_subtracted_where_the_lot_is_aligned() -> None:
    maps = np.tile(np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(GRID), (8, 1, 1))
    assert np.array_equal(less_median(maps, AUTO), maps / 2)
    texture = np.random.default_rng(0).random((40, 30, 30), np.float32)
    assert np.array_equal(less_median(texture, AUTO), texture)


def test_a_pool_is_compared_within_a_window(tmp_path: Path) -> None:
    pool = replace(a_lot(3).pool, near=np.zeros((3, 3, 2, 3, 12), np.float32))
    assert pool.tokens is not None
    pool.tokens[:, 1, 0] = pool.tokens[:, 0, 11]  # at the other end of the grid
    everywhere, here = (within(tmp_path / str(window), pool, window).near for window in (4, 1))
    assert everywhere[0, 1, :, 0, 11] == pytest.approx(0, abs=0.05)
    assert (here[0, 1, :, 0, 11] > 0.1).all()
    assert np.array_equal(within(tmp_path / "1", pool, 1).near, here)


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
    good, bad = {"mono cells": (588, 313), "poly cells": (920, 402), "textiles": (1000, 500)}[product]
    images = {
        kind: [Path(f"{kind}-{k}") for k in range(good if kind == GOOD else bad)]
        for kind in FURTHER[224][product]
    }
    pools = [
        chosen(images, LARGE[product]),
        *(further(product, images, 224, number) for number in range(3)),
        *(judging(product, images, number) for number in range(3)),
    ]
    every = [sample.path for pool in pools for sample in pool if sample.kind in images]
    assert len(every) == len(set(every))
    smaller = further(product, images, 392, 1)
    assert {sample.path for sample in smaller} < {sample.path for sample in pools[2]}
    with pytest.raises(SystemExit, match="are left for pool 90"):
        judging(product, images, 90)
