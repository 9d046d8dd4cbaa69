"""Queue the averages of distances on the GPU (kernels/interval.cuh), as the method says."""

from __future__ import annotations

from ...kernels import launches
from ...kernels.gpu import DeviceArray, Gpu, Stream
from ..scoring.burn_out import first_gap
from ..scoring.method import Window


def average(
    gpu: Gpu, distances: DeviceArray, results: list[DeviceArray], window: Window, stream: Stream
) -> None:
    """Average squared ``distances`` (n,K,P) into ``results``: scores (n,P), and with burn-out a second array.

    Of a window with fewer judges than K the others' distances are infinite, or FAR_BITS as those of a patch
    without a neighbor.
    """
    if window.burn_out and window.near:
        launches.burn_out_mean_near(gpu, distances, results[0], results[1], window.stop, stream)
    elif window.burn_out:
        numbers = window.judges, first_gap(window.judges), window.stop
        launches.burn_out_mean(gpu, distances, results[0], results[1], numbers, stream)
    else:
        launches.interval_mean(gpu, distances, results[0], window.start, window.stop, stream)
