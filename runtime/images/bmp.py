"""Read BMP files, and DIBs, which are BMP files without their first 14 bytes.

Pillow decodes palettes, 24 and 32 bits, and run lengths.  Pixels of 16 or 32 bits with any fields of colours
are taken apart here, since Pillow knows a few layouts only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..types import Array
from .image_bytes import FileHeader, ImageError, read_at, unpack_at
from .samples import Samples

RUN_LENGTH_PIXELS = 10_000_000
"""Largest run-length-encoded BMP. Pillow decodes these in Python: 5 us for a run, 0.3 us for a pixel."""

_HEADERS = (40, 52, 56, 64, 108, 124)
_RUN_LENGTH, _FIELDS, _OTHERS = (1, 2), (3, 6), {4: "JPEG", 5: "PNG"}
_FIVE_BITS = (0x7C00, 0x3E0, 0x1F, 0)
_FIVE_SIX_FIVE = (0xF800, 0x7E0, 0x1F, 0)
_EIGHT_BITS = (0xFF0000, 0xFF00, 0xFF, 0)
_BY_PILLOW = (  # masks of red, green, blue and alpha in 32 bits
    (0xFF0000, 0xFF00, 0xFF, 0),
    (0xFF000000, 0xFF0000, 0xFF00, 0),
    (0xFF000000, 0xFF00, 0xFF, 0),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
)


@dataclass(frozen=True)
class _Info:
    """What the header of a BMP says; ``fields`` are the masks of red, green, blue and alpha, if any."""

    width: int
    height: int
    upwards: bool
    bits: int
    packing: int
    fields: tuple[int, ...]
    pixels: int

    @property
    def stride(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4


def is_bmp(start: bytes) -> bool:
    """Return whether a file begins like a BMP with a header of a kind that is read."""
    return start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in (12, *_HEADERS)


def is_dib(start: bytes) -> bool:
    """Return whether a file begins like a DIB."""
    if len(start) < 16:
        return False
    size, planes, bits = *struct.unpack_from("<L", start), *struct.unpack_from("<HH", start, 12)
    return size in _HEADERS and planes == 1 and bits in (1, 4, 8, 16, 24, 32)


def bmp_header(file: BinaryIO, kind: str) -> FileHeader:
    """Read the size of a ``kind`` 'bmp' or 'dib'; ImageError if its header is of a kind that is not read."""
    info = _info(file, kind)
    if info.packing in _RUN_LENGTH and info.width * info.height > RUN_LENGTH_PIXELS:
        raise ImageError("unsupported", "a large run-length-encoded BMP; save it as PNG")
    if info.packing in _OTHERS:
        raise ImageError("unsupported", f"a BMP that holds a {_OTHERS[info.packing]}, which is not read")
    if info.packing not in (0, *_RUN_LENGTH, *_FIELDS):
        raise ImageError("unsupported", f"a BMP compressed by number {info.packing}, which is not read")
    if info.bits not in (1, 2, 4, 8, 16, 24, 32):
        raise ImageError("unreadable", f"a BMP of {info.bits} bits per pixel, which there is not")
    if info.bits == 2:
        raise ImageError("unsupported", "a BMP of 2 bits per pixel, which is not read")
    known = {16: (_FIVE_BITS, _FIVE_SIX_FIVE), 24: (info.fields,), 32: _BY_PILLOW}.get(info.bits, ())
    pillow = info.fields in ((), *known)
    decoder = "pillow" if pillow else "bmp"
    return FileHeader(kind, info.width, info.height, info.stride * info.height, decoder=decoder)


def bmp_samples(file: BinaryIO, header: FileHeader) -> Samples:
    """Read the pixels of a BMP of 16 or 32 bits by its fields of colours; ImageError if it is truncated."""
    info = _info(file, header.kind)
    content = read_at(file, info.pixels, info.stride * info.height)
    if len(content) < info.stride * info.height:
        raise ImageError("unreadable", "image file is truncated")
    words = np.frombuffer(content, f"<u{info.bits // 8}").reshape(info.height, -1)[:, : info.width]
    words = words[::-1] if info.upwards else words
    red, green, blue, alpha = info.fields or (_FIVE_BITS if info.bits == 16 else _EIGHT_BITS)
    colour = np.stack([_field(words, mask) for mask in (red, green, blue)], -1)
    return Samples(colour, _field(words, alpha) if alpha else None, 255, 255)


def _field(words: Array, mask: int) -> Array:
    """Return the bits of a mask scaled to 8 bits."""
    if not mask:
        return np.zeros(words.shape, np.uint8)
    low = mask & -mask
    full = mask // low
    values = (words & np.asarray(mask, words.dtype)) // np.asarray(low, words.dtype)
    return np.asarray(((values.astype(np.uint64) * 255 + full // 2) // full).astype(np.uint8))


def _info(file: BinaryIO, kind: str) -> _Info:
    base = 14 if kind == "bmp" else 0
    (size,) = unpack_at(file, base, "<L")
    packing, fields, upwards = 0, (), True
    if size == 12:
        width, height, _, bits = unpack_at(file, base + 4, "<4H")
    elif size in _HEADERS:
        width, height, _, bits, packing = unpack_at(file, base + 4, "<LLHHL")
        if height >> 31:  # negative: rows come from the top
            height, upwards = 2**32 - height, False
    elif 16 <= size < 64:
        raise ImageError(
            "unsupported", f"a BMP of OS/2 with a short header ({size} bytes), which is not read"
        )
    else:
        raise ImageError("unreadable", "not an image file, or a BMP of a kind that is not read")
    if size == 64 and packing in (3, 4):
        raise ImageError("unsupported", "a BMP of OS/2 with a compression of its own, which is not read")
    if packing in _FIELDS:
        with_alpha = size >= 56 or packing == 6
        masks = unpack_at(file, base + 40, "<4L" if with_alpha else "<3L")
        fields = masks if with_alpha else (*masks, 0)
        if bits not in (16, 24, 32):
            raise ImageError("unreadable", f"a BMP of fields of {bits} bits")
        if bits == 16 and max(masks) >> bits:
            raise ImageError("unreadable", f"a BMP whose colours are not all within its {bits} bits")
    behind = 0 if size > 40 or packing not in _FIELDS else 4 * (4 if packing == 6 else 3)
    pixels = unpack_at(file, 10, "<L")[0] if base else size + behind
    return _Info(width, height, upwards, bits, packing, fields, pixels)
