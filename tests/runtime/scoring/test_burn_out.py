"""Burn-out: where a patch's interval begins, held against the formula in plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.burn_out import burn_out_mean
from musc_edge.runtime.scoring.interval import interval_mean
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.nearest import count_neighbors
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.scoring.row import RowScorer, WholeBank
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array, FloatArray
from support import oracle
from support.repeated import GRID, repeated_defect

METHOD = Method(GRID, (1, 3), burn_out=True)
METHOD_IN_WINDOW = replace(METHOD, near=0)


def store_of(tokens: Array) -> HostStore:
    return HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))


def scored(
    tokens: Array, method: Method = METHOD, kind: str = "numpy", needs: HostNeeds | None = None
) -> tuple[FloatArray, FloatArray]:
    """Mutual scores (N,P), and the share of layers and degrees in which a patch's interval began later."""
    scorer, store = CpuScorer(method, kind), store_of(tokens)
    later = np.full((tokens.shape[1], tokens.shape[2]), np.nan, np.float32)
    plan = scorer.plan(store.shape, 4, needs or HostNeeds(threads=2))
    return scorer.score(store, plan, later=later), later


def sorted_gap(judges: int, k: int, gap: float) -> list[float]:
    """Distances with a median of about 1 and one gap, behind the k-th."""
    return [0.9 - gap + 1e-4 * i if i < k else 0.9 + 0.2 * (i - k) / (judges - k) for i in range(judges)]


@pytest.mark.parametrize(
    ("judges", "k", "gap", "left_out"),
    [
        (20, 2, 0.2, 2),  # the first k that is looked at
        (20, 1, 0.2, 0),
        (20, 6, 0.2, 6),  # and the last one
        (20, 7, 0.2, 0),
        (21, 3, 0.2, 3),  # ceil(2.1)
        (21, 2, 0.2, 0),
        (20, 4, 0.09, 0),  # a tenth of the median decides
        (20, 4, 0.11, 4),
        (4, 1, 0.2, 1),  # the smallest lot
    ],
)
def test_the_interval_begins_behind_the_gap(judges: int, k: int, gap: float, left_out: int) -> None:
    values = np.array(sorted_gap(judges, k, gap), np.float32)
    stop = int(0.3 * judges)
    shuffled = np.random.default_rng(k).permutation(values)[:, None]
    mean, later = burn_out_mean(shuffled, stop)
    assert later.tolist() == [left_out > 0]
    assert mean[0] == np.mean(values[left_out : left_out + stop], dtype=np.float64).astype(np.float32)
    assert oracle.burnt(values.tolist(), stop) == left_out


@pytest.mark.parametrize("judges", [4, 5, 9, 10, 11, 29, 30, 31, 100, 333])
@pytest.mark.parametrize("kind", ["random", "ties", "zeros", "equal"])
def test_every_patch_begins_where_the_formula_says(judges: int, kind: str) -> None:
    rng = np.random.default_rng(judges)
    distances = rng.gamma(2, 0.3, (judges, 200)).astype(np.float32)
    distances[: judges // 5, ::2] *= np.float32(0.5)
    if kind == "ties":
        distances = (np.ceil(distances * 4) / 4).astype(np.float32)
    if kind == "zeros":
        distances[rng.uniform(size=distances.shape) < 0.4] = 0
    if kind == "equal":
        distances[:] = np.float32(0.3)
    stop = int(0.3 * judges)
    mean, later = burn_out_mean(distances, stop)
    for p, column in enumerate(np.sort(distances, axis=0).T):
        first = oracle.burnt(column.astype(np.float64).tolist(), stop)
        assert later[p] == (first > 0)
        assert mean[p] == pytest.approx(np.mean(column[first : first + stop].astype(np.float64)), rel=1e-7)


def test_a_patch_without_a_gap_has_the_papers_bytes() -> None:
    distances = np.random.default_rng(0).uniform(0.95, 1.05, (40, 300)).astype(np.float32)
    mean, later = burn_out_mean(distances, 12)
    assert not later.any()
    assert mean.tobytes() == interval_mean(distances, 0, 12).tobytes()


@pytest.mark.parametrize("alone", [4, 3])
def test_judges_without_a_neighbor_make_no_gap(alone: int) -> None:
    far = np.sqrt(np.float32(alone))  # of a patch with content, and of one without
    few = np.array([0.5] * 4 + [far] * 16, np.float32)
    twins = np.array([0.2] * 2 + [0.9] * 10 + [far] * 8, np.float32)
    distances = np.stack([few, twins, np.array([0.2] * 2 + [0.9] * 6 + [far] * 12, np.float32)], axis=1)
    assert count_neighbors(distances).tolist() == [4, 12, 8]
    mean, later = METHOD_IN_WINDOW.average(distances)
    assert later.tolist() == [0, 1, 1]
    np.testing.assert_allclose(mean, [(4 * 0.5 + 2 * far) / 6, 0.9, 0.9], rtol=1e-6)
    assert METHOD.average(distances)[0, 0] == far  # where it is a distance as any other


def test_no_interval_begins_where_too_few_neighbors_are_behind() -> None:
    distances = np.array([[0.2] * 2 + [0.9] * 5 + [2.0] * 13], np.float32).T
    mean, later = METHOD_IN_WINDOW.average(distances)
    assert later.tolist() == [0]
    assert mean[0] == interval_mean(distances, 0, 6)[0]


def test_where_each_judge_has_a_neighbor_a_window_changes_no_byte() -> None:
    distances = np.random.default_rng(2).gamma(2, 0.3, (40, 200)).clip(0, 1.7).astype(np.float32)
    assert METHOD_IN_WINDOW.average(distances).tobytes() == METHOD.average(distances).tobytes()


@pytest.mark.parametrize("kind", ["numpy", "numba"])
def test_a_window_with_a_region_for_each_image_raises_no_false_alarm(kind: str) -> None:
    tokens = np.random.default_rng(0).normal(1, 0.3, (1, 20, 12, 24)).astype(np.float32)
    tokens[:, :, :, 0] += np.arange(12) % 3 * 4  # places alike over the images
    inside = np.ones((20, 12), bool)
    inside[4:, :4] = False  # most images have nothing to compare the first rows with
    scorer = CpuScorer(replace(METHOD_IN_WINDOW, degrees=(1,)), kind)
    store, later = store_of(tokens), np.empty((20, 12), np.float32)
    found = scorer.score(store, scorer.plan(store.shape, 4), later=later, inside=inside)
    assert not later[:4, 0].any()
    assert found[:4, 0].max() < 1.9


@pytest.mark.parametrize("kind", ["numpy", "numba"])
def test_a_lot_is_scored_as_the_oracle_scores_it(kind: str) -> None:
    tokens = repeated_defect(images=14, defective=4)
    found, later = scored(tokens, kind=kind)
    expected = oracle.mutual_scores(tokens, GRID, METHOD.degrees, METHOD.interval, burn_out=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert later[:4].max() == 1


def test_a_defect_on_several_images_stands_out_again() -> None:
    tokens = repeated_defect(images=30, defective=6)
    paper, _ = scored(tokens, replace(METHOD, burn_out=False))
    found, _ = scored(tokens)
    assert paper.max(axis=1)[:6].max() < paper.max(axis=1)[6:].max()
    assert found.max(axis=1)[:6].min() > found.max(axis=1)[6:].max()


def test_neither_order_nor_threads_nor_plan_change_a_byte() -> None:
    tokens = repeated_defect(images=17, defective=4)
    expected, later = scored(tokens)
    for needs in (HostNeeds(threads=1), HostNeeds(threads=3), HostNeeds(threads=2, keep=True)):
        again = scored(tokens, needs=needs)
        assert [values.tobytes() for values in again] == [expected.tobytes(), later.tobytes()]
    order = np.random.default_rng(1).permutation(17)
    turned = scored(np.ascontiguousarray(tokens[:, order]))
    np.testing.assert_allclose(turned[0], expected[order], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(turned[1], later[order])


def test_few_judges_decide_by_their_own_number() -> None:
    tokens = repeated_defect(images=16, defective=5)
    found, _ = scored(tokens, replace(METHOD, group_size=10))
    everyone, _ = scored(tokens)
    assert not np.array_equal(found, everyone)
    assert found.max(axis=1)[:5].mean() > found.max(axis=1)[5:].mean()


def test_an_image_against_a_reference_is_scored_as_last_of_a_lot() -> None:
    tokens = repeated_defect(images=14, defective=4)[:, ::-1]
    bank = WholeBank.of(METHOD, CpuScorer(METHOD, "numpy")._filter(), list(tokens[:, :-1]), 2)
    with RowScorer(bank, 2) as row:
        found = row.score(list(tokens[:, -1]))
    np.testing.assert_allclose(found.ravel(), scored(tokens)[0][-1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("interval", [(0.1, 0.4), (0.0, 0.1), (0.0, 0.6)])
def test_intervals_without_meaning_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(LotError, match=r"burn-out with the interval .* at most 0.5, such as 0, 0.3"):
        replace(METHOD, interval=interval)


def test_without_burn_out_no_interval_begins_later() -> None:
    assert not scored(repeated_defect(images=14, defective=4), replace(METHOD, burn_out=False))[1].any()
