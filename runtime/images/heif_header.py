"""Read headers of AVIF and HEIC files (ISO/IEC 23008-12, 6.5.3)."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .boxes import boxes, find_box
from .image_bytes import FileHeader, ImageError, unpack_at

_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"mif1", b"hevc", b"hevx", b"msf1")


def heif_kind(start: bytes) -> str | None:
    """Return 'avif' or 'heic' by the brands that a file names; None if it is neither."""
    if start[4:8] != b"ftyp":
        return None
    (size,) = struct.unpack_from(">L", start)
    names = start[8 : min(size, len(start))]
    brands = [names[:4], *(names[k : k + 4] for k in range(8, len(names), 4))]
    if any(brand in _AVIF for brand in brands):
        return "avif"
    return "heic" if any(brand in _HEIC for brand in brands) else None


def heif_header(file: BinaryIO, kind: str) -> FileHeader:
    """Read the size, as stored, of the largest picture in an AVIF or HEIC file.

    A picture in tiles has a size of its own beside theirs.

    Raises
    ------
    ImageError
        If there is none.
    """
    found = find_box(file, b"meta", b"iprp", b"ipco")
    sizes = [
        unpack_at(file, start + 4, ">LL")
        for name, start, end in (boxes(file, *found) if found else ())
        if name == b"ispe" and end - start >= 12
    ]
    if not sizes:
        raise ImageError("unreadable", f"a {kind.upper()} file without its picture")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return FileHeader(kind, width, height, 4 * width * height, decoder="pillow")
