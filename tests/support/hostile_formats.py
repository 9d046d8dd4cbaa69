"""Hostile files of other formats than PNG, JPEG, TIFF, BMP and WebP: small, and costly to trust."""

from __future__ import annotations

import struct


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content) + 8) + kind + content


def heif(brand: bytes, width: int, height: int, more: bytes = b"") -> bytes:
    """An AVIF or HEIC without pixels that says how large it is."""
    size = box(b"ispe", struct.pack(">LLL", 0, width, height))
    meta = box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", size + more)))
    return box(b"ftyp", brand + bytes(4) + brand) + meta


def jpeg_2000(width: int, height: int, tile: tuple[int, int], components: int = 1, depth: int = 7) -> bytes:
    """A codestream of which there is only the header."""
    sizes = struct.pack(">LLLLLLLLH", width, height, 0, 0, *tile, 0, 0, components)
    segment = sizes + bytes([depth, 1, 1]) * components
    return b"\xff\x4f\xff\x51" + struct.pack(">HH", len(segment) + 4, 0) + segment


def jpeg_xl(width: int, height: int) -> bytes:
    """A codestream of which there is only the size."""
    bits, at = 0, 0
    for value, count in ((0, 1), (3, 2), (height - 1, 30), (0, 3), (3, 2), (width - 1, 30), (1, 1)):
        bits |= value << at
        at += count
    return b"\xff\x0a" + bits.to_bytes(64, "little")


def gif(
    width: int, height: int, extensions: int = 0, pictures: int = 1, size: tuple[int, int] = (1, 1)
) -> bytes:
    """A GIF of tiny pictures on a canvas, after extensions that say nothing."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    picture = b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\x00"
    return head + b"!\xfe\x00" * extensions + picture * pictures + b";"


def gif_of_blocks(blocks: int) -> bytes:
    """A GIF whose first picture comes after one remark of many blocks."""
    return gif(1, 1)[:19] + b"!\xfe" + b"\x01a" * blocks + b"\0" + gif(1, 1)[19:]
