"""Burn-out and copies on an emulated GPU: what the CPU gives, and the same bytes by every plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.gpu.row import DeviceRow
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scoring.image_pairs import load_filter
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.row import RowScorer, WholeBank
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array
from support.emulated_gpu import EmulatedGpu
from support.repeated import GRID, repeated_defect
from support.scorer_checks import put_on_device, some_plans

pytestmark = pytest.mark.long

FINE = 3e-4
"""What half precision may cost in a score of random and narrow tokens."""
COPIES = [[2, 9, 11], [4, 5]]


def lot(images: int = 15) -> HostStore:
    return HostStore(repeated_defect(images, 4), np.empty((images, 0), np.float32))


def on_cpu(method: Method, store: HostStore, copies: list[list[int]]) -> tuple[Array, Array]:
    scorer, later = CpuScorer(method, "numpy"), np.empty((store.shape[1], 12), np.float32)
    return scorer.score(store, scorer.plan(store.shape, 4), later=later, copies=copies), later


@pytest.mark.parametrize("group_size", [None, 9])
@pytest.mark.parametrize("copies", [[], COPIES])
@pytest.mark.parametrize("burn_out", [True, False])
def test_scores_are_the_cpus_by_every_plan(
    kernel_library: Path, burn_out: bool, copies: list[list[int]], group_size: int | None
) -> None:
    store, method = lot(), Method(GRID, (1, 3), group_size=group_size, burn_out=burn_out)
    expected, later = on_cpu(method, store, copies)
    assert later.any() == burn_out
    results = set()
    for number, plan in enumerate(some_plans(store)):
        with GpuThread(lambda number=number: EmulatedGpu(kernel_library, number)) as device:  # type: ignore[misc]
            scorer, found = CudaScorer(method, device), np.empty_like(later)
            whole = replace(scorer.plan(store.shape, 4), device=plan)
            scores = scorer.score(store, whole, later=found, copies=copies)
            results.add((scores.tobytes(), found.tobytes()))
            assert device.run(lambda gpu: gpu._used) == 0  # type: ignore[attr-defined]
    assert len(results) == 1
    np.testing.assert_allclose(scores, expected, rtol=0, atol=FINE)
    np.testing.assert_array_equal(found, later)


def test_tokens_that_are_on_the_device_give_the_same(kernel_library: Path) -> None:
    store, method = lot(), Method(GRID, (1, 3), burn_out=True)
    with GpuThread(lambda: EmulatedGpu(kernel_library)) as device:
        scorer = CudaScorer(method, device)
        plan = scorer.plan(store.shape, 4)
        there = put_on_device(scorer, store, plan)
        assert there is not None
        scores = scorer.score(there, plan, copies=COPIES)
        device.run(lambda gpu: gpu.free(there._arena))
    np.testing.assert_allclose(scores, on_cpu(method, store, COPIES)[0], rtol=0, atol=FINE)


def test_an_image_against_a_reference_is_scored_as_on_the_cpu(kernel_library: Path) -> None:
    tokens, method = lot().tokens[:, ::-1], Method(GRID, (1, 3), burn_out=True)
    bank = tokens[:, :-1]
    shape = (2, bank.shape[1], 12, tokens.shape[3])
    with (
        GpuThread(lambda: EmulatedGpu(kernel_library)) as device,
        RowScorer(WholeBank.of(method, load_filter("numpy"), list(bank), 2), 2) as expected,
        DeviceRow(method, device, shape, lambda layer: np.ascontiguousarray(bank[layer])) as found,
    ):
        image = list(tokens[:, -1])
        np.testing.assert_allclose(found.score(image), expected.score(image), rtol=0, atol=FINE)
