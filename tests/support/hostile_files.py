"""Image files that would cost a trusting reader minutes or gigabytes, and are small or sparse themselves."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from musc_edge.runtime.images.reading import ImageError, read_image

Entry = tuple[int, int, int, int]
"""Tag, type, count and value of a TIFF directory; the value is a place in the file where it is large."""

SHORT, LONG, RATIONAL, BYTES = 3, 4, 5, 7


LIMITED = """
import json, resource, sys
from pathlib import Path
from musc_edge.runtime.images.reading import ImageError, deepest_value, read_image
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
found = {}
for name in sys.argv[2:]:
    try:
        found[Path(name).name] = str((deepest_value if "deep" in name else read_image)(Path(name)) and "ok")
    except ImageError as error:
        found[Path(name).name] = str(error)
print(json.dumps(found))
"""
"""A program that reads files in a limited address space, and prints 'ok' or the reason for each."""


# ---- PNG -------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def ihdr(width: int, height: int, bits: int = 8) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))


def png(
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    size: tuple[int, int] = (10, 10),
    bits: int = 8,
) -> bytes:
    """A black gray PNG of ``size`` (W,H) with more chunks before, amid and behind its pixels."""
    packer = zlib.compressobj()
    data = b"".join(packer.compress(bytes(1 + size[0] * bits // 8)) for _ in range(size[1])) + packer.flush()
    parts = chunk(b"IDAT", data[:9]) + between + chunk(b"IDAT", data[9:])
    return b"\x89PNG\r\n\x1a\n" + ihdr(*size, bits) + before + parts + after + chunk(b"IEND")


def packed(kind: bytes) -> bytes:
    """A chunk of a kilobyte that holds a packed megabyte."""
    return chunk(kind, b"a\0\0" + zlib.compress(bytes(1 << 20), 9))


# ---- TIFF ------------------------------------------------------------------------------------


def directory(entries: Sequence[Entry], after: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", after)


def page(offset: int, width: int = 10, height: int = 10, bits: int = 8) -> list[Entry]:
    """Entries of an uncompressed gray page of one strip at ``offset``."""
    size = width * height * bits // 8
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: offset, 277: 1, 278: height, 279: size}
    return [(tag, LONG, 1, value) for tag, value in values.items()]


def tiff(data: bytes, entries: Sequence[Entry], after: int = 0) -> bytes:
    """A TIFF whose ``data`` begins at byte 8, before its first directory."""
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory(entries, after)


def tiff_of_pages(pages: int) -> bytes:
    one, start = directory(page(8)), 8 + 100
    nexts = [start + len(one) * number for number in range(1, pages)] + [0]
    directories = b"".join(one[:-4] + struct.pack("<I", place) for place in nexts)
    return b"II*\0" + struct.pack("<I", start) + bytes(100) + directories


def tiff_of_strips(strips: int) -> bytes:
    """A column of pixels with a strip for each."""
    start = 8 + 8 * strips
    offsets = np.arange(start, start + strips, dtype="<u4").tobytes()
    entries = [e for e in page(0, 1, strips) if e[0] not in (273, 278, 279)]
    entries += [(273, LONG, strips, 8), (278, LONG, 1, 1), (279, LONG, strips, 8 + 4 * strips)]
    return tiff(offsets + struct.pack("<I", 1) * strips + bytes(strips), entries)


def many_entries(count: int, size: int) -> list[Entry]:
    """Entries that all point to the same bytes."""
    return [(1000 + k, BYTES, size, 8) for k in range(count)]


# ---- JPEG ------------------------------------------------------------------------------------


def segment(marker: int, content: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(before: bytes = b"") -> bytes:
    """A small JPEG without a density of its own, with more segments before its pixels."""
    buffer = io.BytesIO()
    Image.new("L", (10, 20)).save(buffer, "JPEG")
    content = buffer.getvalue()
    return content[:2] + before + content[20:]


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG of 80 x 80 pixels, each scan of which is a pass over all of them."""
    frame = segment(0xC2, struct.pack(">BHHB", 8, 80, 80, 1) + bytes([1, 0x11, 0]))
    tables = segment(0xC4, bytes([0, 1] + [0] * 15 + [0])) + segment(0xC4, bytes([16, 1] + [0] * 15 + [0x60]))
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(13)
    others = (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes([0b01001001])) * (scans - 1)
    return b"\xff\xd8" + segment(0xDB, bytes([0] + [1] * 64)) + frame + tables + first + others + b"\xff\xd9"


def exif(entries: Sequence[Entry], room: int) -> bytes:
    """An EXIF block of ``room`` bytes that turns its image by 90 degrees."""
    return (b"II*\0" + struct.pack("<I", 8) + directory([(274, SHORT, 1, 6), *entries])).ljust(room, b"\0")


# ---- others ----------------------------------------------------------------------------------


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def ico(inside: bytes) -> bytes:
    """An icon that says 16 x 16 pixels and holds a PNG."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def run_length_bmp(width: int, height: int, data: bytes) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + info + bytes(1024) + data


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    """A WebP of any parts."""
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sparse(path: Path, content: bytes, size: int) -> Path:
    """A file of ``size`` bytes that takes no more room than ``content``, with which it begins."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)
    return path


def wide_open(folder: Path) -> Path:
    """A folder for PATH in which ``gs`` notes that it was started."""
    folder.mkdir()
    script = folder / "gs"
    script.write_text(f"#!/bin/sh\ntouch {folder}/started\nexit 1\n", encoding="utf-8")
    script.chmod(0o755)
    return folder


def outcome(path: Path, read: Callable[[Path], object] = read_image) -> tuple[str, str]:
    """Status and reason; 'ok' if the file is read."""
    try:
        read(path)
    except ImageError as error:
        return error.status, str(error)
    return "ok", ""


def outcome_of(folder: Path, content: bytes) -> tuple[str, str]:
    """Status and reason of a file with this content."""
    (folder / "x.png").write_bytes(content)
    return outcome(folder / "x.png")
