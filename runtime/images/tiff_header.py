"""Read headers of TIFF files, and check them before a decoder sees the file."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import BinaryIO

from .image_bytes import FileHeader
from .tiff_codecs import UNPACKED_AT_ONCE
from .tiff_kinds import BLACK_IS_ZERO, CMYK, RGB, WHITE_IS_ZERO, decoder_of
from .tiff_page import PROFILE, TiffPage, read_page


def tiff_header(file: BinaryIO, start: bytes) -> FileHeader:
    """Read the header of a TIFF file's first page.

    Raises
    ------
    ImageError
        If there is none, it is of a kind that is not read, or it holds more than a decoder should be given.
    """
    page, pages = read_page(file, start)
    size = page.height * ((page.width * sum(page.bits) + 7) // 8)
    profile = zlib.crc32(page.directory.content(file, PROFILE))
    header = FileHeader("tiff", page.width, page.height, size, pages, 8, None, page.orientation, profile)
    if page.width <= 0 or page.height <= 0:
        return header
    bits, white = _scale(page)
    decoder, scratch = decoder_of(page), _scratch(page, size)
    return replace(header, decoder=decoder, bits=bits, white=white, scratch=scratch)


def _scratch(page: TiffPage, size: int) -> int:
    """Return the bytes that it takes to unpack parts: as they are stored, joined, unpacked and summed up."""
    width, height = page.tile or (page.width, page.rows)
    part = (width * sum(page.bits) + 7) // 8 * height
    return 2 * part if page.compression == 1 else 7 * max(part, min(size, UNPACKED_AT_ONCE))


def _scale(page: TiffPage) -> tuple[int, int | None]:
    """Return the bits of a sample and the value of white, as far as the file says it."""
    bits = page.bits[0]
    if bits <= 8 or page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK):
        return 8, None
    # Less than 16 bits are what a camera has; in 16 there may be less, unless they are amounts of ink.
    return bits, None if bits == 16 and page.photometric != CMYK else 2**bits - 1
