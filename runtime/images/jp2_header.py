"""Read headers of JPEG 2000 files and codestreams (ISO/IEC 15444-1, annexes A and I)."""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

from .boxes import find_box
from .image_bytes import FileHeader, ImageError, read_at, too_many, unpack_at

CODESTREAM = b"\xff\x4f\xff\x51"
SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"

MOST_TILES = 65_535
"""Limit of tiles: what the format itself allows."""

_MOST_COMPONENTS = 5


def jp2_header(file: BinaryIO) -> FileHeader:
    """Read the size of a JPEG 2000 file.

    Raises
    ------
    ImageError
        If it has no codestream, or one of a kind that is not read.
    """
    if read_at(file, 0, 4) == CODESTREAM:
        return codestream_header(file, 0)
    found = find_box(file, b"jp2c")
    if found is None:
        raise ImageError("unreadable", "a JPEG 2000 file without its picture")
    return codestream_header(file, found[0])


def codestream_header(file: BinaryIO, offset: int) -> FileHeader:
    """Read the size of the codestream at ``offset``; ImageError if it is of a kind that is not read."""
    form = ">4sHHLLLLLLLLH"
    found = unpack_at(file, offset, form)
    right, bottom, left, top, tile_width, tile_height = found[3:9]
    components = found[11]
    if found[0] != CODESTREAM or right <= left or bottom <= top or not tile_width or not tile_height:
        raise ImageError("unreadable", "a JPEG 2000 file without its header")
    width, height = right - left, bottom - top
    if math.ceil(width / tile_width) * math.ceil(height / tile_height) > MOST_TILES:
        raise too_many("tiles", MOST_TILES)
    if not 1 <= components <= _MOST_COMPONENTS:
        raise ImageError("unsupported", f"a JPEG 2000 file of {components} components")
    table = read_at(file, offset + struct.calcsize(form), 3 * components).ljust(3 * components, b"\0")
    sizes, across, down = table[::3], table[1::3], table[2::3]
    if any(size & 0x80 for size in sizes):
        raise ImageError(
            "unsupported", "a JPEG 2000 file of signed samples, which have no known black and white"
        )
    bits = max(sizes) + 1
    if bits > 16:
        raise ImageError("unsupported", f"a JPEG 2000 file of {bits}-bit samples, which have no known white")
    if bits > 8 and (max(across) > 1 or max(down) > 1):
        raise ImageError("unsupported", f"a JPEG 2000 file of {bits}-bit samples with coarser colours")
    white = None if bits in (8, 16) else 2**bits - 1
    decoder = "pillow" if bits == 8 else "opencv"  # Pillow shifts other depths, and keeps 8 bits of colours
    size = width * height * components * (2 if bits > 8 else 1)
    return FileHeader("jpeg2000", width, height, size, bits=bits, white=white, decoder=decoder)
