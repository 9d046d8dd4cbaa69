"""Who judges whom: balanced, the same every time, and every pair compared exactly once."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring.judges import Judges, by_image, choose, everyone
from musc_edge.runtime.types import Cell

CIRCLES = [(2, 1), (5, 4), (7, 2), (8, 3), (9, 4), (9, 8), (12, 5), (12, 11), (13, 6), (20, 7), (31, 10)]
CUTS = [(1, 1), (1, 3), (2, 2), (3, 1), (4, 3), (7, 2), (16, 2), (200, 1)]
CUT_CIRCLES = [*CIRCLES, (40, 1), (64, 8), (65, 64), (99, 2), (100, 51)]


def circle(images: int, count: int) -> Judges:
    return Judges(np.arange(images), count)


def judged_pairs(judges: Judges) -> set[tuple[int, int]]:
    """All pairs of places (a, b), a < b, that judge each other."""
    return {
        (min(a, int(b)), max(a, int(b))) for a in range(judges.images) for b in judges.of(a)
    }  # fmt: skip


def has_pairs(judges: Judges, cell: Cell, block: int) -> bool:
    return any(True for _ in judges.pairs_of(cell, block))


# ---- who judges ------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "count"), CIRCLES)
def test_everyone_judges_and_is_judged_equally_and_in_turn(images: int, count: int) -> None:
    judges = circle(images, count)
    table = np.zeros((images, images), bool)  # judged, judge
    for place in range(images):
        assert len(judges.of(place)) == count
        table[place, judges.of(place)] = True
    assert not table.diagonal().any()
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(table.sum(axis=0), count)
    np.testing.assert_array_equal(table.sum(axis=1), count)
    assert judges.pairs == table.sum() // 2


@pytest.mark.parametrize(("images", "count"), CIRCLES)
def test_index_of_is_the_position_among_the_judges(images: int, count: int) -> None:
    judges = circle(images, count)
    for place in range(images):
        found = [judges.index_of(place, judge) for judge in range(images)]
        of = judges.of(place).tolist()
        assert sorted(index for index in found if index is not None) == list(range(count))
        assert all(index is None or of[index] == judge for judge, index in enumerate(found))
        assert found[place] is None


def test_with_all_judges_it_is_the_papers_lot() -> None:
    for images in (5, 6):
        judges = everyone(images)
        assert judges.order.tolist() == list(range(images))
        assert all(set(judges.of(place)) == set(range(images)) - {place} for place in range(images))


@pytest.mark.parametrize("group", [None, 8, 9, 10**6])
def test_a_group_as_large_as_the_lot_is_the_lot(group: int | None) -> None:
    chosen = choose(9, group)
    assert chosen.count == 8
    assert chosen.order.tolist() == list(range(9))


@pytest.mark.parametrize(
    ("images", "group", "count"),
    [(10, 4, 4), (10, 5, 5), (11, 4, 4), (11, 5, 6), (11, 9, 10), (12, 1, 1), (13, 1, 2), (501, 99, 100)],
)
def test_an_odd_group_of_an_odd_lot_takes_one_more(images: int, group: int, count: int) -> None:
    judges = choose(images, group)
    assert judges.count == count
    assert sorted(judges.order.tolist()) == list(range(images))
    assert judges.pairs * 2 == images * count


def test_the_choice_is_fixed() -> None:
    judges = choose(10, 4)
    assert judges.order.tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    judged_by = {int(judges.order[p]): sorted(judges.order[judges.of(p)].tolist()) for p in range(10)}
    assert judged_by[2] == [0, 4, 5, 8]
    assert judged_by[6] == [1, 3, 7, 9]
    assert choose(1000, 20).order[:6].tolist() == [993, 859, 298, 553, 672, 971]
    np.testing.assert_array_equal(choose(1000, 20).order, choose(1000, 31).order)


@pytest.mark.parametrize("group", [0, -1])
def test_no_judges_are_refused(group: int) -> None:
    with pytest.raises(LotError, match="1 or more"):
        choose(10, group)


# ---- in which order --------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "count"), CUT_CIRCLES)
def test_groups_hold_every_pair_once_in_little_room(images: int, count: int) -> None:
    judges = circle(images, count)
    for block, blocks_in_memory in CUTS:
        seen: list[tuple[int, int]] = []
        for group in judges.groups(block, blocks_in_memory):
            assert group
            assert len({i for cell in group for i in cell}) <= 2 * blocks_in_memory
            for cell in group:
                pairs = list(judges.pairs_of(cell, block))
                assert pairs
                for a, b, there, back in pairs:
                    assert (a // block, b // block) == cell
                    assert (judges.of(a)[there], judges.of(b)[back]) == (b, a)
                seen += [(a, b) for a, b, _, _ in pairs]
        assert len(seen) == judges.pairs
        assert set(seen) == judged_pairs(judges)


@pytest.mark.parametrize(("images", "count"), CUT_CIRCLES)
def test_cells_do_not_depend_on_what_is_in_memory(images: int, count: int) -> None:
    judges = circle(images, count)
    for block, blocks_in_memory in CUTS:
        blocks = -(-images // block)
        cells = [cell for group in judges.groups(block, blocks_in_memory) for cell in group]
        expected = {
            (i, j) for i, j in product(range(blocks), repeat=2) if i <= j and has_pairs(judges, (i, j), block)
        }
        assert set(cells) == expected
        assert len(cells) == len(expected)


@pytest.mark.parametrize(("images", "count"), CUT_CIRCLES)
def test_loads_are_those_of_going_through_the_groups(images: int, count: int) -> None:
    judges = circle(images, count)
    for block, blocks_in_memory in CUTS:
        memory: list[int] = []
        loads = 0
        for group in judges.groups(block, blocks_in_memory):
            needed = [i for cell in group for i in cell]
            memory = [i for i in memory if i in needed]
            for i in needed:
                if i not in memory:
                    memory.append(i)
                    loads += 1
        assert judges.loads(block, blocks_in_memory) == loads


def test_few_judges_need_few_loads() -> None:
    judges = choose(1000, 20)
    assert judges.loads(10, 100) == 100  # everything stays
    assert judges.loads(10, 2) < 400
    assert everyone(1000).loads(10, 2) > 1000


# ---- by image again --------------------------------------------------------------------------


@pytest.mark.parametrize("burn_out", [False, True])
def test_what_was_measured_by_place_is_told_by_image(burn_out: bool) -> None:
    judges = choose(6, 2)
    by_place = np.arange(12.0).reshape(6, 2)
    measured = np.stack([by_place, by_place / 12])[: 1 + burn_out]
    later = np.full((6, 2), np.nan, np.float32)
    scores = by_image(measured, judges, later)
    for place, image in enumerate(judges.order):
        assert scores[image].tolist() == by_place[place].tolist()
        expected = by_place[place] / 12 if burn_out else np.zeros(2)
        np.testing.assert_array_equal(later[image], expected.astype(np.float32))
    np.testing.assert_array_equal(by_image(measured, judges, None), scores)
