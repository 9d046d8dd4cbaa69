"""Which letters a font file has: its table cmap, in the two formats that fonts have for Unicode (4 and 12).

Pillow does not tell, and drawing each letter with each font to see takes 50 ms for a letter that none has.
Format: OpenType specification, "cmap - Character to Glyph Index Mapping Table".
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from pathlib import Path
from typing import BinaryIO

_LARGEST = 1 << 24  # bytes of a cmap; the largest fonts have 1 MB
_UNICODE = {(0, kind) for kind in range(7)} | {(3, 1), (3, 10)}  # platform and encoding of a subtable
Range = tuple[int, int]


class Letters:
    """The letters of a font, as ranges of code points, ends included."""

    def __init__(self, ranges: list[Range]) -> None:
        self._ranges = sorted(ranges)
        self._starts = [start for start, _ in self._ranges]
        self._ends = [end for _, end in self._ranges]

    def __contains__(self, letter: str) -> bool:
        place = bisect_right(self._starts, ord(letter)) - 1
        return place >= 0 and ord(letter) <= self._ends[place]


def read_letters(path: str) -> Letters:
    """Read which letters the (first) font of a file has; none if it is no font that can be read."""
    try:
        with Path(path).open("rb") as file:
            return Letters(_merged(_ranges(_cmap(file))))
    except (OSError, ValueError, struct.error):
        return Letters([])


def _cmap(file: BinaryIO) -> bytes:
    """The table cmap of the first font in a file."""
    start = 0
    if file.read(4) == b"ttcf":
        file.seek(12)
        (start,) = struct.unpack(">I", file.read(4))
    file.seek(start + 4)
    (count,) = struct.unpack(">H", file.read(2))
    file.seek(start + 12)
    for _ in range(count):
        tag, _checksum, offset, length = struct.unpack(">4sIII", file.read(16))
        if tag == b"cmap" and length <= _LARGEST:
            file.seek(offset)
            return file.read(length)
    raise ValueError("no table cmap")


def _ranges(cmap: bytes) -> list[Range]:
    """The ranges of all subtables for Unicode."""
    (count,) = struct.unpack_from(">H", cmap, 2)
    found: list[Range] = []
    for i in range(count):
        platform, encoding, offset = struct.unpack_from(">HHI", cmap, 4 + 8 * i)
        (form,) = struct.unpack_from(">H", cmap, offset)
        if (platform, encoding) in _UNICODE and form in (4, 12):
            found += _of_format_4(cmap, offset) if form == 4 else _of_format_12(cmap, offset)
    return found


def _of_format_12(cmap: bytes, offset: int) -> list[Range]:
    (count,) = struct.unpack_from(">I", cmap, offset + 12)
    groups = struct.iter_unpack(">III", cmap[offset + 16 : offset + 16 + 12 * count])
    return [(start, end) for start, end, glyph in groups if start <= end and (glyph or end > start)]


def _of_format_4(cmap: bytes, offset: int) -> list[Range]:
    (double,) = struct.unpack_from(">H", cmap, offset + 6)
    at = offset + 14
    form = f">{double // 2}H"
    ends = struct.unpack_from(form, cmap, at)
    starts = struct.unpack_from(form, cmap, at + double + 2)
    deltas = struct.unpack_from(form, cmap, at + 2 * double + 2)
    jumps_at = at + 3 * double + 2
    jumps = struct.unpack_from(form, cmap, jumps_at)
    found: list[Range] = []
    for i, (start, end, delta, jump) in enumerate(zip(starts, ends, deltas, jumps, strict=True)):
        if jump == 0:
            missing = (
                -delta % 65536
            )  # whose glyph would be 0, which stands for every letter that is not there
            found += [(start, min(end, missing - 1)), (max(start, missing + 1), end)]
            continue
        first = jumps_at + 2 * i + jump
        glyphs = struct.unpack_from(f">{max(end - start + 1, 0)}H", cmap, first)
        found += [(start + k, start + k) for k, glyph in enumerate(glyphs) if glyph]
    return found


def _merged(ranges: list[Range]) -> list[Range]:
    """The same letters in ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for start, end in sorted(pair for pair in ranges if pair[0] <= pair[1]):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
