"""Read headers of BMP and WebP files, and check them before Pillow sees the file."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .image_bytes import EXTRA_BYTES, FAR_TOO_MUCH, FileHeader, ImageError, read_at, too_many, unpack_at

RUN_LENGTH_PIXELS = 10_000_000
"""Largest run-length-encoded BMP. Pillow decodes these in Python: 5 us for a run, 0.3 us for a pixel."""

MOST_PARTS = 10_000
"""Limit of the parts of a WebP: every picture of an animation is one."""

_BMP_HEADERS = (40, 52, 56, 64, 108, 124)
_RUN_LENGTH = (1, 2)


def bmp_header(file: BinaryIO) -> FileHeader:
    """Read the size of a BMP; ImageError if its header is of a kind that is not read."""
    (size,) = unpack_at(file, 14, "<L")
    if size == 12:
        width, height, _, bits = unpack_at(file, 18, "<4H")
        packing = 0
    elif size in _BMP_HEADERS:
        width, height, _, bits, packing = unpack_at(file, 18, "<LLHHL")
        if height >> 24 == 0xFF:  # negative: rows come from the top
            height = 2**32 - height
    else:
        raise ImageError("unreadable", "not an image file, or a BMP of a kind that is not read")
    if packing in _RUN_LENGTH and width * height > RUN_LENGTH_PIXELS:
        raise ImageError("unsupported", "a large run-length-encoded BMP; save it as PNG")
    return FileHeader("bmp", width, height, (width * bits + 31) // 32 * 4 * height)


def webp_header(file: BinaryIO, start: bytes) -> FileHeader:
    """Read the size of a WebP, and the number of pictures of an animated one.

    Raises
    ------
    ImageError
        If it has no header, or is far larger than its pixels can be: Pillow reads all of it to open it.
    """
    width, height = _webp_size(start)
    pages = _webp_pictures(file) if start[12:16] == b"VP8X" else 1
    header = FileHeader("webp", width, height, 4 * width * height, pages)
    if struct.unpack_from("<L", start, 4)[0] > 2 * header.pixel_bytes + EXTRA_BYTES:
        raise ImageError("unsupported", FAR_TOO_MUCH)
    return header


def webp_content(file: BinaryIO) -> bytes:
    """Read the whole WebP without what follows it; call this after its header was checked."""
    (size,) = unpack_at(file, 4, "<L")
    return read_at(file, 0, size + 8 + size % 2)


def _webp_size(start: bytes) -> tuple[int, int]:
    kind, data = start[12:16], start[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[k : k + 3], "little") + 1 for k in (4, 7))
        return width, height
    if kind == b"VP8L":
        size = int.from_bytes(data[1:5], "little")
        return (size & 0x3FFF) + 1, (size >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF


def _webp_pictures(file: BinaryIO) -> int:
    offset, parts, pictures = 12, 0, 0
    while len(head := read_at(file, offset, 8)) == 8:
        kind, size = struct.unpack("<4sL", head)
        offset, parts, pictures = offset + 8 + size + size % 2, parts + 1, pictures + (kind == b"ANMF")
        if parts > MOST_PARTS:
            raise too_many("pictures and other parts", MOST_PARTS)
    return max(1, pictures)
