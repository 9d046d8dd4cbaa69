"""Pool one Gram for all degrees and take the largest cosines, in one pass compiled by numba.

Pooling is linear, so the Gram of pooled tokens is the Gram of the tokens themselves, summed over the
r x r neighborhood of the row's patch and over that of the column's: a box filter along four axes,
(h, w) of the row and (h', w') of the column, with nothing beyond the grid.

The pass goes through the rows (h, w) of the Gram (P,P) once for each degree, and holds no more than one
band of filtered rows:

    bands (Gw,P)   sum over h        rows h-k..h+k of the Gram, for every w
    row   (P,)     sum over w        bands w-k..w+k
    tall  (P,)     sum over h'       the row shifted by whole grid rows
    wide  (P,)     sum over w'       shifted by single patches, masked where that crosses the grid's edge

The last sum is fused with what follows: scaling to cosines, the maximum of the row, and the maxima of the
columns.  Every sum adds all of its terms anew: a sliding sum would carry the rounding error of one large
token to its neighbors.

Costs per element of the Gram 8k additions for each degree r = 2k+1, against C multiply-adds of the
product itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from ..._files import first_way_in
from ..types import Array, FloatArray
from .nearest import OPPOSITE

_LEAST = np.float32(-np.inf)


def _build_larger(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two float32; NaN is not handled, or LLVM would not vectorise the maximum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = args
        return builder.select(builder.fcmp_ordered(">", x, y, flags=("fast",)), x, y, flags=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


_larger: Any = intrinsic(_build_larger)


_distrusted: list[str] = []
"""The reason why numba's cache is not used, if other users could have written it; else empty."""


def _compiled(function: Any) -> Any:
    """Compile for this processor: into numba's cache, or for this run only if there is no folder for it.

    numba keeps its cache beside this file, else in the user's cache folder, or in $NUMBA_CACHE_DIR.  It
    consists of pickles, which are code: a cache that other users could have written is never read.
    """
    # Of fast math's flags those that leave the order of a sum alone: no "reassoc".
    how: dict[str, Any] = {"nogil": True, "fastmath": {"nnan", "nsz", "contract"}, "error_model": "numpy"}
    try:
        kept = njit(cache=True, **how)(function)
    except RuntimeError:  # "no locator available": neither folder can be written
        return njit(**how)(function)
    folder = Path(kept.stats.cache_path)
    # ``njit`` has only located the cache; it reads from it at the first call, which comes after this check.
    way_in = first_way_in(folder, *folder.glob(f"{Path(__file__).stem}.*.nb*"))
    if way_in is None:
        return kept
    _distrusted.append(way_in)
    return njit(**how)(function)


@_compiled
def _sum_rows(out: Any, rows: Any, first: int, count: int, step: int) -> None:
    """Sum ``count`` rows of ``rows`` (n,P) into ``out`` (P,): rows[first] + rows[first + step] + ..."""
    # Up to three rows in the first pass and two in each later one, for few passes over ``out``, which every
    # pass reads and writes.
    a = rows[first]
    done = 1
    if count == 1:
        for q in range(out.size):
            out[q] = a[q]
    elif count == 2:
        b = rows[first + step]
        for q in range(out.size):
            out[q] = a[q] + b[q]
        done = 2
    else:
        b = rows[first + step]
        c = rows[first + 2 * step]
        for q in range(out.size):
            out[q] = a[q] + b[q] + c[q]
        done = 3
    while done + 1 < count:
        b = rows[first + done * step]
        c = rows[first + (done + 1) * step]
        for q in range(out.size):
            out[q] += b[q] + c[q]
        done += 2
    if done < count:
        b = rows[first + done * step]
        for q in range(out.size):
            out[q] += b[q]


@_compiled
def _sum_shifts(out: Any, padded: Any, reach: int, step: int) -> None:
    """Sum into ``out`` (P,) the slices of ``padded`` that start at 0, step, ..., 2*reach*step."""
    # Zeros at both ends of ``padded`` stand for what is beyond the grid: no bounds need testing.
    middle = padded[reach * step :]
    for d in range(1, reach + 1):
        a = padded[(reach - d) * step :]
        b = padded[(reach + d) * step :]
        if d == 1:
            for q in range(out.size):
                out[q] = middle[q] + a[q] + b[q]
        else:
            for q in range(out.size):
                out[q] += a[q] + b[q]


@_compiled
def _maxima(x: Any, own: Any, others: Any, columns: Any) -> Any:
    """Update the maxima of the columns with one filtered row x (P,), and return the maximum of the row."""
    # A factor that a whole row or column shares is not negative, so it commutes with the maximum: the row's
    # own scale is applied once to its maximum, and the columns' scales once in ``_filter``.
    most = _LEAST
    for q in range(x.size):
        columns[q] = _larger(columns[q], x[q] * own)
        most = _larger(most, x[q] * others[q])
    return most * own


@_compiled
def _widen_and_maxima(
    tall: Any, reach: int, masks: Any, wide: Any, own: Any, others: Any, columns: Any
) -> Any:
    """Sum ``tall`` (padded by ``reach``) over w' and take ``_maxima`` of it, fused with the last term."""
    # A shift by d patches wraps into the next grid row for the d patches at its edge: the masks are 0 there.
    # The shifts by less than ``reach`` are summed into ``wide``; the last one is never stored.
    patches = wide.size
    x = tall[reach:]
    for d in range(1, reach):
        a, b = tall[reach - d :], tall[reach + d :]
        left, right = masks[0, d], masks[1, d]
        for q in range(patches):
            wide[q] = x[q] + left[q] * a[q] + right[q] * b[q]
        x = wide
    a, b = tall, tall[2 * reach :]
    left, right = masks[0, reach], masks[1, reach]
    most = _LEAST
    for q in range(patches):
        value = x[q] + left[q] * a[q] + right[q] * b[q]
        columns[q] = _larger(columns[q], value * own)
        most = _larger(most, value * others[q])
    return most * own


@_compiled
def _filter(
    gram: Any,
    grid: Any,
    reaches: Any,
    masks: Any,
    own: Any,
    others: Any,
    rows: Any,
    columns: Any,
    scratch: Any,
) -> None:
    """Filter one Gram (P,P) for all degrees; see ``NumbaFilter.maxima``."""
    bands, row_room, tall_room, wide = scratch
    height, width = grid
    patches = height * width
    for t in range(reaches.size):
        k = reaches[t]
        scales = others[t]
        best = columns[t]
        best[:] = _LEAST
        if k == 0:
            for p in range(patches):
                rows[t, p] = _maxima(gram[p], own[t, p], scales, best)
        else:
            # Cleared for each degree, since the padding moves with k.  Only the padding must be zero, and
            # the middle is overwritten for every row.
            row_room[:] = 0
            tall_room[:] = 0
            padded_row = row_room[: patches + 2 * k * width]
            row = row_room[k * width : k * width + patches]
            padded_tall = tall_room[: patches + 2 * k]
            tall = tall_room[k : k + patches]
            for h in range(height):
                top = max(h - k, 0)
                count = min(h + k, height - 1) - top + 1
                # The bands of one grid row serve all of its windows: each is summed once, not 2k+1 times.
                for w in range(width):
                    _sum_rows(bands[w], gram, top * width + w, count, width)
                for w in range(width):
                    left = max(w - k, 0)
                    _sum_rows(row, bands, left, min(w + k, width - 1) - left + 1, 1)
                    _sum_shifts(tall, padded_row, k, width)
                    p = h * width + w
                    rows[t, p] = _widen_and_maxima(padded_tall, k, masks, wide, own[t, p], scales, best)
        for q in range(patches):
            best[q] *= scales[q]


@_compiled
def _widen(padded: Any, reach: int, masks: Any, wide: Any) -> None:
    """Sum ``padded`` (padded by ``reach``) over w' into ``wide``, in the order of ``_widen_and_maxima``."""
    x = padded[reach:]
    for d in range(1, reach + 1):
        a, b = padded[reach - d :], padded[reach + d :]
        left, right = masks[0, d], masks[1, d]
        for q in range(wide.size):
            wide[q] = x[q] + left[q] * a[q] + right[q] * b[q]
        x = wide


@_compiled
def _maxima_near(
    x: Any, p: int, grid: Any, window: int, barred: Any, own: Any, others: Any, columns: Any
) -> Any:
    """``_maxima`` of a row x (P,) over the columns within ``window`` of patch p that are not barred."""
    height, width = grid
    left, right = max(p % width - window, 0), min(p % width + window + 1, width)
    most = _LEAST
    for h in range(max(p // width - window, 0), min(p // width + window + 1, height)):
        for q in range(h * width + left, h * width + right):
            columns[q] = _larger(columns[q], x[q] * own)
            most = _larger(most, x[q] * others[q] + barred[q])
    return _scaled(most, own)


@_compiled
def _scaled(most: Any, scale: Any) -> Any:
    """A maximum by its scale; that of nothing is the opposite."""
    return OPPOSITE if most == _LEAST else most * scale


@_compiled
def _filter_near(
    gram: Any,
    grid: Any,
    reaches: Any,
    masks: Any,
    own: Any,
    others: Any,
    rows: Any,
    columns: Any,
    scratch: Any,
    window: int,
    barred: Any,
) -> None:
    """``_filter`` with a window, and without the patches that are barred: (2,P), 0 or minus infinity."""
    bands, row_room, tall_room, wide = scratch
    height, width = grid
    patches = height * width
    for t in range(reaches.size):
        k = reaches[t]
        scales = others[t]
        best = columns[t]
        best[:] = _LEAST
        row_room[:] = 0
        tall_room[:] = 0
        padded_row = row_room[: patches + 2 * k * width]
        row = row_room[k * width : k * width + patches]
        padded_tall = tall_room[: patches + 2 * k]
        tall = tall_room[k : k + patches]
        for h in range(height):
            top = max(h - k, 0)
            count = min(h + k, height - 1) - top + 1
            for w in range(width):
                _sum_rows(bands[w], gram, top * width + w, count, width)
            for w in range(width):
                p = h * width + w
                rows[t, p] = OPPOSITE
                if barred[0, p] == 0:
                    if k == 0:
                        wide[:] = bands[w]
                    else:
                        left = max(w - k, 0)
                        _sum_rows(row, bands, left, min(w + k, width - 1) - left + 1, 1)
                        _sum_shifts(tall, padded_row, k, width)
                        _widen(padded_tall, k, masks, wide)
                    rows[t, p] = _maxima_near(wide, p, grid, window, barred[1], own[t, p], scales, best)
        for q in range(patches):
            best[q] = _scaled(best[q], scales[q])


class NumbaFilter:
    """A ``GramFilter`` (protocols.py), the twin of ``NumpyFilter``: same results to 1e-6."""

    name = "numba"
    version = f"numba {numba.__version__}"
    note = (
        f"numba compiled for this run alone: {_distrusted[0]}, so that others could have put code into its "
        "cache. Let nobody else write there, or set $NUMBA_CACHE_DIR."
        if _distrusted
        else ""
    )

    def __init__(self, grid: tuple[int, int], degrees: Sequence[int], window: int | None = None) -> None:
        height, width = grid
        patches = height * width
        # A window that reaches beyond the grid on all sides sums all of it, however wide it is.
        self._reaches = np.array([min(r // 2, max(grid) - 1) for r in degrees], np.int64)
        most = int(self._reaches.max())
        column = np.arange(patches) % width
        self._masks = np.zeros((2, most + 1, patches), np.float32)
        for d in range(1, most + 1):
            self._masks[:, d] = column >= d, column < width - d
        self._grid = grid
        self._window = window
        self._barred = np.zeros((2, patches), np.float32)
        self._scratch = (
            np.empty((width, patches), np.float32),  # bands
            np.empty(patches + 2 * most * width, np.float32),  # row, padded by k grid rows at both ends
            np.empty(patches + 2 * most, np.float32),  # tall, padded by k patches at both ends
            np.empty(patches, np.float32),  # wide
        )

    def maxima(
        self,
        gram: FloatArray,
        own: FloatArray,
        others: FloatArray,
        rows: FloatArray,
        columns: FloatArray,
        inside: tuple[Array, Array] | None = None,
    ) -> None:
        """As ``GramFilter`` says."""
        given = gram, self._grid, self._reaches, self._masks, own, others, rows, columns, self._scratch
        if self._window is None and inside is None:
            _filter(*given)
            return
        for barred, allowed in zip(self._barred, inside or (), strict=False):
            barred[:] = np.where(allowed, np.float32(0), _LEAST)
        window = max(self._grid) if self._window is None else min(self._window, max(self._grid))
        _filter_near(*given, window, self._barred)


def compile_now() -> None:
    """Compile the pass, or load it from numba's cache, before work is timed and threads wait for it."""
    tiny = np.ones((2, 1, 1), np.float32)
    NumbaFilter((1, 1), (1,)).maxima(tiny[0], tiny[0], tiny[0], tiny[0], tiny[1])


def compile_near() -> None:
    """Compile the pass for regions and windows, or load it, which without them nobody waits for."""
    tiny = np.ones((2, 1, 1), np.float32)
    NumbaFilter((1, 1), (1,), 0).maxima(tiny[0], tiny[0], tiny[0], tiny[0], tiny[1])
