"""Read headers of JPEG files, and check their segments before Pillow and libjpeg see the file."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from .ifd import first_directory
from .image_bytes import BLOCK, FAR_TOO_MUCH, MOST_METADATA, FileHeader, ImageError, read_at, too_many
from .metadata import orientation

MOST_SEGMENTS = 10_000
"""Limit of segments before the pixels, and again between scans; a colour profile has up to 255."""

MOST_EXIF = 100
"""Limit of segments of EXIF data: real files have one, and Pillow joins several in quadratic time."""

MOST_SCANS = 100
"""Limit of passes over the whole image, which may take a dozen bytes each; encoders make 10, at most 30."""

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not those inside entropy-coded data
_FRAMES = (frozenset(range(0xC0, 0xD0)) | {0xF7}) - {0xC4, 0xC8, 0xCC}
_LOSSLESS, _HIERARCHICAL, _JPEG_LS = (0xC3, 0xCB), (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), 0xF7
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SCAN, _END, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2
_IMAGES = 0xB001  # tag of a multi-picture index


def jpeg_header(file: BinaryIO) -> FileHeader:
    """Read the size of a JPEG, how it is turned, and the number of pictures of a multi-picture file.

    Raises
    ------
    ImageError
        If the file has no header, is of a kind that is not read, or has more before its pixels than a decoder
        should be given.
    """
    frame, found = b"", _Found()
    for number, (marker, data, length) in enumerate(_segments(file, MOST_METADATA)):
        if number > MOST_SEGMENTS or len(found.exif) > MOST_EXIF:
            raise too_many("segments", MOST_SEGMENTS if number > MOST_SEGMENTS else MOST_EXIF)
        if marker == _SCAN:
            break
        if data + length > MOST_METADATA:
            raise too_many("bytes before the pixels", MOST_METADATA)
        if marker in (_APP1, _APP2):
            _note(found, read_at(file, data, length))
        if marker in _FRAMES:
            frame = bytes([marker]) + read_at(file, data, min(length, 6))
    if len(frame) < 7:
        raise ImageError("unreadable", "a JPEG without its header")
    height, width, components = struct.unpack(">HHB", frame[2:7])
    _require_read(frame[0], frame[1], components)
    exif = b"".join(part[6 * (number > 0) :] for number, part in enumerate(found.exif)) or None
    return FileHeader(
        "jpeg",
        width,
        height,
        width * height * components,
        1 if found.layered else found.pages,
        orientation=orientation(exif, found.xmp),
        profile=found.profile,
    )


@dataclass
class _Found:
    """What the segments before the pixels say."""

    exif: list[bytes] = field(default_factory=list)
    xmp: bytes = b""
    profile: int = 0
    pages: int = 1
    layered: bool = False


def _note(found: _Found, content: bytes) -> None:
    """Take what a segment says of orientation, colours and pictures."""
    if content.startswith(b"Exif\0\0"):
        found.exif.append(content)
    elif content.startswith(_XMP):
        found.xmp = content[len(_XMP) :]
    elif content.startswith(b"ICC_PROFILE\0"):
        found.profile = zlib.crc32(content[14:], found.profile)
    elif content.startswith(b"MPF\0"):
        found.pages = _pictures(content[4:])
    found.layered = (
        found.layered or b' hdrgm:Version="' in content
    )  # a picture with its gain map is one picture


def _require_read(frame: int, bits: int, components: int) -> None:
    """Raise ImageError if it is a kind of JPEG that no decoder here reads."""
    if frame in _LOSSLESS:
        raise ImageError("unsupported", "a lossless JPEG, which is not read; save it as PNG")
    if frame in _HIERARCHICAL:
        raise ImageError("unsupported", "a hierarchical JPEG, which is not read; save it as PNG")
    if frame == _JPEG_LS:
        raise ImageError("unsupported", "a JPEG-LS file, which is not read; save it as PNG")
    if bits != 8:
        raise ImageError(
            "unsupported", f"a {bits}-bit JPEG, which is not read; save it as 16-bit PNG or TIFF"
        )
    if components not in (1, 3, 4):
        raise ImageError("unsupported", f"a JPEG of {components} components, which is not read")


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
