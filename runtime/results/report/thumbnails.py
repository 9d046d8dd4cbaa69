"""Small copies of the images of a lot, made one by one and kept in a file until the page is written."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, features

from ...images.image_bytes import ImageError
from ...images.reading import Header, read_header, read_image
from ...memory import available_memory, size_text
from ...types import FilePath

SIDES = ((120, 640), (600, 400))
"""Images of a lot up to which thumbnails have a longer side of so many pixels."""
_SMALLEST = 320
_QUALITY = {"WEBP": 76, "JPEG": 82}
SUFFIXES = {"WEBP": ".webp", "JPEG": ".jpg"}


def side(images: int) -> int:
    """Return the longer side of thumbnails, in pixels, for a lot of so many images."""
    return next((pixels for most, pixels in SIDES if images <= most), _SMALLEST)


def picture_format() -> str:
    """Return the format of thumbnails: WebP, or JPEG where this Pillow cannot write that."""
    return "WEBP" if features.check("webp") else "JPEG"


@dataclass(frozen=True)
class Reading:
    """How the files of a lot were read when it was scored."""

    bit_depth: int
    max_pixels: int


@dataclass(frozen=True)
class Thumbnail:
    """The thumbnail of an image, as bytes in ``form``, and the header of its file."""

    content: bytes
    form: str
    header: Header


def make_thumbnail(path: FilePath, reading: Reading, longest: int, room: int | None = None) -> Thumbnail:
    """Read an image as it was scored and make its thumbnail.

    ``room`` is the memory in bytes that decoding may take; None for what is free.

    Raises
    ------
    ImageError
        If the image cannot be read, or needs more.
    """
    header = read_header(path, reading.max_pixels)
    left = available_memory() if room is None else room
    if header.decode_bytes > left:
        need = size_text(header.decode_bytes)
        raise ImageError("too_large", f"decoding it needs {need}, and {size_text(left)} are left")
    image = read_image(path, reading.bit_depth, reading.max_pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    form, content = picture_format(), io.BytesIO()
    image.save(content, form, quality=_QUALITY[form])
    return Thumbnail(content.getvalue(), form, header)


class Shelf:
    """Thumbnails in one temporary file; ``size`` is what they have in all, in bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def put(self, content: bytes) -> tuple[int, int]:
        """Keep a thumbnail; returns where it is, for ``get``."""
        self._file.seek(self.size)
        self._file.write(content)
        place = self.size, len(content)
        self.size += len(content)
        return place

    def get(self, place: tuple[int, int]) -> bytes:
        """Return a thumbnail that was kept."""
        self._file.seek(place[0])
        return self._file.read(place[1])


@contextmanager
def shelf_in(folder: Path) -> Iterator[Shelf]:
    """Yield an empty shelf in a file of ``folder`` without a name, gone when the block ends."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Shelf(file)
