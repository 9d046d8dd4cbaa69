"""All pixels of a lot's maps in descending order of their values, in little memory.

200 maps of 1024 x 1024 are 210 million numbers.  Each map is sorted by itself and laid down in a scratch
file; then ranges of values, from the highest down, are gathered from all maps.  Equal values fall into one
range, so the order is that of one sort, whatever the size of a range.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

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

    def items(self, low: int, high: int) -> tuple[int, int]:
        """Return the items whose bins are in [low, high)."""
        start, stop = np.searchsorted(self.bins, (low, high))
        return int(self.firsts[start]), int(self.firsts[stop])


class SortedPixels:
    """A context manager; maps are added, and then asked for again by ranges."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # closed by __exit__
        self._normal: list[_Stored] = []
        self._defect: list[tuple[_Stored, int]] = []  # with the offset of the pixels' regions
        self._counts = np.zeros(_BINS, np.int64)
        self._sizes: list[Array] = []
        self.lowest, self.highest = float("inf"), float("-inf")

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
        self._normal.append(self._lay_down(np.sort(keys[~mask])))
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        if count > 1:
            order = np.argsort(keys[mask], kind="stable")
            stored = self._lay_down(keys[mask][order])
            regions = (labels[mask] - 1 + self.regions).astype(np.uint32)
            self._defect.append((stored, self._write(regions[order])))
            self._sizes.append(np.bincount(labels[mask])[1:])
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))

    @property
    def regions(self) -> int:
        """Number of regions: 8-connected parts of masks."""
        return sum(map(len, self._sizes))

    @property
    def normal(self) -> int:
        """Number of pixels outside of all masks."""
        return sum(int(stored.firsts[-1]) for stored in self._normal)

    @property
    def defect(self) -> int:
        """Number of pixels inside of masks."""
        return sum(int(stored.firsts[-1]) for stored, _ in self._defect)

    def ranges(self, most_pixels: int = MOST_PIXELS) -> Iterator[Range]:
        """Yield the pixels in descending order, up to ``most_pixels`` at a time unless they are alike."""
        high, count = _BINS, 0
        for low in np.flatnonzero(self._counts)[::-1].tolist():
            if count and count + self._counts[low] > most_pixels:
                yield self._range(low + 1, high)
                high, count = low + 1, 0
            count += int(self._counts[low])
        yield self._range(0, high)

    def above(self, thresholds: FloatArray) -> tuple[Array, Array]:
        """Return what is above each of ``thresholds``: normal pixels (T,), shares of the regions (R,T)."""
        size = len(thresholds) + 1
        normal, defect = np.zeros(size, np.int64), np.zeros(self.regions * size, np.int64)
        for stored in self._normal:
            values = _values(self._read(stored.offset, 0, int(stored.firsts[-1])))
            normal += np.bincount(np.searchsorted(thresholds, values, "left"), minlength=size)
        for stored, offset in self._defect:
            count = int(stored.firsts[-1])
            values, regions = _values(self._read(stored.offset, 0, count)), self._read(offset, 0, count)
            cells = regions.astype(np.int64) * size + np.searchsorted(thresholds, values, "left")
            defect += np.bincount(cells, minlength=len(defect))
        # A pixel in cell k is above the first k thresholds.
        pixels = [np.cumsum(table.reshape(-1, size)[:, ::-1], axis=1)[:, ::-1] for table in (normal, defect)]
        return pixels[0][0, 1:], pixels[1][:, 1:] / pixels[1][:, :1]

    # ---- parts -----------------------------------------------------------------------------------

    def _range(self, low: int, high: int) -> Range:
        normal_parts, defect_parts = [], []
        for stored in self._normal:
            # Each map's equal values become one before all are joined: a lot of even maps stays small.
            different, firsts = _runs(self._slice(stored, low, high)[0])
            normal_parts.append((different, np.diff(firsts)))
        for stored, offset in self._defect:
            keys, (start, stop) = self._slice(stored, low, high)
            defect_parts.append((keys, self._read(offset, start, stop)))
        normal_keys, counts = _join(normal_parts)
        defect_keys, regions = _join(defect_parts)
        keys, _ = _runs(np.sort(np.concatenate([normal_keys, defect_keys])))
        normal = np.bincount(np.searchsorted(keys, normal_keys), counts, len(keys))
        place = np.searchsorted(keys, defect_keys)
        share = 1 / np.concatenate(self._sizes)[regions] if len(regions) else np.empty(0)
        defect, shares = (np.bincount(place, weights, len(keys)) for weights in (None, share))
        return Range(_values(keys[::-1]), defect[::-1], normal[::-1], shares[::-1])

    def _lay_down(self, keys: Array) -> _Stored:
        bins, firsts = _runs(keys >> 16)
        self._counts[bins] += np.diff(firsts)
        return _Stored(self._write(keys), bins, firsts)

    def _slice(self, stored: _Stored, low: int, high: int) -> tuple[Array, tuple[int, int]]:
        start, stop = stored.items(low, high)
        return self._read(stored.offset, start, stop), (start, stop)

    def _write(self, items: Array) -> int:
        offset = self._file.seek(0, 2)
        self._file.write(items.astype(np.uint32).tobytes())
        return offset

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
