"""Decide from the first bytes of a file what it is and who decodes it.

Pillow has fifty plugins, and its own search gives a file to any that claims it, whatever the name: one starts
Ghostscript, others decode what is packed inside.  Here the kinds of ``first_bytes`` are known.  Our own code
reads the header of each (:func:`read_file_header`), which names the decoder, and only then does the file go
there (``decoders``).

| format | what is read | by |
|---|---|---|
| png | all colour types and depths; animated: the first picture | Pillow; OpenCV for 16 bits |
| jpeg | 8 bits, 1, 3 or 4 components, Huffman- or arithmetic-coded, baseline or progressive | Pillow |
| tiff | see ``tiff_kinds`` | Pillow, ``tiff_pixels``, imagecodecs |
| bmp, dib | all but 2 bits and what holds a JPEG or PNG | Pillow; ``bmp`` for 16 bits and fields of bits |
| webp, gif | all; animated: the first picture | Pillow |
| netpbm | P1 to P7, up to 16 bits | ``netpbm`` |
| jpeg2000 | up to 16 bits, unsigned | Pillow; OpenCV for other depths than 8 |
| avif | all, at 8 bits | Pillow, where it was built with it |
| heic | all, at 8 bits | pillow_heif, optional |
| jpegxl | up to 16 bits, unsigned | imagecodecs, optional |
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from .bmp import bmp_header
from .first_bytes import kind_of, other_kind, read_start
from .heif_header import heif_header
from .image_bytes import FileHeader, ImageError, read_at
from .jp2_header import jp2_header
from .jpeg_header import jpeg_header
from .jxl_header import jxl_header
from .netpbm import netpbm_header
from .png_header import png_header
from .small_headers import gif_header, webp_header
from .tiff_header import tiff_header

READERS: dict[str, Callable[[BinaryIO, bytes], FileHeader]] = {
    "png": lambda file, _: png_header(file),
    "jpeg": lambda file, _: jpeg_header(file),
    "tiff": tiff_header,
    "webp": webp_header,
    "bmp": lambda file, _: bmp_header(file, "bmp"),
    "gif": lambda file, _: gif_header(file),
    "netpbm": lambda file, _: netpbm_header(file),
    "jpeg2000": lambda file, _: jp2_header(file),
    "jpegxl": jxl_header,
    "avif": lambda file, _: heif_header(file, "avif"),
    "heic": lambda file, _: heif_header(file, "heic"),
    "dib": lambda file, _: bmp_header(file, "dib"),
}
"""Who reads the header of each kind that ``first_bytes`` tells."""

_TGA_END = b"TRUEVISION-XFILE.\0"


def read_file_header(file: BinaryIO, max_pixels: int) -> FileHeader:
    """Read the header of an image file.

    Raises
    ------
    ImageError
        If it is of no kind that is read, has no size or one above ``max_pixels``, or would cost too much.
    """
    header = _header(file, read_start(file))
    if header.width <= 0 or header.height <= 0:
        raise ImageError("unreadable", f"a {header.kind} file without a size")
    if header.width * header.height > max_pixels:
        raise ImageError("too_large", f"{header.width} x {header.height} pixels; the limit is {max_pixels}")
    return header


def _header(file: BinaryIO, start: bytes) -> FileHeader:
    if kind := kind_of(start):
        return READERS[kind](file, start)
    if not start:
        raise ImageError("unreadable", "the file is empty")
    raise _refusal(file, start)


def _refusal(file: BinaryIO, start: bytes) -> ImageError:
    """Make the error for a file of a kind that is not read."""
    name = other_kind(start)
    end = max(0, file.seek(0, io.SEEK_END) - len(_TGA_END))
    if read_at(file, end, len(_TGA_END)) == _TGA_END:
        name = "TGA"
    elif start[4:8] == b"ftyp":
        name = "MP4"
    if name is None:
        return ImageError("unreadable", "not an image file")
    return ImageError("unsupported", f"a file of the kind {name}, which is not read; save it as PNG")
