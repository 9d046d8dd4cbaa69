"""The memory plan: its arithmetic, its promises, and what it says when a budget is too small."""

from __future__ import annotations

import dataclasses
import re
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musc_edge.runtime.errors import LotError
from musc_edge.runtime.scoring import mutual
from musc_edge.runtime.scoring.image_pairs import load_filter
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import UNLIMITED, HostNeeds, LotSize, block_images, make_plan
from musc_edge.runtime.types import Plan
from support.lots import every_plan, random_store

SIZES = [
    LotSize(4, 90, 1369, 1024, 2, 3, 89),  # ViT-L/14-336 at 518
    LotSize(4, 500, 256, 384, 4, 3, 499),
    LotSize(4, 5000, 256, 384, 4, 3, 200),
    LotSize(1, 5, 1, 1, 4, 1, 4),
    LotSize(2, 33, 16, 384, 4, 2, 32),  # one image more than two blocks
    LotSize(2, 300, 1024, 8, 2, 1, 299),
    LotSize(3, 7, 4096, 16, 4, 3, 6),
]
BY_HAND = LotSize(layers=2, images=20, patches=1024, width=4, itemsize=2, degree_count=1, judge_count=19)


def plans_of(size: LotSize) -> list[Plan]:
    """All plans that a budget can lead to, from the largest to the smallest."""
    plans = [make_plan(size, UNLIMITED)]
    while True:
        try:
            plans.append(make_plan(size, HostNeeds(plans[-1].memory_bytes - 1)))
        except LotError:
            return plans


def smallest_named(message: str) -> int:
    """Bytes of the smallest budget that works, as a message names it."""
    (megabytes,) = re.findall(r"smallest that works is (\d+) MB", message)
    return int(megabytes) * 10**6


# ---- arithmetic, by hand ---------------------------------------------------------------------


def test_bytes_when_everything_fits() -> None:
    plan = make_plan(BY_HAND, UNLIMITED)
    assert (plan.block, plan.blocks_in_memory) == (2, 10)  # 2048 // 1024; 20 images are ten blocks
    assert plan.token_bytes == 2 * 20 * 1024 * 4 * 2 == 327_680
    assert plan.cosine_bytes == 20 * 19 * 1024 * 4 == 1_556_480
    # all images as float32; a length for each layer and three scores (24 bytes) per patch; an image with two
    # sums of it; and a product of two images
    assert plan.workspace_bytes == 327_680 + 20 * 1024 * (2 * 4 + 24) + 57_344 + 4_194_304 == 5_234_688
    assert plan.memory_bytes == 327_680 + 1_556_480 + 5_234_688
    assert plan.disk_bytes == 0
    assert not plan.tokens_on_disk
    assert not plan.cosines_on_disk


@pytest.mark.parametrize(
    ("budget", "blocks_in_memory", "tokens_on_disk", "cosines_on_disk", "memory"),
    [
        (7_118_848, 10, False, False, 7_118_848),
        (7_118_847, 10, False, True, 5_562_368),
        (5_562_368, 10, False, True, 5_562_368),
        (5_562_367, 10, True, True, 5_234_688),
        (5_234_687, 3, True, True, 5_103_616),  # 5 blocks on either side are still all of them
        (5_103_615, 2, True, True, 5_038_080),
    ],
)
def test_what_moves_to_disk_first(
    budget: int, blocks_in_memory: int, tokens_on_disk: bool, cosines_on_disk: bool, memory: int
) -> None:
    plan = make_plan(BY_HAND, HostNeeds(budget))
    assert plan.budget == budget
    assert plan.blocks_in_memory == blocks_in_memory
    assert (plan.tokens_on_disk, plan.cosines_on_disk) == (tokens_on_disk, cosines_on_disk)
    assert plan.memory_bytes == memory
    assert plan.disk_bytes == 327_680 * tokens_on_disk + 1_556_480 * cosines_on_disk


def test_each_thread_has_its_own_scratch() -> None:
    one = make_plan(BY_HAND, HostNeeds(threads=1), scratch_bytes=1000)
    three = make_plan(BY_HAND, HostNeeds(threads=3), scratch_bytes=1000)
    assert three.threads == 3
    assert three.memory_bytes - one.memory_bytes == 2 * (1000 + 57_344 + 4_194_304)


def test_averaging_may_need_more_than_comparing() -> None:
    size = LotSize(1, 1000, 4, 8, 4, 3, 999)
    few, many = make_plan(dataclasses.replace(size, judge_count=10), UNLIMITED), make_plan(size, UNLIMITED)
    one_judge = 3 * 4 * 4
    assert many.cosine_bytes - few.cosine_bytes == 1000 * 989 * one_judge
    assert many.workspace_bytes - few.workspace_bytes == 4 * 989 * one_judge


def test_bytes_of_the_papers_model() -> None:
    plan = make_plan(LotSize(4, 200, 1369, 1024, 2, 3, 199), UNLIMITED)
    assert (plan.block, plan.blocks_in_memory) == (2, 100)
    assert plan.token_bytes == 2_242_969_600
    assert plan.cosine_bytes == 200 * 199 * 3 * 1369 * 4
    image, product = 5_607_424, 7_496_644
    assert plan.workspace_bytes == 200 * image + 200 * 1369 * (4 * 3 * 4 + 24) + image * 7 // 2 + product


@pytest.mark.parametrize(("near", "products"), [(None, 2), (3, 3)])
def test_a_thread_of_a_scorer_has_products_of_two_images(near: int | None, products: int) -> None:
    """Two that are pooled in turn; with a window also which patches are too far."""
    shape, needs = (2, 20, 1024, 8), HostNeeds(threads=3)
    scorer = CpuScorer(Method((32, 32), near=near))
    bare = make_plan(scorer.method.lot_size(shape, 4), needs)
    assert scorer.plan(shape, 4, needs).memory_bytes - bare.memory_bytes == 3 * products * 1024**2 * 4


# ---- promises --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_no_budget_keeps_all_in_memory(size: LotSize) -> None:
    plan = make_plan(size, UNLIMITED)
    assert plan.blocks_in_memory * plan.block >= size.images
    assert (plan.tokens_on_disk, plan.cosines_on_disk, plan.disk_bytes) == (False, False, 0)
    assert plan.memory_bytes == plan.token_bytes + plan.cosine_bytes + plan.workspace_bytes
    enough = make_plan(size, HostNeeds(plan.memory_bytes))
    assert (enough.blocks_in_memory, enough.memory_bytes) == (plan.blocks_in_memory, plan.memory_bytes)


@pytest.mark.parametrize("size", SIZES)
def test_every_plan_fits_its_budget(size: LotSize) -> None:
    plans = plans_of(size)
    assert len(plans) >= 3
    for plan in plans[1:]:
        assert plan.budget is not None
        assert plan.memory_bytes <= plan.budget
        assert plan.memory_bytes == plan.workspace_bytes + (
            (0 if plan.tokens_on_disk else plan.token_bytes)
            + (0 if plan.cosines_on_disk else plan.cosine_bytes)
        )
        assert plan.memory_bytes + plan.disk_bytes == (
            plan.token_bytes + plan.cosine_bytes + plan.workspace_bytes
        )
        assert plan.blocks_in_memory >= 1


@pytest.mark.parametrize("size", SIZES)
def test_larger_budgets_never_give_less(size: LotSize) -> None:
    plans = plans_of(size)
    least, most = plans[-1].memory_bytes, plans[0].memory_bytes
    budgets = [int(budget) for budget in np.linspace(least, most * 1.1, 60)]
    found = [make_plan(size, HostNeeds(budget)) for budget in budgets]
    for small, large in pairwise(found):
        assert small.blocks_in_memory <= large.blocks_in_memory
        assert small.tokens_on_disk >= large.tokens_on_disk
        assert small.cosines_on_disk >= large.cosines_on_disk
        assert small.memory_bytes <= large.memory_bytes


@pytest.mark.parametrize(
    ("patches", "block"),
    [(1, 16), (6, 16), (128, 16), (129, 15), (256, 8), (1024, 2), (1369, 2), (2049, 2), (5000, 2)],
)
def test_blocks_depend_on_the_patches_alone(patches: int, block: int) -> None:
    assert block_images(patches) == block
    for images, width, layers, judges in [(5, 8, 1, 4), (50, 384, 4, 49), (333, 1024, 2, 20)]:
        plans = plans_of(LotSize(layers, images, patches, width, 4, 3, judges))
        assert {plan.block for plan in plans} == {block}


@pytest.mark.parametrize("size", SIZES)
def test_what_is_fixed_is_part_of_the_budget(size: LotSize) -> None:
    bare = make_plan(size, UNLIMITED)
    fixed = make_plan(size, HostNeeds(bare.memory_bytes + 10**8, program_bytes=10**8))
    assert fixed.program_bytes == 10**8
    assert fixed.memory_bytes == fixed.budget
    assert dataclasses.replace(fixed, program_bytes=0, budget=None) == bare


def test_the_vit_is_gone_before_images_are_compared() -> None:
    bare = make_plan(BY_HAND, UNLIMITED)
    comparing = bare.cosine_bytes + bare.workspace_bytes
    for vit, more in [(1, 0), (comparing, 0), (comparing + 7, 7)]:
        plan = make_plan(BY_HAND, HostNeeds(vit_bytes=vit))
        assert plan.vit_bytes == vit
        assert plan.memory_bytes == bare.memory_bytes + more
    in_files = make_plan(BY_HAND, HostNeeds(comparing + 7, vit_bytes=comparing + 7))
    assert (in_files.tokens_on_disk, in_files.memory_bytes) == (True, comparing + 7)
    with pytest.raises(LotError):
        make_plan(BY_HAND, HostNeeds(comparing + 6, vit_bytes=comparing + 7))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("budget", [None, 10**12])
def test_kept_work_is_in_files_whatever_the_budget(size: LotSize, budget: int | None) -> None:
    plan = make_plan(size, HostNeeds(budget, keep=True))
    assert plan.tokens_on_disk
    assert plan.cosines_on_disk
    assert plan.blocks_in_memory == make_plan(size, UNLIMITED).blocks_in_memory
    assert plan.memory_bytes == plan.workspace_bytes
    assert plan.disk_bytes == plan.token_bytes + plan.cosine_bytes


# ---- too small -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("fixed", "vit"), [(0, 0), (123_456_789, 0), (123_456_789, 8_765_432_198)])
def test_smallest_budget_that_is_named_works_and_is_the_smallest(size: LotSize, fixed: int, vit: int) -> None:
    with pytest.raises(LotError) as caught:
        make_plan(size, HostNeeds(1, program_bytes=fixed, vit_bytes=vit))
    named = smallest_named(str(caught.value))
    assert make_plan(size, HostNeeds(named, program_bytes=fixed, vit_bytes=vit)).memory_bytes <= named
    with pytest.raises(LotError):
        make_plan(size, HostNeeds(max(named - 2 * 10**6, 1), program_bytes=fixed, vit_bytes=vit))


@pytest.mark.parametrize("size", SIZES)
def test_same_smallest_budget_is_named_whatever_was_asked(size: LotSize) -> None:
    least = plans_of(size)[-1].memory_bytes
    named = set()
    for budget in (0, 1, least // 2, least - 1):
        with pytest.raises(LotError) as caught:
            make_plan(size, HostNeeds(budget))
        named.add(smallest_named(str(caught.value)))
    assert len(named) == 1


def test_message_says_what_was_asked_of_what() -> None:
    size = SIZES[0]
    with pytest.raises(LotError, match=r"budget of 20 MB.*90 images of 1369 patches.*works is \d+ MB\.$"):
        make_plan(size, HostNeeds(20 * 10**6))
    with pytest.raises(LotError, match=r"the program takes 300 MB, and first the ViT 90 MB\.$"):
        make_plan(size, HostNeeds(20 * 10**6, program_bytes=300 * 10**6, vit_bytes=90 * 10**6))


# ---- kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [True, False])
def test_cosines_lie_where_the_plan_says(
    on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (1, 9, 6, 4)
    scorer = CpuScorer(Method((2, 3), (3,)), "numpy", scratch=tmp_path)
    wrong = "MemoryRows" if on_disk else "FileRows"
    monkeypatch.setattr(mutual, wrong, lambda *_: pytest.fail(wrong))
    scorer.score(random_store(0, shape), dataclasses.replace(scorer.plan(shape, 4), cosines_on_disk=on_disk))


@pytest.mark.parametrize("kind", ["numpy", "numba"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("blocks_in_memory", [8, 2])
def test_scorer_keeps_to_the_plan(kind: str, threads: int, blocks_in_memory: int, tmp_path: Path) -> None:
    shape = (1, 40, 400, 64)
    scorer = CpuScorer(Method((20, 20), (3,), (0.0, 0.5), group_size=8), kind, scratch=tmp_path)
    plans = every_plan(scorer, shape, threads=threads)
    plan = next(plan for plan in reversed(plans) if plan.blocks_in_memory == blocks_in_memory)
    assert plan.cosines_on_disk
    store = random_store(0, shape)
    load_filter(kind)
    tracemalloc.start()
    try:
        scorer.score(store, plan)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.03 * plan.workspace_bytes
