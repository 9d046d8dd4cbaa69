"""Read headers of PNG files, and check their chunks before Pillow and OpenCV see the file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .image_bytes import FAR_TOO_MUCH, MOST_METADATA, FileHeader, ImageError, read_at, too_many, unpack_at
from .metadata import exif_of_text, orientation, unpacked

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MOST_CHUNKS = 1000
"""Limit of chunks before the pixels, and again after them."""

MOST_PARTS = 1 << 18
"""Limit of chunks of pixels: 2 GB in those of 8 KB that libpng writes. Pillow takes 5 us for each."""

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_RAW_EXIF = b"Raw profile type exif\0"
_XMP = b"XML:com.adobe.xmp\0"


@dataclass
class _Found:
    """What the chunks of a file say: EXIF and XMP as they come first, pictures of an animation."""

    exif: bytes | None = None
    xmp: bytes = b""
    profile: int = 0
    frames: int = 0
    first: bool = False
    metadata: int = 0

    @property
    def pages(self) -> int:
        # A first picture without a chunk fcTL is not part of the animation, and Pillow counts it besides.
        return self.frames + (not self.first) if self.frames else 1


def png_header(file: BinaryIO) -> FileHeader:
    """Read the size of a PNG, the number of pictures of an animated one, and how it is turned.

    The pixels are passed over to what may stand behind them.

    Raises
    ------
    ImageError
        If the file has no header, or more in or around its pixels than a decoder should be given.
    """
    length, kind, width, height, bits, colour = unpack_at(file, 8, ">L4sLLBB")
    if kind != b"IHDR" or length != 13:
        raise ImageError("unreadable", "a PNG without its header")
    if bits not in _BITS.get(colour, ()):
        raise ImageError("unreadable", f"a PNG of colour type {colour} with {bits} bits, which there is not")
    row = (width * _SAMPLES[colour] * bits + 7) // 8
    size = (row + 1) * height
    found = _look(file, size, deep=bits > 8)
    turned = orientation(found.exif, found.xmp)
    decoder = "opencv" if bits > 8 else "pillow"
    return FileHeader("png", width, height, size, found.pages, bits, None, turned, found.profile, decoder)


def transparent_gray(file: BinaryIO) -> int | None:
    """Return the value that is transparent in a gray PNG, as it is stored; None without one."""
    for kind, length, data in _chunks(file):
        if kind == b"IDAT":
            break
        if kind == b"tRNS" and length >= 2:
            return int(unpack_at(file, data, ">H")[0])
    return None


def _look(file: BinaryIO, pixel_bytes: int, deep: bool) -> _Found:
    """Pass over all chunks that a decoder reads, and take what is wanted of them.

    Raises
    ------
    ImageError
        If they are more than a decoder should be given.
    """
    found, parts, others, size, behind = _Found(), 0, 0, 0, False
    end = file.seek(0, io.SEEK_END)
    for kind, promised, data in _chunks(file):
        length = max(0, min(promised, end - data))
        if kind == b"IDAT" and not behind:
            parts, others = parts + 1, 0
            if parts == 1:
                size = 0  # Pillow keeps no more than what stands before the pixels while it opens the file
            size += length
        elif kind == b"IEND" or (parts and kind == b"fcTL" and found.pages > 1):
            break  # neither Pillow nor OpenCV reads on
        else:
            behind, others = parts > 0, others + 1
            size += _cost(kind, length)
        if length < promised and deep and parts:  # OpenCV would make room for what was promised
            raise ImageError("unreadable", "the file is truncated")
        if parts > MOST_PARTS or others > MOST_CHUNKS:
            raise too_many("chunks", MOST_PARTS if parts > MOST_PARTS else MOST_CHUNKS)
        if not parts and size > MOST_METADATA:
            raise too_many("bytes before the pixels", MOST_METADATA)
        if size > 2 * pixel_bytes + MOST_METADATA:
            raise ImageError("unsupported", FAR_TOO_MUCH)
        _note(file, found, kind, data, length)
    return found


def _note(file: BinaryIO, found: _Found, kind: bytes, data: int, length: int) -> None:
    """Take what a chunk says of orientation, colours and pictures."""
    if kind == b"acTL" and length >= 8:
        (count,) = unpack_at(file, data, ">L")
        found.frames = count if not found.frames and count <= 1 << 31 else 0
    elif kind == b"fcTL":
        found.first = True
    elif kind == b"eXIf":
        found.exif = read_at(file, data, length)
    elif kind == b"iCCP":
        found.profile = zlib.crc32(read_at(file, data, length).partition(b"\0")[2])
    elif kind in (b"tEXt", b"zTXt") and found.exif is None:
        content = read_at(file, data, length)
        if content.startswith(_RAW_EXIF):
            text = content[len(_RAW_EXIF) :]
            found.exif = exif_of_text(unpacked(text[1:]) if kind == b"zTXt" else text)
    elif kind == b"iTXt":
        content = read_at(file, data, length)
        if content.startswith(_XMP):
            is_packed, text = content[len(_XMP) :][:1] == b"\1", content[len(_XMP) + 2 :].split(b"\0", 2)[-1]
            found.xmp = unpacked(text) if is_packed else text


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
