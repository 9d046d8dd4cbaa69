"""What reading any image file rests on: its error, its header, and a file that limits who reads it.

A decoder trusts what a file says of itself.  Everything here and in the modules of the formats
(``png_header``, ``jpeg_header``, ``tiff_header``, ``small_headers``) is there so that a file that lies costs
neither time nor memory: sizes and counts are held against limits before a decoder sees the file, and what the
decoder then reads is counted.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_METADATA = 32_000_000
"""Bytes of metadata, profiles and previews in a file. Decoders keep them in memory, and read some thrice."""

EXTRA_BYTES = 3 * MOST_METADATA + 4_000_000
"""Bytes that a decoder may read besides the pixels."""

READS = 1_000_000
"""Times that a decoder may ask for bytes: 1 s of Python; a PNG in 262,144 parts takes 800,000."""

FAR_TOO_MUCH = "its data is far more, or in far more parts, than its pixels need"

BLOCK = 1 << 16


class ImageError(Exception):
    """Why one image cannot be scored; ``status`` is the word for scores.csv."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class FileHeader:
    """What a file says of its image, read without a decoder.

    ``width`` and ``height`` are as stored, but of a TIFF as displayed, because Pillow turns it by itself;
    ``pixel_bytes`` is what the pixels take uncompressed; ``deep`` says that a PNG has more than 8 bits per
    channel.
    """

    kind: str
    width: int
    height: int
    pixel_bytes: int
    pages: int = 1
    deep: bool = False

    @property
    def most_bytes(self) -> int:
        """Bytes that a decoder may need for the pixels, and for what else is in the file."""
        return 4 * self.pixel_bytes + EXTRA_BYTES


class ImageInput(io.BufferedReader):
    """A file that can be told to refuse more reading than an image of its size needs."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "rb"))
        self._bytes = self._reads = self._block = 1 << 62

    def allow(self, header: FileHeader) -> None:
        """From here on count what is read for an image of this header.

        Pillow asks for a raw part of a TIFF as far as to the next one, which may be any distance away: it
        gets blocks, and asks for no more than the part needs.  Metadata it never asks for in larger ones.
        """
        self._bytes, self._reads = header.most_bytes, READS
        self._block = 16 * BLOCK if header.kind == "tiff" else header.most_bytes

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes; ImageError if there was enough to read already."""
        most = min(self._bytes + 1, self._block)
        content = super().read(most if size is None or size < 0 else min(size, most))
        self._reads -= 1
        self._bytes -= len(content)
        if self._bytes < 0 or self._reads < 0:
            raise ImageError("unsupported", FAR_TOO_MUCH)
        return content


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Up to ``size`` bytes from ``offset`` on; none if the file ends before it."""
    try:
        file.seek(offset)
    except (OSError, ValueError, OverflowError):  # further than any file reaches
        return b""
    return file.read(size)


def unpack_at(file: BinaryIO, offset: int, form: str) -> tuple[Any, ...]:
    """Numbers of ``struct``'s ``form`` at ``offset``; ImageError where the file has ended."""
    content = read_at(file, offset, struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise ImageError("unreadable", "the file is truncated")
    return struct.unpack(form, content)


def too_many(what: str, most: int) -> ImageError:
    """The error for a file that has more of something than any decoder should be given."""
    return ImageError("unsupported", f"more than {most:,} {what}, which no decoder here is given")
