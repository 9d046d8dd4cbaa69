"""Read headers of PNG files, and check their chunks before Pillow and OpenCV see the file."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from .image_bytes import FAR_TOO_MUCH, MOST_METADATA, FileHeader, ImageError, read_at, too_many, unpack_at

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MOST_CHUNKS = 1000
"""Limit of chunks before the pixels, and again after them."""

MOST_PARTS = 1 << 18
"""Limit of chunks of pixels: 2 GB in those of 8 KB that libpng writes. Pillow takes 5 us for each."""

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel


def png_header(file: BinaryIO) -> FileHeader:
    """Read the size of a PNG, and the number of pictures of an animated one.

    Raises
    ------
    ImageError
        If the file has no header, or more before its pixels than a decoder should be given.
    """
    length, kind, width, height, bits, colour = unpack_at(file, 8, ">L4sLLBB")
    if kind != b"IHDR" or length != 13:
        raise ImageError("unreadable", "a PNG without its header")
    row = (width * _SAMPLES.get(colour, 4) * bits + 7) // 8
    return FileHeader("png", width, height, (row + 1) * height, _pictures(file), deep=bits > 8)


def check_png(file: BinaryIO, header: FileHeader) -> None:
    """Raise ImageError if the chunks of the pixels or after them are more than a decoder should be given."""
    parts = after = size = 0
    end = file.seek(0, io.SEEK_END)
    for kind, promised, data in _chunks(file):
        length = max(0, min(promised, end - data))
        if length < promised and header.deep:  # OpenCV would make room for what was promised
            raise ImageError("unreadable", "the file is truncated")
        if kind == b"IDAT" and not after:
            parts, size = parts + 1, size + length
        elif parts and (kind == b"IEND" or (kind == b"fcTL" and header.pages > 1)):
            break  # neither Pillow nor OpenCV reads on
        elif parts:
            after, size = after + 1, size + _cost(kind, length)
        if parts > MOST_PARTS or after > MOST_CHUNKS:
            raise too_many("chunks", MOST_PARTS if parts > MOST_PARTS else MOST_CHUNKS)
        if size > 2 * header.pixel_bytes + MOST_METADATA:
            raise ImageError("unsupported", FAR_TOO_MUCH)


def _pictures(file: BinaryIO) -> int:
    """Count the pictures of an animation as Pillow does, by the chunks before the pixels; 1 if it is none."""
    frames = first = size = 0
    for number, (kind, length, data) in enumerate(_chunks(file)):
        if kind in (b"IDAT", b"IEND"):
            break
        size += _cost(kind, length)
        if number > MOST_CHUNKS:
            raise too_many("chunks", MOST_CHUNKS)
        if size > MOST_METADATA:
            raise too_many("bytes before the pixels", MOST_METADATA)
        if kind == b"acTL" and length >= 8:
            (count,) = unpack_at(file, data, ">L")
            frames = count if not frames and count <= 1 << 31 else 0
        first += kind == b"fcTL"
    # A first picture without a chunk fcTL is not part of the animation, and Pillow counts it besides.
    return frames + (not first) if frames else 1


def _cost(kind: bytes, length: int) -> int:
    """Return the bytes that Pillow makes of a chunk: a packed one becomes a megabyte at most, in 3 ms."""
    return length + (1_000_000 if kind in (b"iCCP", b"iTXt", b"zTXt") else 0)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind and length of each chunk and the offset of its data, to the end of the file."""
    offset = len(SIGNATURE)
    while len(head := read_at(file, offset, 8)) == 8:
        length, kind = struct.unpack(">L4s", head)
        yield kind, length, offset + 8
        offset += length + 12
