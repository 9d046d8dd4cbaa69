"""Sizes of small pictures inside of another file, read before their decoder sees them."""

from __future__ import annotations

import io
import struct

from .image_bytes import ImageError
from .jp2_header import codestream_header
from .jpeg_header import jpeg_header
from .jxl_header import jxl_header
from .small_headers import webp_header


def picture_size(content: bytes, kind: str) -> tuple[int, int]:
    """Return width and height that a picture claims in its header.

    Raises
    ------
    ImageError
        If it has no header.
    """
    file = io.BytesIO(content)
    if kind == "jpeg":
        header = jpeg_header(file)
    elif kind == "webp":
        header = webp_header(file, content)
    elif kind == "jpegxl":
        header = jxl_header(file, content)
    elif kind == "jpeg2000":
        header = codestream_header(file, max(0, content[:4096].find(b"\xff\x4f\xff\x51")))
    else:
        return _lerc_size(content)
    return header.width, header.height


def _lerc_size(content: bytes) -> tuple[int, int]:
    """Read the size of a blob of LERC, version 2 and later (Esri's specification, "Lerc2 header")."""
    if not content.startswith(b"Lerc2 ") or len(content) < 22:
        raise ImageError("unsupported", "a TIFF compressed by an old version of LERC")
    (version,) = struct.unpack_from("<i", content, 6)
    height, width = struct.unpack_from("<ii", content, 14 if version >= 3 else 10)
    return width, height
