"""Orientation in metadata: one rule for header and pixels, wherever in the file it stands."""

from __future__ import annotations

import re
import zlib

from .ifd import exif_orientation

MOST_TEXT = 1_000_000
"""Bytes that packed text may become."""

_XMP = re.compile(rb'tiff:Orientation(="|>)([0-9])')


def orientation(exif: bytes | None, xmp: bytes) -> int:
    """Return the orientation, 1 (upright) to 8, of EXIF or else of XMP; 1 if the data is damaged."""
    value = exif_orientation(exif) if exif else None
    if value is None:
        found = _XMP.search(xmp)
        value = int(found[2]) if found else 1
    return int(value) if value in range(2, 9) else 1


def exif_of_text(text: bytes) -> bytes:
    """Return the EXIF data in a text as ImageMagick writes it: a name, a length, hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def unpacked(content: bytes) -> bytes:
    """Unpack zlib's data up to ``MOST_TEXT`` bytes; none if it is damaged."""
    try:
        return zlib.decompressobj().decompress(content, MOST_TEXT)
    except zlib.error:
        return b""
