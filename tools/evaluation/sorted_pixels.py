"""All pixels of a lot's maps, or of some, in descending order of their values, in little memory.

200 maps of 1024 x 1024 are 210 million numbers.  Each map is sorted by itself and laid down in a scratch
file; then ranges of values, from the highest down, are gathered from the maps that are asked for.  Equal
values fall into one range, so the order is that of one sort, whatever the size of a range.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import cv2
import numpy as np

from ...runtime.errors import LotError
from ...runtime.types import Array, FloatArray

MOST_PIXELS = 1 << 21
"""Pixels of a range; the sums over it take about 200 bytes for each."""
_IN_MEMORY = 1 << 27
"""Bytes of sorted pixels that are kept in memory before a file is used."""
_BINS = 1 << 16


@dataclass(frozen=True)
class Range:
    """The pixels of a range: different ``values``, descending, and for each what has it.

    ``defect`` and ``normal`` count pixels; ``share`` sums 1 / (pixels of its region) over the defect pixels.
    """

    values: FloatArray
    defect: Array
    normal: Array
    share: Array


@dataclass(frozen=True)
class _Stored:
    """The sorted keys of one map: their ``offset`` in the file, and the first item of each of ``bins``."""

    offset: int
    bins: Array
    firsts: Array

    @property
    def count(self) -> int:
        """Number of its pixels."""
        return int(self.firsts[-1])

    def items(self, low: int, high: int) -> tuple[int, int]:
        """Return the items whose bins are in [low, high)."""
        start, stop = np.searchsorted(self.bins, (low, high))
        return int(self.firsts[start]), int(self.firsts[stop])


@dataclass(frozen=True)
class _Map:
    """A map's sorted pixels outside of its mask and inside; ``sizes`` are the pixels of its regions.

    ``regions`` is the offset of the regions, counted from 0, of the pixels inside.
    """

    lowest: float
    highest: float
    normal: _Stored
    defect: _Stored
    regions: int
    sizes: Array


class SortedPixels:
    """A context manager; maps are added, and then asked for by ``of``."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # closed by __exit__
        self._maps: list[_Map] = []

    def __enter__(self) -> SortedPixels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, values: FloatArray, mask: Array) -> None:
        """Add a map (H,W) float32 with its mask (H,W) bool.

        Raises
        ------
        LotError
            If they differ in size, or the map is not finite.
        """
        if values.shape != mask.shape:
            raise LotError(f"a map of shape {values.shape} with a mask of shape {mask.shape}.")
        if not np.isfinite(values).all():
            raise LotError("a map holds values that are not finite.")
        keys = _keys(values)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        inside = labels[mask] - 1
        order = np.argsort(keys[mask], kind="stable")
        normal, defect = self._lay_down(np.sort(keys[~mask])), self._lay_down(keys[mask][order])
        regions, sizes = self._write(inside[order]), np.bincount(inside, minlength=count - 1)
        self._maps.append(_Map(float(values.min()), float(values.max()), normal, defect, regions, sizes))

    def of(self, chosen: Sequence[int] | None = None) -> Pixels:
        """Return the pixels of some maps, numbered as they were added, or of all."""
        return Pixels(self._file, [self._maps[k] for k in chosen] if chosen is not None else self._maps)

    # ---- parts -----------------------------------------------------------------------------------

    def _lay_down(self, keys: Array) -> _Stored:
        bins, firsts = _runs(keys >> 16)
        return _Stored(self._write(keys), bins, firsts)

    def _write(self, items: Array) -> int:
        offset = self._file.seek(0, 2)
        self._file.write(items.astype(np.uint32).tobytes())
        return offset


class Pixels:
    """Sorted pixels of some maps, while the ``SortedPixels`` that they are of is open."""

    def __init__(self, file: IO[bytes], maps: Sequence[_Map]) -> None:
        self._file, self._maps = file, maps
        self._sizes = np.concatenate([np.empty(0, np.int64), *(each.sizes for each in maps)])
        before = np.cumsum([0, *(len(each.sizes) for each in maps)])
        self._first_regions = [int(first) for first in before[:-1]]
        self.lowest = min((each.lowest for each in maps), default=float("inf"))
        self.highest = max((each.highest for each in maps), default=float("-inf"))

    @property
    def regions(self) -> int:
        """Number of regions: 8-connected parts of masks."""
        return len(self._sizes)

    @property
    def normal(self) -> int:
        """Number of pixels outside of all masks."""
        return sum(each.normal.count for each in self._maps)

    @property
    def defect(self) -> int:
        """Number of pixels inside of masks."""
        return sum(each.defect.count for each in self._maps)

    def ranges(self, most_pixels: int = MOST_PIXELS) -> Iterator[Range]:
        """Yield the pixels in descending order, up to ``most_pixels`` at a time unless they are alike."""
        counts = self._counts()
        high, count = _BINS, 0
        for low in np.flatnonzero(counts)[::-1].tolist():
            if count and count + counts[low] > most_pixels:
                yield self._range(low + 1, high)
                high, count = low + 1, 0
            count += int(counts[low])
        yield self._range(0, high)

    def above(self, thresholds: FloatArray) -> tuple[Array, Array]:
        """Return what is above each of ``thresholds``: normal pixels (T,), shares of the regions (R,T)."""
        size = len(thresholds) + 1
        normal, defect = np.zeros(size, np.int64), np.zeros(self.regions * size, np.int64)
        for each, first in zip(self._maps, self._first_regions, strict=True):
            values = _values(self._read(each.normal.offset, 0, each.normal.count))
            normal += np.bincount(np.searchsorted(thresholds, values, "left"), minlength=size)
            values = _values(self._read(each.defect.offset, 0, each.defect.count))
            regions = self._read(each.regions, 0, each.defect.count).astype(np.int64) + first
            cells = regions * size + np.searchsorted(thresholds, values, "left")
            defect += np.bincount(cells, minlength=len(defect))
        # A pixel in cell k is above the first k thresholds.
        pixels = [np.cumsum(table.reshape(-1, size)[:, ::-1], axis=1)[:, ::-1] for table in (normal, defect)]
        return pixels[0][0, 1:], pixels[1][:, 1:] / pixels[1][:, :1]

    # ---- parts -----------------------------------------------------------------------------------

    def _counts(self) -> Array:
        """Number of pixels in each bin."""
        counts = np.zeros(_BINS, np.int64)
        for each in self._maps:
            for stored in (each.normal, each.defect):
                counts[stored.bins] += np.diff(stored.firsts)
        return counts

    def _range(self, low: int, high: int) -> Range:
        normal_parts, defect_parts = [], []
        for each, first in zip(self._maps, self._first_regions, strict=True):
            # Each map's equal values become one before all are joined: a lot of even maps stays small.
            different, firsts = _runs(self._slice(each.normal, low, high)[0])
            normal_parts.append((different, np.diff(firsts)))
            keys, (start, stop) = self._slice(each.defect, low, high)
            defect_parts.append((keys, self._read(each.regions, start, stop).astype(np.int64) + first))
        normal_keys, counts = _join(normal_parts)
        defect_keys, regions = _join(defect_parts)
        keys, _ = _runs(np.sort(np.concatenate([normal_keys, defect_keys])))
        normal = np.bincount(np.searchsorted(keys, normal_keys), counts, len(keys))
        place = np.searchsorted(keys, defect_keys)
        share = 1 / self._sizes[regions]
        defect, shares = (np.bincount(place, weights, len(keys)) for weights in (None, share))
        return Range(_values(keys[::-1]), defect[::-1], normal[::-1], shares[::-1])

    def _slice(self, stored: _Stored, low: int, high: int) -> tuple[Array, tuple[int, int]]:
        start, stop = stored.items(low, high)
        return self._read(stored.offset, start, stop), (start, stop)

    def _read(self, offset: int, start: int, stop: int) -> Array:
        self._file.seek(offset + 4 * start)
        return np.frombuffer(self._file.read(4 * (stop - start)), np.uint32)


def _keys(values: FloatArray) -> Array:
    """Return uint32 numbers in the order of the float32 ``values``; equal exactly where these are."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _values(keys: Array) -> FloatArray:
    """Return the float32 values of keys."""
    return np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).astype(np.uint32).view(np.float32)


def _runs(keys: Array) -> tuple[Array, Array]:
    """Return the different values of sorted keys, and where each begins, with the end of the last."""
    # Not numpy's unique, which takes ten times as long for keys that are sorted already.
    begins = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    firsts = np.concatenate([np.zeros(min(len(keys), 1), np.int64), begins])
    return keys[firsts], np.append(firsts, len(keys))


def _join(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Join pairs of arrays; empty ones if there are none."""
    if not parts:
        return np.empty(0, np.uint32), np.empty(0, np.int64)
    keys, others = zip(*parts, strict=True)
    return np.concatenate(keys), np.concatenate(others)
