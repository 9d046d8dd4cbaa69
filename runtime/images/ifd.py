"""Directories of TIFF files and of EXIF blocks, read with bounded work.

Pillow copies the data of every entry when it opens a directory.  Here entries are only listed, and a value is
read when it is asked for.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..types import Array, FloatArray
from .image_bytes import read_at

MOST_ENTRIES = 1000
"""Limit of entries in a directory: real ones have up to 200, and libtiff's time is quadratic."""

PREFIXES = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0")
"""The first bytes of a TIFF structure; the last two are wrong, but are written and read."""

ORIENTATION = 274
# type -> its numbers in struct's letters; 1, 2 and 7 are bytes, text and bytes
_NUMBERS = {3: "H", 4: "L", 5: "LL", 6: "b", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d", 13: "L"}
_NUMBERS |= {16: "Q", 17: "q", 18: "Q"}
_BYTES = (1, 2, 7)
_RATIONAL = 5
_WHOLE = {
    1: "u1",
    3: "u2",
    4: "u4",
    13: "u4",
    16: "u8",
    18: "u8",
}  # types of whole numbers, in numpy's letters


@dataclass(frozen=True)
class Layout:
    """The encoding of a directory: byte order ('<' or '>'), and whether it is a BigTIFF."""

    order: str
    big: bool = False

    @property
    def pointer(self) -> str:
        """``struct`` format of an offset into the file."""
        return f"{self.order}Q" if self.big else f"{self.order}L"


@dataclass(frozen=True)
class Entry:
    """An entry: ``count`` values of a type, whose ``size`` bytes are at offset ``where``."""

    kind: int
    count: int
    size: int
    where: int

    @property
    def numbers(self) -> int:
        """Number of Python numbers that reading all values makes; bytes and text make none."""
        return self.count if self.kind in _NUMBERS else 0


@dataclass(frozen=True)
class Directory:
    """A directory with the first entry of each tag.

    ``listed`` is the number of entries that it claims and has room for, ``after`` the offset of the next one.
    """

    layout: Layout
    entries: dict[int, Entry]
    listed: int
    after: int

    def number(self, file: BinaryIO, tag: int) -> float | None:
        """Return the first value of a tag, or None if that is not a number."""
        entry = self.entries.get(tag)
        letters = _NUMBERS.get(entry.kind) if entry else None
        if entry is None or letters is None:
            return None
        form = self.layout.order + letters
        content = read_at(file, entry.where, struct.calcsize(form))
        if len(content) < struct.calcsize(form):
            return None
        values = struct.unpack(form, content)
        if len(values) == 1:
            return float(values[0]) if isinstance(values[0], float) else int(values[0])
        return float(values[0] / values[1]) if values[1] else None

    def whole(self, file: BinaryIO, tag: int, default: int = 0) -> int:
        """Return the first value of a tag as a whole number, else ``default``."""
        value = self.number(file, tag)
        return int(value) if value is not None and 0 <= value < 1 << 63 else default

    def array(self, file: BinaryIO, tag: int) -> Array:
        """Return all values of a tag as whole numbers (N,) int64; none if it is missing or no such.

        Numbers beyond 63 bits, further than any file reaches, are the largest of these.
        """
        entry = self.entries.get(tag)
        kind = _WHOLE.get(entry.kind) if entry else None
        if entry is None or kind is None:
            return np.zeros(0, np.int64)
        values = np.frombuffer(read_at(file, entry.where, entry.size), self.layout.order + kind)
        whole: Array = np.minimum(values, np.uint64(2**63 - 1)).astype(np.int64)
        return whole

    def fractions(self, file: BinaryIO, tag: int) -> FloatArray:
        """Return all values of a tag as numbers (N,); none if it is missing or has no fractions."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind != _RATIONAL:
            return np.zeros(0, np.float32)
        pairs = np.frombuffer(read_at(file, entry.where, entry.size), f"{self.layout.order}u4")
        pairs = pairs[: len(pairs) // 2 * 2].reshape(-1, 2).astype(np.float32)
        found = np.zeros(len(pairs), np.float32)
        np.divide(pairs[:, 0], pairs[:, 1], where=pairs[:, 1] != 0, out=found)
        return found

    def content(self, file: BinaryIO, tag: int) -> bytes:
        """Return the bytes of a tag's values as they are stored; none if it is missing."""
        entry = self.entries.get(tag)
        return read_at(file, entry.where, entry.size) if entry else b""


def read_directory(file: BinaryIO, offset: int, layout: Layout) -> Directory:
    """Read the directory at ``offset``, at most ``MOST_ENTRIES`` of its entries.

    Entries whose values are not in the file are left out, as Pillow does.
    """
    count_form, entry_form = (
        layout.order + ("Q" if layout.big else "H"),
        layout.order + ("HHQ" if layout.big else "HHL"),
    )
    head, room, end = struct.calcsize(count_form), struct.calcsize(layout.pointer), file.seek(0, io.SEEK_END)
    step = struct.calcsize(entry_form) + room
    first = read_at(file, offset, head)
    listed = struct.unpack(count_form, first)[0] if len(first) == head else 0
    table = read_at(file, offset + head, step * min(listed, MOST_ENTRIES))
    entries: dict[int, Entry] = {}
    for at in range(0, len(table) - step + 1, step):
        tag, kind, count = struct.unpack_from(entry_form, table, at)
        size = count * (1 if kind in _BYTES else struct.calcsize(layout.order + _NUMBERS.get(kind, "")))
        # A value that fits into the pointer's bytes is stored there itself.
        where = offset + head + at + step - room
        if size > room:
            (where,) = struct.unpack_from(layout.pointer, table, at + step - room)
        if tag not in entries and size and where + size <= end:
            entries[tag] = Entry(kind, count, size, where)
    after = next_directory(file, offset, listed, layout)
    return Directory(layout, entries, min(listed, max(0, end - offset) // step), after)


def next_directory(file: BinaryIO, offset: int, listed: int, layout: Layout) -> int:
    """Return the offset of the directory after the one of ``listed`` entries at ``offset``; 0 if none."""
    head, step = (8, 20) if layout.big else (2, 12)
    size = struct.calcsize(layout.pointer)
    content = read_at(file, offset + head + step * listed, size)
    return int(struct.unpack(layout.pointer, content)[0]) if len(content) == size else 0


def exif_orientation(exif: bytes) -> float | None:
    """Return the orientation in an EXIF block, unchecked; None without one, 1 if it is no EXIF block."""
    exif = re.sub(rb"^(Exif\x00\x00){1,2}", b"", exif)
    directory = first_directory(exif)
    if directory is None:
        return 1 if exif else None
    return directory.number(io.BytesIO(exif), ORIENTATION)


def first_directory(block: bytes) -> Directory | None:
    """Read the first directory of a TIFF structure inside another file; None if it is none."""
    if len(block) < 8 or not block.startswith(PREFIXES):
        return None
    layout = Layout("<" if block.startswith(b"II") else ">")
    (offset,) = struct.unpack_from(layout.pointer, block, 4)
    return read_directory(io.BytesIO(block), offset, layout)
