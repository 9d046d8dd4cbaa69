"""Time and memory of pixel metrics: ``python tests/measure/eval_memory.py MAPS SIDE`` (200, 1024)."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.types import Array, FloatArray
from musc_edge.tools.evaluation.pixel_metrics import pixel_metrics


def lot(maps: int, side: int) -> Iterator[tuple[FloatArray, Array]]:
    """Maps of 37 x 37 patches, every third with a defect, with their masks."""
    for number in range(maps):
        grid = np.random.default_rng(number).gamma(20, 0.02, (1, 37, 37)).astype(np.float32)
        mask = np.zeros((side, side), bool)
        if number % 3 == 0:
            mask[side // 5 : side // 3, side // 2 : side * 3 // 5] = True
            grid[0, 8:12, 18:22] += 0.2
        yield upsample(grid, (side, side))[0], mask


def main() -> None:
    """Print seconds, processor time and the most memory."""
    maps, side = (int(text) for text in (*sys.argv[1:], "200", "1024")[:2])
    start, busy = time.perf_counter(), time.process_time()
    found = pixel_metrics(lot(maps, side))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"{maps} maps of {side} x {side}: {time.perf_counter() - start:.0f} s, of the processor "
        f"{time.process_time() - busy:.0f} s, at most {peak:.0f} MB; AUROC {found.auroc:.6f}"
    )


if __name__ == "__main__":
    main()
