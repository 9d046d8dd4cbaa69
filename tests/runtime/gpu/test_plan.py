"""The memory plan of a GPU and the order of its work: arithmetic by hand, promises, refusals."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musc_edge.kernels.precisions import HALF, INT8
from musc_edge.runtime import memory
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.gpu import plan as device_plan
from musc_edge.runtime.gpu.plan import device_budget, host_plan, make_device_plan, pairs_per_launch
from musc_edge.runtime.gpu.schedule import Average, Compare, Open, Pool, degree_steps
from musc_edge.runtime.scoring.judges import Judges, choose
from musc_edge.runtime.scoring.plan import UNLIMITED, HostNeeds, LotSize
from musc_edge.runtime.types import DevicePlan

VIT_L = LotSize(layers=4, images=200, patches=1369, width=1024, itemsize=2, degree_count=3, judge_count=199)
SIZES = [
    VIT_L,
    *(dataclasses.replace(VIT_L, images=n, judge_count=n - 1) for n in (50, 500, 1000, 2000)),
    LotSize(4, 500, 256, 384, 4, 3, 499),
    LotSize(4, 5000, 256, 384, 4, 3, 200),
    LotSize(1, 5, 1, 1, 4, 1, 4),
    LotSize(2, 33, 16, 401, 2, 2, 32),
]


def plans_of(size: LotSize) -> list[DevicePlan]:
    """Every plan that some amount of memory leads to, from the largest to the smallest."""
    plans = [make_device_plan(size, 10**13)]
    while True:
        try:
            plans.append(make_device_plan(size, plans[-1].memory_bytes - 1))
        except LotError:
            return plans


# ---- arithmetic, by hand ---------------------------------------------------------------------


def test_bytes_when_everything_fits() -> None:
    plan = make_device_plan(VIT_L, 64 * 10**9)
    assert (plan.holds_tokens, plan.panel, plan.streamed, plan.comparisons) == (True, 200, False, 1)
    assert plan.block == 32_000_000 // (1369 * 1024 * 2) == 11
    assert plan.token_bytes == 4 * 200 * 1369 * 1024 * 2 == 2_242_969_600
    assert plan.feature_bytes == 200 * (1376 * 1024 * 2 + 1369 * 4) == 564_704_800
    assert plan.distance_bytes == 200 * 199 * 1369 * 4 == 217_944_800
    pairs = int(2e13 / (2 * 1369**2 * 1024))
    assert pairs == pairs_per_launch(VIT_L) == 5210
    eight = 8 * (
        1376 * 1024 * 2 + 1369 * 4 + 16
    )  # features, squares and centres from which the shift is taken
    assert plan.other_bytes == eight + 200 * (1369 * 4 + 16) + pairs * 16 + 1024 * 4
    assert plan.memory_bytes == sum(
        (plan.token_bytes, plan.feature_bytes, plan.distance_bytes, plan.other_bytes)
    )


def test_a_board_of_8_gb_scores_200_images_of_vit_l_at_518_and_each_pair_once() -> None:
    plan = make_device_plan(VIT_L, 5 * 10**9)
    assert (plan.comparisons, plan.holds_tokens) == (1, True)
    assert plan.memory_bytes < 3.1e9


def test_without_room_for_all_layers_blocks_of_tokens_are_copied() -> None:
    plan = make_device_plan(VIT_L, 3 * 10**9)
    assert (plan.holds_tokens, plan.comparisons) == (False, 1)
    assert plan.ring == 2 * 19  # two layers of 19 blocks of 11 images
    assert plan.token_bytes == 38 * 11 * 1369 * 1024 * 2
    all_there = make_device_plan(VIT_L, 64 * 10**9)
    assert plan.other_bytes == all_there.other_bytes + 8 * 1369 * 1024 * 2  # and the samples' tokens


def test_tokens_that_are_there_stay_and_others_are_not_asked_for() -> None:
    assert not make_device_plan(VIT_L, 64 * 10**9, holds_tokens=False).holds_tokens
    smallest = make_device_plan(VIT_L, int(2.4e9), holds_tokens=True)
    assert smallest.holds_tokens
    assert smallest.comparisons > 1
    with pytest.raises(LotError, match="the smallest plan needs 2"):
        make_device_plan(VIT_L, 2 * 10**9, holds_tokens=True)


def test_features_are_filled_up_to_64_columns_and_8_rows() -> None:
    plan = make_device_plan(LotSize(1, 6, 10, 33, 2, 1, 5), 10**9)
    assert plan.feature_bytes == 6 * (16 * 64 * 2 + 10 * 4)
    assert plan.token_bytes == 6 * 10 * 33 * 2
    assert make_device_plan(LotSize(1, 6, 10, 33, 2, 1, 5), 10**9, holds_tokens=False).ring == 1


def test_features_in_int8_take_half_the_memory_and_a_scale_each() -> None:
    half, int8 = make_device_plan(VIT_L, 64 * 10**9), make_device_plan(VIT_L, 64 * 10**9, INT8)
    assert (half.precision, int8.precision) == (HALF, INT8)
    rows = 172 * 8  # in blocks of eight
    assert half.feature_bytes == 200 * (rows * 2 * 1024 + 1369 * 4)
    assert int8.feature_bytes == 200 * (rows * 1024 + 1369 * 8)
    narrow = make_device_plan(LotSize(1, 6, 10, 33, 2, 1, 5), 10**9, INT8)
    assert narrow.feature_bytes == 6 * (16 * 128 + 10 * 8)
    # The samples, of which the rows' common part is taken, are in half precision either way.
    assert half.other_bytes == int8.other_bytes


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.slow
def test_smaller_plans_compare_more_and_all_fit(size: LotSize) -> None:
    plans = plans_of(size)
    assert plans[0].comparisons == 1
    assert all(plan.memory_bytes <= plan.budget for plan in plans)
    for plan, smaller in pairwise(plans):
        assert smaller.memory_bytes < plan.memory_bytes
        assert smaller.comparisons >= plan.comparisons
    assert all(1 <= plan.comparisons < 2 for plan in plans)


@pytest.mark.parametrize("gigabytes", [8, 16, 24, 64])
@pytest.mark.parametrize("images", [50, 200, 500, 1000, 2000])
def test_every_usual_device_scores_every_usual_lot(images: int, gigabytes: int) -> None:
    size = dataclasses.replace(VIT_L, images=images, judge_count=images - 1)
    plan = make_device_plan(size, gigabytes * 10**9 * 9 // 10)
    assert plan.memory_bytes <= gigabytes * 10**9 * 9 // 10
    fits = size.images * (size.images - 1) * 1369 * 4 + size.images * 1369 * 2052 < gigabytes * 0.88e9
    assert (plan.comparisons == 1) == fits


def test_a_launch_takes_no_more_images_than_a_grid_can_have() -> None:
    size = LotSize(layers=1, images=200_000, patches=1, width=8, itemsize=2, degree_count=1, judge_count=100)
    plan = make_device_plan(size, 10**12)
    assert plan.block <= plan.panel <= 65535
    assert plan.panel % plan.block == 0


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    with pytest.raises(
        LotError, match=r"50 MB of device memory is too little for 200 images of 1369 patches"
    ):
        make_device_plan(VIT_L, 50 * 10**6)


# ---- host ------------------------------------------------------------------------------------


def test_the_host_keeps_tokens_in_memory_if_they_fit_else_in_a_file() -> None:
    whole = host_plan(VIT_L, HostNeeds(program_bytes=100, vit_bytes=200))
    assert (whole.budget, whole.tokens_on_disk, whole.cosine_bytes) == (None, False, 0)
    assert whole.token_bytes == 4 * 200 * 1369 * 1024 * 2
    assert host_plan(VIT_L, UNLIMITED, tokens_on_device=True).token_bytes == 0
    assert not host_plan(
        VIT_L, HostNeeds(whole.memory_bytes, program_bytes=100, vit_bytes=200)
    ).tokens_on_disk
    assert host_plan(
        VIT_L, HostNeeds(whole.memory_bytes - 1, program_bytes=100, vit_bytes=200)
    ).tokens_on_disk
    assert host_plan(VIT_L, HostNeeds(program_bytes=100, keep=True)).tokens_on_disk
    with pytest.raises(LotError, match="a memory budget of 50 MB is too small for 200 images"):
        host_plan(VIT_L, HostNeeds(50 * 10**6, program_bytes=100, vit_bytes=200))


def test_a_tenth_of_the_free_memory_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_plan(VIT_L, HostNeeds(program_bytes=10**8))
    assert device_budget(host, 10**9, None, integrated=False) == 9 * 10**8
    assert device_budget(host, 10**9, 123, integrated=False) == 123
    monkeypatch.setattr(device_plan, "available_memory", lambda: 6 * 10**9)
    shared = 6 * 10**9 - (host.memory_bytes - host.program_bytes)
    assert device_budget(host, 10**8, None, integrated=True) == shared * 9 // 10


def test_an_integrated_gpu_is_planned_from_what_the_system_can_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver of a Jetson counts the page cache as taken; /proc/meminfo does not."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8000000 kB\nMemFree: 100000 kB\nMemAvailable: 5000000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "memory_room", lambda: None)
    host = host_plan(SIZES[1], UNLIMITED)
    budget = device_budget(host, 10**8, None, integrated=True)
    assert budget == (5_000_000 * 1024 - host.memory_bytes) * 9 // 10


# ---- the order of the work, carried out with names in the place of numbers ------------------------


def carry_out(judges: Judges, plan: DevicePlan) -> dict[int, list[int]]:
    """Whose distances each place's average is of, by the judge's index; as a device would find them."""
    features: dict[int, int] = {}  # row -> place
    distances: dict[int, tuple[int, int]] = {}  # row -> whose, to whom
    averaged: dict[int, list[int]] = {}
    held = min(plan.panel + plan.block, judges.images) if plan.streamed else judges.images
    opened = 0
    for step in degree_steps(judges, plan):
        match step:
            case Pool():
                start = step.block * plan.block
                count = min(plan.block, judges.images - start)
                assert 0 <= step.row <= held - count
                features |= {step.row + i: start + i for i in range(count)}
            case Open():
                distances, opened = {}, step.start
                assert step.stop - step.start <= plan.panel
            case Compare():
                assert step.pairs.dtype == np.int32
                for a, b, forth, back in step.pairs.tolist():
                    assert forth not in distances
                    distances[forth] = features[a], features[b]
                    if back >= 0:
                        assert back not in distances
                        distances[back] = features[b], features[a]
            case Average():
                assert step.start == opened
                for place in range(step.start, step.stop):
                    rows = range((place - opened) * judges.count, (place - opened + 1) * judges.count)
                    assert all(distances[row][0] == place for row in rows)
                    averaged[place] = [distances[row][1] for row in rows]
    return averaged


@pytest.mark.parametrize(("images", "group"), [(5, None), (6, None), (13, None), (23, 5), (24, 6), (25, 11)])
@pytest.mark.parametrize(("block", "panel"), [(1, 1), (1, 4), (2, 2), (3, 6), (4, 100), (7, 7), (100, 100)])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_image_meets_each_of_its_judges_once(
    images: int, group: int | None, block: int, panel: int, streamed: bool
) -> None:
    judges = choose(images, group)
    plan = DevicePlan(0, False, min(block, images), 2, min(panel, images), streamed, 1, 0, 0, 0, 0)
    averaged = carry_out(judges, plan)
    assert averaged == {place: judges.of(place).tolist() for place in range(images)}


def test_pairs_across_panels_are_compared_twice_and_others_once() -> None:
    judges = choose(12, None)
    for panel, expected in ((12, 66), (6, 2 * 15 + 2 * 36), (4, 3 * 6 + 6 * 16)):
        plan = DevicePlan(0, False, 2, 2, panel, False, 1, 0, 0, 0, 0)
        steps = degree_steps(judges, plan)
        assert sum(len(step.pairs) for step in steps if isinstance(step, Compare)) == expected
