"""Sizes of small pictures inside of another file, read before their decoder sees them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from .image_bytes import ImageError
from .jp2_header import codestream_header
from .jpeg_header import jpeg_header
from .jxl_header import jxl_header
from .small_headers import webp_header

_LERC = b"Lerc2 "
_LERC_HEADER = 38
"""Bytes of a blob up to the number of its bytes, at most."""


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


def lerc_values(content: bytes) -> int:
    """Return how many values of a pixel the blobs of LERC in ``content`` claim: each holds one or several."""
    return sum(depth for _, _, depth in _lerc_blobs(content))


def _lerc_size(content: bytes) -> tuple[int, int]:
    """Read the size that all blobs of LERC in ``content`` claim."""
    sizes = {(width, height) for width, height, _ in _lerc_blobs(content)}
    if not sizes:
        raise ImageError("unsupported", "a TIFF compressed by an old version of LERC")
    if len(sizes) > 1:
        raise ImageError("unreadable", "damaged LERC (of several sizes)")
    return sizes.pop()


def _lerc_blobs(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield width, height and depth of each blob of LERC, version 2 and later, that follow one another.

    From Esri's sources, "Lerc2::HeaderInfo": numbers of the rows and columns, of values of a pixel from
    version 4 on, of valid pixels, the side of a block, and the bytes of the blob.
    """
    at = 0
    while content.startswith(_LERC, at) and len(content) >= at + _LERC_HEADER:
        (version,) = struct.unpack_from("<i", content, at + len(_LERC))
        deep = version >= 4
        # From version 3 on a checksum stands before them.
        numbers = struct.unpack_from(f"<{5 + deep}i", content, at + len(_LERC) + (8 if version >= 3 else 4))
        if min(numbers) < 0 or numbers[-1] == 0:
            raise ImageError("unreadable", "damaged LERC (its header)")
        yield numbers[1], numbers[0], numbers[2] if deep else 1
        at += numbers[-1]
