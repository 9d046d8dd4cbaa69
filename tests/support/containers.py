"""Write a picture in containers that no encoder here writes: byte by byte, by the formats' specifications."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from support.lots import Array

SHORT, LONG, RATIONAL = 3, 4, 5
Values = int | Sequence[int]


# ---- TIFF ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiff:
    """A TIFF of given tags and strips; tags that are not given follow from ``size`` (W,H)."""

    size: tuple[int, int]
    strips: Sequence[bytes]
    tags: Mapping[int, Values] = field(default_factory=dict)
    order: str = "<"
    big: bool = False

    def content(self) -> bytes:
        width, height = self.size
        # A strip may be anywhere: here they stand right behind the header.
        start, places = (16 if self.big else 8), []
        for strip in self.strips:
            places.append(start)
            start += len(strip)
        tags: dict[int, Values] = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height}
        tags |= {273: places, 279: [len(strip) for strip in self.strips], **self.tags}
        body = b"".join(self.strips)
        pad = start % 2
        offset = start + pad
        mark = (
            struct.pack(f"{self.order}HHHQ", 43, 8, 0, offset)
            if self.big
            else struct.pack(f"{self.order}HL", 42, offset)
        )
        return (
            (b"II" if self.order == "<" else b"MM") + mark + body + bytes(pad) + self._directory(tags, offset)
        )

    def _directory(self, tags: Mapping[int, Values], offset: int) -> bytes:
        room, entry = (8, 20) if self.big else (4, 12)
        after = offset + (8 if self.big else 2) + entry * len(tags) + room
        head = struct.pack(self.order + ("Q" if self.big else "H"), len(tags))
        table, data = b"", b""
        for tag in sorted(tags):
            kind, count, content = self._value(tag, tags[tag])
            table += struct.pack(self.order + ("HHQ" if self.big else "HHL"), tag, kind, count)
            if len(content) > room:
                table += struct.pack(self.order + ("Q" if self.big else "L"), after + len(data))
                data += content + bytes(len(content) % 2)
            else:
                table += content.ljust(room, b"\0")
        return head + table + bytes(room) + data

    def _value(self, tag: int, value: Values) -> tuple[int, int, bytes]:
        values = [value] if isinstance(value, int) else list(value)
        if tag in (529, 532):
            return (
                RATIONAL,
                len(values),
                struct.pack(f"{self.order}{2 * len(values)}L", *(n for v in values for n in (v, 1000))),
            )
        if tag == 347:
            return 7, len(values), bytes(values)
        kind = LONG if tag in (273, 279, 256, 257, 513, 514) else SHORT
        return (
            kind,
            len(values),
            struct.pack(f"{self.order}{len(values)}{'L' if kind == LONG else 'H'}", *values),
        )


def packed_rows(values: Array, bits: int) -> bytes:
    """Rows (H,N) of values of some bits, the highest first, each row filled up to a byte."""
    digits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def rows_of(values: Array, order: str = "<") -> bytes:
    return values.astype(f"{order}u2").tobytes() if values.dtype == np.uint16 else values.tobytes()


def ycbcr(rgb: Array) -> Array:
    """YCbCr (...,3) uint8 of RGB by ITU-R BT.601 at full range, as JPEG and TIFF have it."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = [y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128]
    return np.clip(np.round(np.stack(planes, -1)), 0, 255).astype(np.uint8)


def ycbcr_units(rgb: Array, across: int, down: int) -> bytes:
    """Data units of subsampled YCbCr: the Y of across x down pixels, then their mean Cb and Cr."""
    height, width = (
        -(-size // step) * step for size, step in zip(rgb.shape[:2], (down, across), strict=True)
    )
    padded = np.pad(rgb, ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0)), "edge")
    stored = ycbcr(padded)
    cells = stored.reshape(height // down, down, width // across, across, 3).swapaxes(1, 2)
    y = cells[..., 0].reshape(*cells.shape[:2], -1)
    colours = np.round(cells[..., 1:].astype(float).mean(axis=(2, 3))).astype(np.uint8)
    return np.concatenate([y, colours], -1).tobytes()


# ---- PNG -------------------------------------------------------------------------------------

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Column, row, and steps of both, of each pass of an interlaced PNG."""


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    values: Array,
    bits: int,
    colour_type: int,
    before: bytes = b"",
    behind: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG of values (H,W,samples) as they are stored."""
    height, width = values.shape[:2]
    passes = (
        [values[row::down, column::across] for column, row, across, down in ADAM7] if interlaced else [values]
    )
    data = b"".join(_scanlines(part, bits) for part in passes if part.size)
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    parts = [chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(data)), behind, chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _scanlines(values: Array, bits: int) -> bytes:
    rows = values.reshape(len(values), -1).astype(np.uint16)
    return b"".join(b"\0" + packed_rows(row[None], bits) for row in rows)


# ---- BMP -------------------------------------------------------------------------------------


def bmp(
    words: Array,
    bits: int,
    fields: Sequence[int] = (),
    header: int = 40,
    upwards: bool = True,
    palette: Array | None = None,
    as_dib: bool = False,
) -> bytes:
    """A BMP of words (H,W), or of bytes (H,W,3) as blue, green, red; or a DIB, without the first bytes."""
    height, width = words.shape[:2]
    rows = words[::-1] if upwards else words
    lines = [
        packed_rows(row[None], bits)
        if bits < 8
        else (row.tobytes() if row.ndim > 1 else row.astype(f"<u{bits // 8}").tobytes())
        for row in rows
    ]
    data = b"".join(line.ljust((width * bits + 31) // 32 * 4, b"\0") for line in lines)
    colours = b"" if palette is None else np.pad(palette[:, ::-1], ((0, 0), (0, int(header != 12)))).tobytes()
    if header == 12:
        info = struct.pack("<LHHHH", 12, width, height, 1, bits)
    else:
        signed, packing = (height if upwards else -height), (3 if fields else 0)
        count = 0 if palette is None else len(palette)
        info = struct.pack(
            "<LllHHLLllLL", header, width, signed, 1, bits, packing, len(data), 2835, 2835, count, 0
        )
        masks = struct.pack(f"<{len(fields)}L", *fields)
        info = info.ljust(header, b"\0") + masks if header == 40 else (info + masks).ljust(header, b"\0")
    if as_dib:
        return info + colours + data
    start = 14 + len(info) + len(colours)
    return b"BM" + struct.pack("<LHHL", start + len(data), 0, 0, start) + info + colours + data


def run_lengths(values: Array, four_bits: bool = False) -> bytes:
    """The run-length encoding of a BMP: runs of one pixel, which is the least clever there is."""
    line = [
        b"".join(bytes([1, value << 4 if four_bits else value]) for value in row) + b"\0\0"
        for row in values[::-1]
    ]
    return b"".join(line) + b"\0\1"
