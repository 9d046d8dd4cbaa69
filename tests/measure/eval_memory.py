"""Time and memory of pixel metrics: ``python tests/measure/eval_memory.py MAPS SIDE [KINDS]`` (200, 1024, 1).

With more than one kind of defect, metrics of each kind against all good maps are computed too: from maps that
are sorted once, as ``musc-edge eval`` does, and for comparison with all sorted again for each kind.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.types import Array, FloatArray
from musc_edge.tools.evaluation.pixel_metrics import PixelMetrics, metrics_of, pixel_metrics
from musc_edge.tools.evaluation.sorted_pixels import SortedPixels

EVERY = 3  # every third map has a defect


def lot(numbers: list[int], side: int) -> Iterator[tuple[FloatArray, Array]]:
    """Maps of 37 x 37 patches with their masks."""
    for number in numbers:
        grid = np.random.default_rng(number).gamma(20, 0.02, (1, 37, 37)).astype(np.float32)
        mask = np.zeros((side, side), bool)
        if number % EVERY == 0:
            mask[side // 5 : side // 3, side // 2 : side * 3 // 5] = True
            grid[0, 8:12, 18:22] += 0.2
        yield upsample(grid, (side, side))[0], mask


def parts(maps: int, kinds: int) -> list[list[int]]:
    """Numbers of all maps, and of each kind's with all good ones."""
    kind_of = {number: number // EVERY % kinds for number in range(0, maps, EVERY)}
    some = [[n for n in range(maps) if kind_of.get(n, kind) == kind] for kind in range(kinds)]
    return [list(range(maps)), *(some if kinds > 1 else [])]


def sorted_once(maps: int, side: int, kinds: int) -> list[PixelMetrics]:
    """Metrics of the parts, from maps that are sorted once."""
    with SortedPixels() as pixels:
        for values, mask in lot(list(range(maps)), side):
            pixels.add(values, mask)
        return [metrics_of(pixels.of(part)) for part in parts(maps, kinds)]


def sorted_again(maps: int, side: int, kinds: int) -> list[PixelMetrics]:
    """Metrics of the parts, with the maps of each sorted for it."""
    return [pixel_metrics(lot(part, side)) for part in parts(maps, kinds)]


def main() -> None:
    """Print seconds, processor time and the most memory."""
    maps, side, kinds = (int(text) for text in (*sys.argv[1:], *("200", "1024", "1")[len(sys.argv) - 1 :]))
    for words, measure in (("sorted once", sorted_once), ("sorted for each kind", sorted_again)):
        start, busy = time.perf_counter(), time.process_time()
        found = measure(maps, side, kinds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(
            f"{maps} maps of {side} x {side}, {kinds} kinds, {words}: {time.perf_counter() - start:.0f} s, "
            f"of the processor {time.process_time() - busy:.0f} s, at most {peak:.0f} MB; "
            f"AUROC {', '.join(f'{each.auroc:.12f}' for each in found)}"
        )
        if kinds == 1:
            break


if __name__ == "__main__":
    main()
