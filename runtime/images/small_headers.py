"""Read headers of GIF and WebP files, and check them before Pillow sees the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from .image_bytes import (
    EXTRA_BYTES,
    FAR_TOO_MUCH,
    MOST_METADATA,
    FileHeader,
    ImageError,
    read_at,
    too_many,
    unpack_at,
)
from .metadata import orientation

MOST_PICTURES = 1000
"""Pictures of a GIF are counted up to here; the user is only told that there are several."""

MOST_BLOCKS = 1 << 18
"""Blocks of up to 255 bytes of one picture of a GIF that are passed over to count the others."""

MOST_PARTS = 10_000
"""Limit of the parts of a WebP, of which every picture of an animation is one, and of a GIF."""


def webp_header(file: BinaryIO, start: bytes) -> FileHeader:
    """Read the size of a WebP, how it is turned, and the number of pictures of an animated one.

    Raises
    ------
    ImageError
        If it has no picture, or is far larger than its pixels can be: Pillow reads all of it to open it.
    """
    width, height = _webp_size(start)
    size = 4 * width * height
    if struct.unpack_from("<L", start.ljust(8, b"\0"), 4)[0] > 2 * size + EXTRA_BYTES:
        raise ImageError("unsupported", FAR_TOO_MUCH)
    parts = list(_webp_parts(file)) if start[12:16] == b"VP8X" else []
    content = {kind: (offset, length) for kind, offset, length in reversed(parts)}
    exif, xmp, profile = (
        read_at(file, *content[kind])
        if content.get(kind, (0, MOST_METADATA + 1))[1] <= MOST_METADATA
        else b""
        for kind in (b"EXIF", b"XMP ", b"ICCP")
    )
    pages = max(1, sum(kind == b"ANMF" for kind, _, _ in parts))
    turned = orientation(exif, xmp)
    return FileHeader("webp", width, height, size, pages, orientation=turned, profile=zlib.crc32(profile))


def webp_content(file: BinaryIO) -> bytes:
    """Read the whole WebP without what follows it; call this after its header was checked."""
    (size,) = unpack_at(file, 4, "<L")
    return read_at(file, 0, size + 8 + size % 2)


def _webp_size(start: bytes) -> tuple[int, int]:
    kind, data = start[12:16], start[20:30].ljust(10, b"\0")
    if kind not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise ImageError("unreadable", "a WebP file without its picture")
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[k : k + 3], "little") + 1 for k in (4, 7))
        return width, height
    if kind == b"VP8L":
        size = int.from_bytes(data[1:5], "little")
        return (size & 0x3FFF) + 1, (size >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF


def _webp_parts(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each part, where its content begins, and its length."""
    offset, parts = 12, 0
    (end,) = unpack_at(file, 4, "<L")
    while offset < end + 8 and len(head := read_at(file, offset, 8)) == 8:
        kind, size = struct.unpack("<4sL", head)
        yield kind, offset + 8, size
        offset, parts = offset + 8 + size + size % 2, parts + 1
        if parts > MOST_PARTS:
            raise too_many("pictures and other parts", MOST_PARTS)


def gif_header(file: BinaryIO) -> FileHeader:
    """Read the size of a GIF, and count its pictures, up to ``MOST_PICTURES``.

    Raises
    ------
    ImageError
        If it has no header, or more before its first picture than a decoder should be given.
    """
    width, height, flags = unpack_at(file, 6, "<HHB")
    offset, pictures, parts = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), 0, 0
    while pictures < MOST_PICTURES and (kind := read_at(file, offset, 1)) in (b"!", b","):
        if kind == b",":
            pictures += 1
            (local,) = read_at(file, offset + 9, 1) or b"\0"
            offset += 11 + (3 << (local & 7) + 1 if local & 0x80 else 0)
        else:
            offset += 2
        parts += 1
        end = _blocks_end(file, offset) if parts < MOST_PARTS else None
        if end is None and not pictures:
            raise too_many("parts before the pixels", MOST_PARTS)
        if end is None:
            break
        offset = end
    return FileHeader("gif", width, height, width * height, max(1, pictures))


def _blocks_end(file: BinaryIO, offset: int) -> int | None:
    """Return where a list of blocks ends that begins at ``offset``; None if it has too many."""
    for _ in range(MOST_BLOCKS):
        size = read_at(file, offset, 1)
        offset += 1 + (size[0] if size else 0)
        if size in (b"", b"\0"):
            return offset
    return None
