"""Common parts of reading image files: the error, the header, and a file that limits what is read from it.

A decoder trusts what a file says of itself.  This module and those of the formats (``png_header``,
``jpeg_header``, ``tiff_header``, ``small_headers``) see to it that a file that lies costs neither time nor
memory: sizes and counts are checked against limits before a decoder sees the file, and what the decoder then
reads is counted.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_METADATA = 32_000_000
"""Limit of bytes of metadata, profiles and previews: decoders keep them in memory and read some thrice."""

EXTRA_BYTES = 3 * MOST_METADATA + 4_000_000
"""Limit of bytes that a decoder reads besides the pixels."""

READS = 1_000_000
"""Limit of a decoder's calls to read: 1 s of Python; a PNG in 262,144 parts takes 800,000."""

FAR_TOO_MUCH = "its data is far more, or in far more parts, than its pixels need"

BLOCK = 1 << 16


class ImageError(Exception):
    """The reason why an image cannot be scored; ``status`` is the word for it in scores.csv."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class FileHeader:
    """The header of an image file, read without a decoder.

    Attributes
    ----------
    width, height : as stored; ``orientation`` (EXIF, 1 to 8) says how they are turned for display.
    pixel_bytes : size of the uncompressed pixels.
    pages : pictures in the file.
    bits : of a sample; 9 to 16 where values are deeper than 8 bits.
    white : the value that is white, where a deep file says it; else None, and the lot's depth decides.
    profile : checksum of the colour profile, 0 without one.
    decoder : who decodes it ('pillow', 'opencv', or one of our own readers, see ``decoders``).
    scratch : bytes that our own reader of TIFF needs besides the pixels.
    """

    kind: str
    width: int
    height: int
    pixel_bytes: int
    pages: int = 1
    bits: int = 8
    white: int | None = None
    orientation: int = 1
    profile: int = 0
    decoder: str = "pillow"
    scratch: int = 0

    @property
    def open_scale(self) -> bool:
        """Whether the lot's depth decides what is white."""
        return self.bits > 8 and self.white is None

    @property
    def most_bytes(self) -> int:
        """Bytes that a decoder may need for the pixels and for all else in the file."""
        return 4 * self.pixel_bytes + EXTRA_BYTES


class ImageInput(io.BufferedReader):
    """A file that can be told to refuse more reads than an image of its size needs.

    ``stamp`` changes when the file is written to; its second part is the size in bytes.
    """

    def __init__(self, raw: io.RawIOBase, stamp: tuple[int, int]) -> None:
        super().__init__(raw)
        self.stamp = stamp
        self._bytes = self._reads = self._block = 1 << 62

    def allow(self, header: FileHeader) -> None:
        """Count and limit all reads from here on, for an image with this header.

        For a raw part of a TIFF, Pillow asks for all bytes up to the next part, however far away that is.  It
        gets them in blocks, and stops asking once the part is complete; it reads metadata in smaller ones.
        """
        self._bytes, self._reads = header.most_bytes, READS
        self._block = 16 * BLOCK if header.kind == "tiff" else header.most_bytes

    def read(self, size: int | None = -1) -> bytes:
        """Read up to ``size`` bytes; ImageError once the limits are exceeded."""
        most = min(self._bytes + 1, self._block)
        content = super().read(most if size is None or size < 0 else min(size, most))
        self._reads -= 1
        self._bytes -= len(content)
        if self._bytes < 0 or self._reads < 0:
            raise ImageError("unsupported", FAR_TOO_MUCH)
        return content


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read up to ``size`` bytes from ``offset`` on; none if the file ends before it."""
    if not 0 <= offset < 1 << 62:  # further than any file reaches: some can be sought there, and not read
        return b""
    try:
        file.seek(offset)
    except OSError:  # further than files reach on this disk
        return b""
    return file.read(size)


def unpack_at(file: BinaryIO, offset: int, form: str) -> tuple[Any, ...]:
    """Unpack the ``struct`` format ``form`` at ``offset``; ImageError if the file ends before that."""
    content = read_at(file, offset, struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise ImageError("unreadable", "the file is truncated")
    return struct.unpack(form, content)


def too_many(what: str, most: int) -> ImageError:
    """Make the error for a file that has more of something than any decoder should be given."""
    return ImageError("unsupported", f"more than {most:,} {what}, which no decoder here is given")


def wrong_size(header: FileHeader, width: int, height: int) -> ImageError:
    """Make the error for a decoder that finds another size than the header's."""
    said = f"a header of {header.width} x {header.height} pixels"
    return ImageError("unreadable", f"{said}, but {width} x {height} inside")
