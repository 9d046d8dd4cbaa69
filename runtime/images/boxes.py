"""Boxes of files of the ISO base format: JPEG 2000, JPEG XL, AVIF and HEIC (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from .image_bytes import read_at, too_many

MOST_BOXES = 10_000
"""Limit of boxes in one list of them: a picture of 512 x 512 tiles has a few thousand."""


def boxes(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box from ``start`` on, and where its content begins and ends.

    Raises
    ------
    ImageError
        If there are more than any decoder should be given.
    """
    last = file.seek(0, io.SEEK_END)
    end = last if end is None else min(end, last)
    for _ in range(MOST_BOXES):
        head = read_at(file, start, 16) if start < end else b""
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">L4s", head)
        inside = 8
        if size == 1 and len(head) == 16:
            (size,), inside = struct.unpack_from(">Q", head, 8), 16
        stop = end if size == 0 else start + size
        if stop < start + inside:
            return
        yield kind, start + inside, min(stop, end)
        start = stop
    raise too_many("boxes", MOST_BOXES)


def find_box(file: BinaryIO, *path: bytes, start: int = 0, end: int | None = None) -> tuple[int, int] | None:
    """Find the first box of each kind inside of the one before; returns where its content begins and ends."""
    for kind in path:
        found = next(((a, b) for name, a, b in boxes(file, start, end) if name == kind), None)
        if found is None:
            return None
        start, end = found
        start += 4 if kind == b"meta" else 0  # a version stands before what is in it
    assert end is not None
    return start, end
