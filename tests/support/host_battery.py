"""Scores small lots: ``python host_battery.py LIBRARY``, with the package that is found first; 0 if right.

It is to test_mutants.py what battery_*.cpp are, for faults of the code that launches the kernels.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.kernels.precisions import HALF, INT8
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import LotError
from musc_edge.runtime.gpu.scorer import CudaScorer
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.store.features import HostStore
from support import oracle
from support.emulated_gpu import EmulatedGpu
from support.scorer_checks import fill

GRID, WIDTH, IMAGES = (2, 3), 40, 7
DEGREES, INTERVAL = (1, 3), (0.2, 0.9)
CUTS: tuple[dict[str, Any], ...] = (
    {"holds_tokens": True, "ring": 0, "block": 7, "panel": 7},
    {"ring": 2, "block": 2, "panel": 7},
    {"ring": 3, "block": 1, "panel": 3, "streamed": True},
)


ERRORS = {HALF: 3e-4, INT8: 3e-3}


def check(
    library: Path, tokens: oracle.Numbers, expected: oracle.Floats, seed: int, precision: str = HALF
) -> None:
    """Score by a plan that the seed picks, on a GPU of that seed, which must hold no more than before."""
    store = HostStore(tokens, np.empty((IMAGES, 0), np.float32))
    with GpuThread(lambda: EmulatedGpu(library, seed)) as device:
        scorer = CudaScorer(Method(GRID, DEGREES, INTERVAL), device, precision=precision)
        plan = scorer.plan(store.shape, 4)
        assert plan.device
        cut = {"holds_tokens": False, "streamed": False, **CUTS[seed // 3 % len(CUTS)]}
        plan = replace(plan, device=replace(plan.device, **cut))
        resident = scorer.device_store(store.shape, store.dtype, store.cls, plan)
        if resident:
            fill(resident, tokens, IMAGES)
        before = device.run(lambda gpu: gpu.free_memory())
        scores = scorer.score(resident or store, plan)
        assert device.run(lambda gpu: gpu.free_memory()) == before
    np.testing.assert_allclose(scores, expected, rtol=0, atol=ERRORS[precision])


def main(library: Path) -> None:
    """Check all plans with several orders of the streams' work, and that what is not finite is found."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(WIDTH) + 0.5 * rng.standard_normal((6, WIDTH))
    tokens = (common + rng.standard_normal((2, IMAGES, 6, WIDTH))).astype(np.float32)
    expected = oracle.mutual_scores(tokens, GRID, DEGREES, INTERVAL)
    for seed in range(3 * len(CUTS)):
        check(library, tokens, expected, seed)
    for seed in range(0, 3 * len(CUTS), 3):
        check(library, tokens, expected, seed, INT8)
    tokens[1, 5, 2, 3] = np.nan
    with pytest.raises(LotError, match=r"layer 1 .* images 5 "):
        check(library, tokens, expected, 3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
