"""Regions of interest and windows in mutual scoring: against the formula, patch by patch, on CPU and GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.kernels.cuda_source import HOPPER
from musc_edge.kernels.precisions import HALF, INT8
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.gpu.plan import make_device_plan
from musc_edge.runtime.gpu.row import DeviceRow
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scoring.image_pairs import load_filter
from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.scoring.residual import SHARE, ResidualScorer
from musc_edge.runtime.scoring.row import RowScorer, WholeBank
from musc_edge.runtime.store.features import HostStore
from support.emulated_gpu import EmulatedGpu

Array = npt.NDArray[Any]
GRID, IMAGES = (4, 5), 8
FINE = 3e-4


def lot(images: int = IMAGES) -> Array:
    """Tokens (2,N,P,C), of which one patch has no content at degree 1."""
    rng = np.random.default_rng(3)
    tokens = rng.standard_normal((2, images, 20, 12)).astype(np.float32)
    tokens[:, 2] = rng.integers(-9, 10, (2, 20, 12))  # whole numbers, whose mean becomes 0 exactly
    tokens[:, 2, 7] = 0
    tokens[:, 2, 0, 0] -= tokens[:, 2].sum(axis=(1, 2))
    return tokens


def region(images: int = IMAGES) -> Array:
    """Patches (N,P) that take part, other ones in each image."""
    inside = np.random.default_rng(4).random((images, 20)) < 0.6
    inside[:, 3] = True
    inside[2, 7] = True
    return inside


def pooled(tokens: Array, degree: int) -> Array:
    """Sums (P,C) over the neighborhoods of an image's centred tokens, as unit vectors or zeros."""
    centred = tokens.astype(np.float64) - tokens.astype(np.float64).mean()
    reach, unit = degree // 2, np.zeros(centred.shape)
    for h in range(GRID[0]):
        for w in range(GRID[1]):
            near = [
                a * GRID[1] + b
                for a in range(max(h - reach, 0), min(h + reach + 1, GRID[0]))
                for b in range(max(w - reach, 0), min(w + reach + 1, GRID[1]))
            ]
            total = centred[near].sum(axis=0)
            length = np.linalg.norm(total)
            unit[h * GRID[1] + w] = total / length if length > 1e-5 else 0
    return unit


def expected(tokens: Array, method: Method, inside: Array, judges_of: Any = None) -> Array:
    """Mutual scores (N,P) line by line; NaN outside."""
    layers, images = tokens.shape[:2]
    total: Array = np.zeros((images, 20))
    window = 99 if method.near is None else method.near
    for layer in range(layers):
        for degree in method.degrees:
            units = [pooled(image, degree) for image in tokens[layer]]
            for i in range(images):
                others = [j for j in range(images) if j != i] if judges_of is None else judges_of(i)
                for m in range(20):
                    distances = []
                    for j in others:
                        near = [
                            float(np.linalg.norm(units[i][m] - units[j][n]))
                            for n in range(20)
                            if inside[j][n]
                            and abs(m // 5 - n // 5) <= window
                            and abs(m % 5 - n % 5) <= window
                        ]
                        distances.append(min(near, default=2.0 if units[i][m].any() else 3**0.5))
                    low, high = (int(share * len(others)) for share in method.interval)
                    total[i, m] += np.mean(sorted(distances)[low:high])
    scores: Array = total / (layers * len(method.degrees))
    scores[~inside] = np.nan
    return scores


CASES = [
    Method(GRID, (1, 3), (0.0, 0.3)),
    Method(GRID, (1, 3), (0.0, 0.5), near=1),
    Method(GRID, (5, 1), (0.3, 1.0), near=0),
    Method(GRID, (3,), (0.0, 0.5), near=50),
]


def on_cpu(method: Method, kind: str, tokens: Array, inside: Array | None) -> Array:
    store = HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
    scorer = CpuScorer(method, kind)
    scores = scorer.score(store, scorer.plan(store.shape, 4, HostNeeds(threads=2)), inside=inside)
    if inside is not None:
        scores[~inside] = np.nan
    return scores


@pytest.mark.parametrize("kind", ["numpy", "numba"])
@pytest.mark.parametrize("method", CASES)
def test_the_formula_on_the_cpu(method: Method, kind: str) -> None:
    tokens, inside = lot(), region()
    np.testing.assert_allclose(
        on_cpu(method, kind, tokens, inside), expected(tokens, method, inside), atol=2e-6
    )
    if method.near is not None:
        everything = np.ones_like(inside)
        found = on_cpu(method, kind, tokens, None)
        np.testing.assert_allclose(found, expected(tokens, method, everything), atol=2e-6)


@pytest.mark.parametrize("kind", ["numpy", "numba"])
def test_a_region_of_everything_and_a_window_over_the_grid_change_nothing(kind: str) -> None:
    tokens = lot()
    plain = on_cpu(Method(GRID), kind, tokens, None)
    everything = np.ones((IMAGES, 20), bool)
    np.testing.assert_allclose(on_cpu(Method(GRID), kind, tokens, everything), plain, atol=1e-6)
    np.testing.assert_allclose(on_cpu(Method(GRID, near=4), kind, tokens, None), plain, atol=1e-6)


def test_excluded_patches_are_nobodys_neighbors() -> None:
    """Whatever is outside of the region, the scores inside are the same."""
    tokens, inside = lot(), region()
    other = tokens.copy()
    # Changed so that the image's mean stays: degree 1 then sees nothing of it.
    for i in range(IMAGES):
        outside = np.flatnonzero(~inside[i])
        for layer in range(2):
            other[layer, i, outside] = tokens[layer, i, outside][::-1]
    method = Method(GRID, (1,))
    before, after = (on_cpu(method, "numpy", each, inside) for each in (tokens, other))
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert not np.allclose(on_cpu(method, "numpy", other, None), on_cpu(method, "numpy", tokens, None))


@pytest.mark.parametrize("kind", ["numpy", "numba"])
def test_with_a_group_size(kind: str) -> None:
    tokens, inside = lot(11), region(11)
    method = Method(GRID, (1, 3), (0.0, 0.5), group_size=6, near=2)
    judges = choose(11, 6)
    place = {int(image): k for k, image in enumerate(judges.order)}

    def judges_of(image: int) -> list[int]:
        return [int(judges.order[k]) for k in judges.of(place[image])]

    wanted = expected(tokens, method, inside, judges_of)
    np.testing.assert_allclose(on_cpu(method, kind, tokens, inside), wanted, atol=2e-6)


@pytest.mark.parametrize("kind", ["numpy", "numba"])
def test_a_single_image_against_a_bank(kind: str) -> None:
    """As the last image of a lot with the bank."""
    tokens, inside = lot(), region()
    for method in CASES:
        bank = WholeBank.of(method, load_filter(kind), list(tokens[:, :-1]), 2, inside[:-1])
        with RowScorer(bank, 2) as row:
            found = row.score(list(tokens[:, -1]), inside[-1]).ravel()
        np.testing.assert_allclose(found, expected(tokens, method, inside)[-1], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("near", [None, 1])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_formula_on_an_emulated_gpu(kernel_library: Path, streamed: bool, near: int | None) -> None:
    tokens, inside = lot(), region()
    tokens[:, 2, 7] = 1  # a patch without content and without a neighbor is at 2 here, on the CPU at root 3
    method = Method(GRID, (1, 3), (0.0, 0.5), group_size=6, near=near)
    store = HostStore(tokens, np.empty((IMAGES, 0), np.float32))
    wanted = on_cpu(method, "numpy", tokens, inside)
    with GpuThread(lambda: EmulatedGpu(kernel_library, seed=2)) as device:
        scorer = CudaScorer(method, device)
        plan = scorer.plan(store.shape, 4)
        if streamed:
            size = method.lot_size(store.shape, 4)
            least = min(
                make_device_plan(size, budget, holds_tokens=False).memory_bytes
                for budget in (60_000, 1 << 30)
            )
            plan = replace(plan, device=make_device_plan(size, least, holds_tokens=False))
        found = scorer.score(store, plan, inside=inside)
    found[~inside] = np.nan
    np.testing.assert_allclose(found, wanted, atol=FINE)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "arch"), [(HALF, "sm_00"), (HALF, HOPPER), (INT8, "sm_00")])
@pytest.mark.parametrize("window", [0, 1, 99])
def test_windows_and_burn_out_on_an_emulated_gpu(
    kernel_library: Path, precision: str, arch: str, window: int
) -> None:
    """As on the CPU, where a patch has neighbors in few images, and two images do not judge each other."""
    images, copies = 14, [(0, 3)]
    tokens, inside = lot(images)[:1], region(images)
    tokens[:, 2, 7] = 1
    tokens[:, 5:7] = tokens[:, 4, None] + 0.02 * tokens[:, 5:7]  # alike on a few: there intervals begin later
    burn_out = precision == HALF  # in int8 a distance at the limit may lie on its other side
    method = Method(GRID, (1,), (0.0, 0.3), burn_out=burn_out, near=window)
    store, by_cpu = HostStore(tokens, np.empty((images, 0), np.float32)), CpuScorer(method, "numpy")
    later, found_later = np.empty((2, images, 20), np.float32)
    wanted = by_cpu.score(store, by_cpu.plan(store.shape, 4), later=later, copies=copies, inside=inside)
    with GpuThread(lambda: EmulatedGpu(kernel_library, seed=2, arch=arch)) as device:
        scorer = CudaScorer(method, device, precision=precision)
        plan = scorer.plan(store.shape, 4)
        found = scorer.score(store, plan, later=found_later, copies=copies, inside=inside)
        assert scorer.seconds(store.shape, plan) > 0
    error = np.abs(found - wanted)[inside]
    assert error.max() < (FINE if precision == HALF else 30 * FINE)
    if burn_out:
        np.testing.assert_array_equal(found_later[inside], later[inside])
        assert window == 0 or later[inside].any()


@pytest.mark.slow
@pytest.mark.parametrize("near", [None, 1])
def test_a_single_image_on_an_emulated_gpu(kernel_library: Path, near: int | None) -> None:
    tokens, inside, method = lot(), region(), Method(GRID, (1, 3), (0.0, 0.5), near=near)
    tokens[:, 2, 7] = 1
    bank = tokens[:, :-1]
    with (
        GpuThread(lambda: EmulatedGpu(kernel_library, seed=2)) as device,
        DeviceRow(method, device, bank.shape, lambda layer: bank[layer], inside[:-1]) as row,
    ):
        found = row.score(list(tokens[:, -1]), inside[-1])
    wanted = on_cpu(method, "numpy", tokens, inside)[-1]
    np.testing.assert_allclose(found.ravel(), wanted, atol=FINE)


def test_a_window_below_nothing_is_refused() -> None:
    with pytest.raises(LotError, match="a window of -1 patches: expected 0 or more"):
        Method(GRID, near=-1)


def test_by_residual_the_patches_outside_do_not_say_what_is_common() -> None:
    """As for a lot of these patches alone, one image of them all; degree 1 sees no neighbors."""
    tokens, inside = lot(), region()
    tokens -= tokens.mean(axis=(2, 3), keepdims=True)
    store = HostStore(tokens, np.empty((IMAGES, 0), np.float32))
    scorer = ResidualScorer(Method(GRID, (1,), by="residual"))
    plan = scorer.plan(store.shape, 4)
    found = scorer.score(store, plan, inside=inside)[inside]
    total = np.zeros(len(found))
    for layer in tokens.astype(np.float64):
        vectors = layer[inside]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        rest = units - units.mean(axis=0)
        values, directions = np.linalg.eigh(rest.T @ rest)
        values, directions = values[::-1], directions[:, ::-1]
        count = int(np.searchsorted(np.cumsum(values) / values.sum(), SHARE)) + 1
        total += np.linalg.norm(rest @ directions[:, count:], axis=1)
    np.testing.assert_allclose(found, total / len(tokens), atol=1e-4)
    assert not np.allclose(found, scorer.score(store, plan)[inside], atol=1e-3)
