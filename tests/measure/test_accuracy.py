"""The measurements of accuracy: lots from a pool have the product's scores; tables and rules hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from musc_edge import Resources, ScoreSettings, open_bundle, score_lot
from musc_edge.runtime.types import LotImage
from support.accuracy import rules
from support.accuracy.drawn import draw, score_drawn
from support.accuracy.limits_from import PairOfLots, rates
from support.accuracy.measured import Case, Row, image_rows, kept, lots
from support.accuracy.pool import Pool, open_pool
from support.accuracy.products import GOOD, Sample, chosen
from support.accuracy.tables import mean_and_spread, pairs, table
from support.accuracy.verdict_tables import Outcome, summary
from support.lots import write_png

pytestmark = pytest.mark.long


def make_pool(folder: Path, quick_bundle: Path, images: int = 12) -> Pool:
    """A pool of random images, the last two of another kind."""
    kinds = [GOOD] * (images - 2) + ["dent"] * 2
    samples = [
        Sample(write_png(folder / f"lot/{k}.png", (40, 50), seed=k), kind) for k, kind in enumerate(kinds)
    ]
    return open_pool(folder / "pool", "plates", samples, open_bundle(quick_bundle), threads=1)


@pytest.mark.parametrize("group_size", [None, 4])
def test_a_lot_from_a_pool_has_the_scores_of_its_files(
    quick_bundle: Path, tmp_path: Path, group_size: int | None
) -> None:
    pool = make_pool(tmp_path, quick_bundle)
    lot = score_drawn(
        pool, draw(np.random.default_rng(1), (pool.of(GOOD), 7), (pool.of("dent"), 2)), group_size
    )
    names = [LotImage(f"{place}", pool.samples[row].path) for place, row in enumerate(lot.rows)]
    settings = ScoreSettings(degrees=(1, 3), group_size=group_size)
    result = score_lot(names, quick_bundle, settings, Resources(backend="cpu", threads=1))
    raw = lot.raw((1, 3))
    assert np.abs(lot.maps((1, 3)) - result.maps).max() < 1e-5
    assert np.abs(raw - result.raw_scores).max() < 1e-5
    assert np.abs(lot.rescored(raw) - result.scores).max() < 1e-5
    assert lot.labels.sum() == 2


def test_a_pool_goes_on_where_it_was_left(quick_bundle: Path, tmp_path: Path) -> None:
    whole = np.array(make_pool(tmp_path, quick_bundle).near)
    about = json.loads((tmp_path / "pool/pool.json").read_text(encoding="utf-8"))
    (tmp_path / "pool/pool.json").write_text(json.dumps({**about, "rows": 8}), encoding="utf-8")
    near = np.lib.format.open_memmap(tmp_path / "pool/near.npy", "r+")
    near[8:, 8:] = 7
    near[0, 1] = 5  # done before, and not done again
    del near
    again = make_pool(tmp_path, quick_bundle).near
    off = ~np.eye(12, dtype=bool)
    off[0, 1] = False
    assert np.array_equal(again[off], whole[off])
    assert (again[0, 1] == 5).all()


def test_a_pool_of_other_images_is_begun_anew(quick_bundle: Path, tmp_path: Path) -> None:
    make_pool(tmp_path, quick_bundle)
    assert len(make_pool(tmp_path, quick_bundle, images=6).near) == 6


def test_a_smaller_pool_has_the_first_images_and_the_same_lots(quick_bundle: Path, tmp_path: Path) -> None:
    paths = {"good": [Path(f"{k}.png") for k in range(9)], "dent": [Path(f"d{k}.png") for k in range(4)]}
    few, many = chosen(paths, {"good": 3, "dent": 2}), chosen(paths, {"good": 9, "dent": 4})
    assert few == [many[i] for i in (0, 1, 2, 9, 10)]
    pool = make_pool(tmp_path, quick_bundle)
    small = make_pool(tmp_path / "small", quick_bundle, images=8)
    case = Case("plates", "plates", ("dent",), 4, 2)
    for large_rows, rows in zip(lots(pool, case, 3, {GOOD: 6, "dent": 2}), lots(small, case, 3), strict=True):
        assert [min(i, 6) for i in large_rows] == [min(i, 6) for i in rows]


def test_rows_hold_the_metrics_of_a_lot_and_are_kept(quick_bundle: Path, tmp_path: Path) -> None:
    pool = make_pool(tmp_path, quick_bundle)
    lot = score_drawn(pool, np.arange(12))
    found = list(image_rows(lot, "plates", 0, [(1,)]))
    assert {(row.how, row.metric) for row in found} == {
        (how, metric) for how in ("raw", "rescored") for metric in ("auroc", "ap", "f1_max")
    }
    raw = lot.raw((1,))
    above = np.mean([raw[i] > raw[j] for i in (10, 11) for j in range(10)])
    assert found[0].value == pytest.approx(above)
    path = tmp_path / "rows.json"
    assert kept(path, lambda: found) == found
    assert kept(path, list) == found


def row(case: str, draw: int, how: str, value: float) -> Row:
    return Row(case, 224, draw, 50, "1", how, 0, "auroc", value)


def test_a_table_has_means_and_spreads() -> None:
    found = [row("a", 0, "raw", 0.5), row("a", 1, "raw", 0.7), row("b", 0, "rescored", 0.25)]
    assert table(found, [("lots", lambda r: r.case)], lambda r: r.how) == [
        "| lots | raw | rescored |",
        "|---|---|---|",
        "| a | 0.600 ± 0.141 | – |",
        "| b | – | 0.250 |",
    ]
    assert mean_and_spread([float("nan")]) == "–"


def test_pairs_show_every_lot() -> None:
    found = [row("a", k, how, v) for k, (r, s) in enumerate([(0.5, 0.6), (0.8, 0.76)]) for how, v in
             (("raw", r), ("rescored", s))]  # fmt: skip
    assert pairs(found)[2] == "| a | 50 | 1 | 0.500 → 0.600, 0.800 → 0.760 | +0.030 |"


# ---- rules ---------------------------------------------------------------------------------------

EVEN = 0.4 + 0.1 * -np.log(-np.log((np.arange(60) + 0.5) / 60))  # a Gumbel distribution's own quantiles
WITH_TWO = np.append(EVEN[:58], [2.0, 3.0])


@pytest.mark.parametrize("name", sorted(set(rules.RULES) - {"Otsu"}))
def test_rules_reject_what_is_far_out(name: str) -> None:
    rejected = rules.RULES[name](WITH_TWO)
    assert rejected[-2:].all()
    assert rejected.sum() <= 4


@pytest.mark.parametrize("name", sorted(rules.RULES))
def test_rules_reject_none_of_equal_scores(name: str) -> None:
    assert not rules.RULES[name](np.full(30, 0.5)).any()


def test_gumbel_p_is_that_of_the_distribution() -> None:
    p = rules.gumbel_p(EVEN)
    assert p == pytest.approx(1 - (np.arange(60) + 0.5) / 60, abs=1e-6)
    assert not rules.RULES["Gumbel, Benjamini-Hochberg 20 %"](EVEN).any()
    assert not rules.RULES["Gumbel, family-wise 5 %"](EVEN).any()


def test_otsu_rejects_by_construction() -> None:
    assert rules.otsu(EVEN).any()


def test_tests_of_several_p() -> None:
    p = np.array([0.001, 0.02, 0.03, 0.5])
    assert rules.family_wise(p, 0.05).tolist() == [True, False, False, False]


def test_a_mixture_needs_two_groups() -> None:
    rng = np.random.default_rng(0)
    one = np.exp(rng.normal(-1, 0.1, 60))
    two = np.append(one[:48], np.exp(rng.normal(0, 0.1, 12)))
    assert not rules.mixture(one, gain=10).any()
    assert np.flatnonzero(rules.mixture(two, gain=10)).tolist() == list(range(48, 60))
    assert not rules.mixture(two, gain=10, most=0.1).any()


def test_mebin_keeps_the_spot_that_stays_one_part() -> None:
    maps = np.full((3, 64, 64), 0.2, np.float32)
    maps[1, 10:30, 10:30] = 0.9
    maps[2, 40:43, 40:43] = 0.85  # smaller than the square of the erosion
    assert rules.mebin(maps).tolist() == [False, True, False]
    assert not rules.mebin(np.full((2, 8, 8), 0.3, np.float32)).any()


def test_summary_counts_good_lots_apart() -> None:
    labels = np.array([False, False, False, True])
    found = summary(
        [
            Outcome(np.zeros(4, bool), np.array([True, False, False, False])),
            Outcome(np.zeros(4, bool), np.zeros(4, bool)),
            Outcome(labels, np.array([False, True, False, True])),
        ]
    )
    assert (found.false_in_good, found.lots_hit) == (1 / 8, 1 / 2)
    assert (found.false_in_bad, found.recall, found.precision) == (1 / 3, 1.0, 1 / 2)


def test_rates_of_a_limit_from_another_lot() -> None:
    other = np.array([0.1, 0.6, 0.9, 0.4])
    good = np.array([0.1, 0.2, 0.5])
    pair = PairOfLots("a", (3, 4, None), 0.5, {"1": good}, {"1": other}, np.array([False, False, True, True]))
    assert rates([pair], "1", 0.0) == (0.5, 1.0, 0.5, 0.5)
    assert rates([pair], "1", 0.4) == (0.5, 1.0, 1.0, 0.5)
