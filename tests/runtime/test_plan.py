"""The memory plan: its arithmetic, its promises, and what it says when a budget is too small."""

from __future__ import annotations

import re
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.mutual import NumpyScorer
from musc_edge.runtime.plan import TILE_COLUMNS, make_plan
from musc_edge.runtime.store import HostStore
from musc_edge.runtime.types import Plan

Shape = tuple[int, int, int, int]

SHAPES: list[Shape] = [
    (4, 90, 1369, 1024),  # ViT-L/14-336 at 518
    (4, 500, 256, 384),
    (1, 5, 1, 1),
    (2, 129, 16, 384),  # one image more than a tile
    (2, 300, 1024, 8),
    (3, 7, 4096, 16),
]


def every_plan(shape: Shape, itemsize: int = 4) -> list[Plan]:
    """All plans that a budget can lead to, from the largest to the smallest."""
    plans = [make_plan(shape, itemsize, None)]
    while True:
        try:
            plans.append(make_plan(shape, itemsize, plans[-1].memory_bytes - 1))
        except LotError:
            return plans


def smallest_named(message: str) -> int:
    """Bytes of the smallest budget that works, as a message names it."""
    (megabytes,) = re.findall(r"smallest that works is (\d+) MB", message)
    return int(megabytes) * 10**6


# ---- arithmetic, by hand ---------------------------------------------------------------------


def test_bytes_when_everything_fits() -> None:
    plan = make_plan((2, 5, 1024, 4), 2, None)
    assert (plan.tile, plan.resident) == (2, 6)  # 2048 // 1024; 5 images are three tiles
    assert plan.token_bytes == 2 * 5 * 1024 * 4 * 2 == 81_920
    assert plan.minima_bytes == 5 * 5 * 1024 * 4 == 102_400
    # one block of five features, one product of an image by a tile, five tiles of features in the making
    assert plan.workspace_bytes == 81_920 + 8_388_608 + 163_840
    assert plan.memory_bytes == 81_920 + 102_400 + 8_634_368
    assert not plan.tokens_on_disk
    assert not plan.minima_on_disk


@pytest.mark.parametrize(
    ("budget", "resident", "tokens_on_disk", "minima_on_disk", "memory"),
    [
        (8_818_688, 6, False, False, 8_818_688),
        (8_818_687, 6, False, True, 8_716_288),
        (8_716_288, 6, False, True, 8_716_288),
        (8_716_287, 6, True, True, 8_634_368),
        (8_634_367, 2, True, True, 8_617_984),  # two blocks of two images instead of one of five
    ],
)
def test_what_moves_to_disk_first(
    budget: int, resident: int, tokens_on_disk: bool, minima_on_disk: bool, memory: int
) -> None:
    plan = make_plan((2, 5, 1024, 4), 2, budget)
    assert plan.budget == budget
    assert plan.resident == resident
    assert (plan.tokens_on_disk, plan.minima_on_disk) == (tokens_on_disk, minima_on_disk)
    assert plan.memory_bytes == memory


def test_bytes_of_the_papers_model() -> None:
    plan = make_plan((4, 200, 1369, 1024), 2, None)
    assert plan.token_bytes == 2_242_969_600
    assert plan.minima_bytes == 219_040_000
    feature, product = 5_607_424, 7_496_644
    assert plan.workspace_bytes == 200 * feature + product + 5 * feature


# ---- promises --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_no_budget_keeps_all_in_memory(shape: Shape) -> None:
    plan = make_plan(shape, 4, None)
    assert plan.resident >= shape[1]
    assert not plan.tokens_on_disk
    assert not plan.minima_on_disk
    assert plan.memory_bytes == plan.token_bytes + plan.minima_bytes + plan.workspace_bytes
    enough = make_plan(shape, 4, plan.memory_bytes)
    assert (enough.resident, enough.memory_bytes) == (plan.resident, plan.memory_bytes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_every_plan_fits_its_budget(shape: Shape, itemsize: int) -> None:
    plans = every_plan(shape, itemsize)
    assert len(plans) >= 3
    for plan in plans[1:]:
        assert plan.memory_bytes <= plan.budget
        assert plan.memory_bytes == plan.workspace_bytes + (
            (0 if plan.tokens_on_disk else plan.token_bytes)
            + (0 if plan.minima_on_disk else plan.minima_bytes)
        )
        assert plan.resident % plan.tile == 0
        assert plan.resident >= plan.tile


@pytest.mark.parametrize("shape", SHAPES)
def test_larger_budgets_never_give_less(shape: Shape) -> None:
    plans = every_plan(shape)
    least, most = plans[-1].memory_bytes, plans[0].memory_bytes
    budgets = [int(budget) for budget in np.linspace(least, most * 1.1, 60)]
    found = [make_plan(shape, 4, budget) for budget in budgets]
    for small, large in pairwise(found):
        assert small.resident <= large.resident
        assert small.tokens_on_disk >= large.tokens_on_disk
        assert small.minima_on_disk >= large.minima_on_disk
        assert small.memory_bytes <= large.memory_bytes


@pytest.mark.parametrize("patches", [1, 6, 256, 1024, 1369, 2048, 2049, 5000])
def test_tile_depends_on_the_patches_alone(patches: int) -> None:
    tiles = {
        plan.tile
        for images, width, layers in [(5, 8, 1), (50, 384, 4), (333, 1024, 2)]
        for plan in every_plan((layers, images, patches, width))
    }
    assert tiles == {max(1, TILE_COLUMNS // patches)}


# ---- too small -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_smallest_budget_that_is_named_works_and_is_the_smallest(shape: Shape, itemsize: int) -> None:
    with pytest.raises(LotError) as caught:
        make_plan(shape, itemsize, 1)
    named = smallest_named(str(caught.value))
    assert make_plan(shape, itemsize, named).memory_bytes <= named
    with pytest.raises(LotError):
        make_plan(shape, itemsize, max(named - 2 * 10**6, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_same_smallest_budget_is_named_whatever_was_asked(shape: Shape) -> None:
    least = every_plan(shape)[-1].memory_bytes
    named = set()
    for budget in (0, 1, least // 2, least - 1):
        with pytest.raises(LotError) as caught:
            make_plan(shape, 4, budget)
        named.add(smallest_named(str(caught.value)))
    assert len(named) == 1


def test_message_says_what_was_asked_of_what(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LotError, match=r"budget of 20 MB.*90 images of 1369 patches.*smallest that works"):
        make_plan((4, 90, 1369, 1024), 4, 20 * 10**6)


# ---- kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [8, 2, 1])  # two blocks of 4 take as much as one of 8
def test_scorer_keeps_to_the_plan(resident: int, tmp_path: Path) -> None:
    shape = (1, 8, 1369, 128)
    plan = next(plan for plan in reversed(every_plan(shape)) if plan.resident == resident)
    assert plan.minima_on_disk
    tokens = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    store = HostStore(tokens, np.empty((shape[1], 0), np.float32))
    tracemalloc.start()
    try:
        NumpyScorer((37, 37), (3,), (0.0, 0.5), tmp_path).score(store, plan)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.03 * plan.workspace_bytes
