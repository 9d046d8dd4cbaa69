"""Read headers of JPEG files, and check their segments before Pillow and libjpeg see the file."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from .ifd import first_directory
from .image_bytes import BLOCK, FAR_TOO_MUCH, MOST_METADATA, FileHeader, ImageError, read_at, too_many

MOST_SEGMENTS = 10_000
"""Limit of segments before the pixels, and again between scans; a colour profile has up to 255."""

MOST_EXIF = 100
"""Limit of segments of EXIF data: real files have one, and Pillow joins several in quadratic time."""

MOST_SCANS = 100
"""Limit of passes over the whole image, which may take a dozen bytes each; encoders make 10, at most 30."""

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not those inside entropy-coded data
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SCAN, _END, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2
_IMAGES = 0xB001  # tag of a multi-picture index


def jpeg_header(file: BinaryIO) -> FileHeader:
    """Read the size of a JPEG, and the number of pictures of a multi-picture file.

    Raises
    ------
    ImageError
        If the file has no header, or more before its pixels than a decoder should be given.
    """
    frame, exif, pages, layered = b"", 0, 1, False
    for number, (marker, data, length) in enumerate(_segments(file, MOST_METADATA)):
        if number > MOST_SEGMENTS or exif > MOST_EXIF:
            raise too_many("segments", MOST_SEGMENTS if number > MOST_SEGMENTS else MOST_EXIF)
        if marker == _SCAN:
            break
        if data + length > MOST_METADATA:
            raise too_many("bytes before the pixels", MOST_METADATA)
        content = read_at(file, data, length) if marker in (_APP1, _APP2) else b""
        exif += content.startswith(b"Exif\0\0")
        layered = layered or b' hdrgm:Version="' in content  # a picture with its gain map is one picture
        if content.startswith(b"MPF\0"):
            pages = _pictures(content[4:])
        if marker in _FRAMES:
            frame = read_at(file, data, min(length, 6))
    if len(frame) < 6:
        raise ImageError("unreadable", "a JPEG without its header")
    height, width, components = struct.unpack(">HHB", frame[1:6])
    return FileHeader("jpeg", width, height, width * height * components, 1 if layered else pages)


def check_jpeg(file: BinaryIO, header: FileHeader) -> None:
    """Raise ImageError if an image in several scans has more of them than a decoder should be given."""
    components, progressive, scans, others = 0, False, 0, 0
    for marker, data, _ in _segments(file, header.most_bytes):
        if marker in _FRAMES:
            components, progressive = (read_at(file, data, 6) + bytes(6))[5], marker in _PROGRESSIVE
        if (
            marker == _SCAN
            and not scans
            and not progressive
            and read_at(file, data, 1) >= bytes([components])
        ):
            return  # one scan has all components, and libjpeg reads no further
        if marker == _END:
            return
        scans += marker == _SCAN
        others += scans > 0
        if scans > MOST_SCANS or others > MOST_SEGMENTS:
            raise too_many("scans", MOST_SCANS) if scans > MOST_SCANS else too_many("segments", MOST_SEGMENTS)
        if data > header.most_bytes:
            raise ImageError("unsupported", FAR_TOO_MUCH)


def _pictures(index: bytes) -> int:
    """Return the number of pictures in a multi-picture index, 1 if it is damaged."""
    directory = first_directory(index)
    return max(1, directory.whole(io.BytesIO(index), _IMAGES)) if directory else 1


def _segments(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker, the offset of its data and its length; skips entropy-coded data.

    Stops at a segment that begins after ``end``.
    """
    offset = 2
    while (found := _next_marker(file, offset, end)) is not None:
        marker, offset = found
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these stand alone
            yield marker, offset, 0
            continue
        size = read_at(file, offset, 2)
        if len(size) < 2:
            return
        (length,) = struct.unpack(">H", size)
        yield marker, offset + 2, max(0, length - 2)
        offset += max(2, length)


def _next_marker(file: BinaryIO, offset: int, end: int) -> tuple[int, int] | None:
    """Find the next marker from ``offset`` on; returns it with the offset just after it, or None."""
    while offset <= end and len(block := read_at(file, offset, BLOCK)) > 1:
        found = _MARKER.search(block)
        if found:
            return block[found.end() - 1], offset + found.end()
        offset += len(block) - 1  # a marker's two bytes may lie on both sides of a block's end
    return None
