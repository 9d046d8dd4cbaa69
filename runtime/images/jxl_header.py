"""Read headers of JPEG XL files (ISO/IEC 18181-1, annexes D and E; 18181-2 for the boxes)."""

from __future__ import annotations

from typing import BinaryIO

from .boxes import boxes
from .image_bytes import FileHeader, ImageError, read_at

CODESTREAM = b"\xff\x0a"
SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"

_MOST_HEADER = 64  # bytes
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIZES = ((1, 9), (1, 13), (1, 18), (1, 30))
_PREVIEW_8, _PREVIEW = ((16, 0), (32, 0), (1, 5), (33, 9)), ((1, 6), (65, 8), (321, 10), (1345, 12))
_DEPTHS = ((8, 0), (10, 0), (12, 0), (1, 6))
_TICKS = ((100, 0), (1000, 0), (1, 10), (1, 30)), ((1, 0), (1001, 0), (1, 8), (1, 10))
_LOOPS = ((0, 0), (0, 3), (0, 16), (0, 32))
_EXTRA = ((0, 0), (1, 0), (2, 4), (1, 12))
_MOST_EXTRA = 4
"""Limit of channels besides the colours: a file of a kilobyte may have thousands, and each is decoded."""


class _Bits:
    """Numbers of bits, the lowest first."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "little"), 8 * len(content)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ImageError("unreadable", "the file is truncated")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def choice(self, forms: tuple[tuple[int, int], ...]) -> int:
        """Read a number in one of four forms: an offset, and the bits that are added to it."""
        offset, bits = forms[self.take(2)]
        return offset + self.take(bits)


def jxl_header(file: BinaryIO, start: bytes) -> FileHeader:
    """Read the size, as displayed, and the depth of a JPEG XL file, which its decoder turns by itself.

    Raises
    ------
    ImageError
        If it has no header, far too many channels, or samples without a known white.
    """
    bits = _Bits(read_at(file, _codestream(file, start) + 2, _MOST_HEADER))
    width, height = _size(bits)
    orientation, depth, extra = _metadata(bits)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    if depth > 16:
        raise ImageError("unsupported", f"a JPEG XL file of {depth}-bit samples, which have no known white")
    if extra > _MOST_EXTRA:
        raise ImageError("unsupported", f"a JPEG XL file of {extra} channels besides its colours")
    deep = depth > 8
    white = 65535 if deep and depth < 16 else None  # the decoder scales up
    size = width * height * (3 + max(extra, 1)) * (2 if deep else 1)
    return FileHeader("jpegxl", width, height, size, bits=max(8, depth), white=white, decoder="jpegxl")


def _codestream(file: BinaryIO, start: bytes) -> int:
    """Return where the codestream, or its first part, begins."""
    if start.startswith(CODESTREAM):
        return 0
    for kind, begin, _ in boxes(file):
        if kind in (b"jxlc", b"jxlp"):
            return begin + 4 * (kind == b"jxlp")
    raise ImageError("unreadable", "a JPEG XL file without its picture")


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else bits.choice(_SIZES)
    return _width(bits, height, small), height


def _width(bits: _Bits, height: int, small: int) -> int:
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down
    return 8 * (bits.take(5) + 1) if small else bits.choice(_SIZES)


def _metadata(bits: _Bits) -> tuple[int, int, int]:
    """Return orientation, bits per sample and extra channels; ImageError if samples are floating-point."""
    orientation = 1
    if bits.take(1):
        return 1, 8, 0
    if bits.take(1):
        orientation = 1 + bits.take(3)
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            forms = _PREVIEW_8 if bits.take(1) else _PREVIEW
            bits.choice(forms)
            if not bits.take(3):
                bits.choice(forms)
        if bits.take(1):
            bits.choice(_TICKS[0]), bits.choice(_TICKS[1]), bits.choice(_LOOPS), bits.take(1)
    if bits.take(1):
        raise ImageError("unsupported", "a JPEG XL file of floating-point samples, which have no known white")
    depth = bits.choice(_DEPTHS)
    bits.take(1)  # whether 16 bits are enough for what the decoder computes
    return orientation, depth, bits.choice(_EXTRA)
