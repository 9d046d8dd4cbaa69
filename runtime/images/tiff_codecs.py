"""Unpack the bytes of strips and tiles of a TIFF.

Compressions of bytes are left to libtiff, through Pillow: the blocks are given to it as one tall gray picture
whose pixels are the bytes, so that it makes of them no more than the header promises.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..types import Array
from .extras import codecs
from .image_bytes import ImageError
from .pictures import lerc_values, picture_size

_REVERSED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)
_TRUNCATED = "image file is truncated"

UNPACKED_AT_ONCE = 1 << 23
"""Bytes that are unpacked at once, where strips or tiles are not larger: enough to be fast."""


class _Bytes(TiffImageFile):
    """Pillow's decoder without its check of the size against the process's limit on pixels."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        super().load_prepare()


def unpack(
    blocks: Sequence[bytes], compression: int, reversed_bits: bool, row: int, heights: Sequence[int]
) -> Array:
    """Return the bytes (H,row) of blocks, one below the other; all but the last have the same height."""
    if compression == 1:
        return _join(blocks, reversed_bits, row, heights)
    height, sizes = sum(heights), [len(block) for block in blocks]
    order = 2 if reversed_bits else 1
    tags = {256: row, 257: height, 258: 8, 259: compression, 262: 1, 266: order, 277: 1, 278: heights[0]}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    body = start + 8 * len(blocks)
    table = np.concatenate([body + np.cumsum(sizes) - sizes, sizes])
    # A single value stands in the entry itself.
    where = (start, start + 4 * len(blocks)) if len(blocks) > 1 else (body, sizes[0])
    places = {273: (len(blocks), where[0]), 279: (len(blocks), where[1])}
    entries = {**{tag: (1, value) for tag, value in tags.items()}, **places}
    directory = b"".join(struct.pack("<HHII", tag, 4, *entries[tag]) for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    with _Bytes(io.BytesIO(b"".join([head, table.astype("<u4").tobytes(), *blocks]))) as image:
        image.load()
        return np.asarray(image)


def _join(blocks: Sequence[bytes], reversed_bits: bool, row: int, heights: Sequence[int]) -> Array:
    if any(len(block) < row * height for block, height in zip(blocks, heights, strict=True)):
        raise ImageError("unreadable", _TRUNCATED)
    parts = [
        np.frombuffer(block, np.uint8, row * height) for block, height in zip(blocks, heights, strict=True)
    ]
    joined = (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(-1, row)
    return _REVERSED[joined] if reversed_bits else joined


def values(rows: Array, width: int, samples: int, bits: int, order: str) -> Array:
    """Return the values (H,W,samples) in rows of bytes (H,row), in which each row begins a byte."""
    count = width * samples
    if bits == 8:
        return rows[:, :count].reshape(-1, width, samples)
    if bits == 16:
        wide = np.ascontiguousarray(rows[:, : 2 * count]).view(f"{order}u2")
        return wide.astype(np.uint16, copy=False).reshape(-1, width, samples)
    found = np.empty((len(rows), count), np.uint8 if bits < 8 else np.uint16)
    step = max(1, (1 << 20) // count)
    for k in range(0, len(rows), step):  # a byte for each bit: in pieces
        digits = np.unpackbits(rows[k : k + step], axis=1)[:, : count * bits].reshape(-1, count, bits)
        padded = np.zeros((*digits.shape[:2], 16), np.uint8)
        padded[..., 16 - bits :] = digits
        found[k : k + step] = np.packbits(padded, axis=-1).view(">u2")[..., 0]
    return found.reshape(-1, width, samples)


def undo_differences(pixels: Array) -> Array:
    """Sum the differences along each row of (H,W,samples) (TIFF 6.0, section 14)."""
    return np.asarray(np.cumsum(pixels, axis=1, dtype=pixels.dtype))


def decode_picture(
    block: bytes, kind: str, tables: bytes, shape: tuple[int, int, int], colours: str
) -> Array:
    """Decode a strip or tile that is a small picture; returns pixels of ``shape`` (h,w,samples).

    Parameters
    ----------
    kind : a value of ``tiff_kinds.PICTURES``.
    tables : of a JPEG, which stand once for all.
    colours : of a JPEG, as imagecodecs calls them; YCBCR become red, green and blue.

    Raises
    ------
    ImageError
        If its size is not ``shape``, or what decodes it is not installed.
    """
    height, width, samples = shape
    size = picture_size(block, kind)
    if size != (width, height):
        raise ImageError(
            "unreadable", f"a part of {size[0]} x {size[1]} pixels where {width} x {height} belong"
        )
    if kind == "lerc" and (values := lerc_values(block)) > samples:
        raise ImageError("unreadable", f"a part of {values} values per pixel where {samples} belong")
    if kind == "webp":
        with WebPImageFile(io.BytesIO(block)) as image:
            found = np.asarray(image.convert("RGBA" if samples == 4 else "RGB"))
    else:
        found = _decoded(block, kind, tables, colours)
    found = found.reshape(*found.shape[:2], -1) if found.size else found
    if found.shape != shape or found.dtype.kind != "u" or found.dtype.itemsize > 2:
        raise ImageError("unreadable", f"a part of shape {found.shape} where {shape} belongs")
    return np.asarray(found)


def _decoded(block: bytes, kind: str, tables: bytes, colours: str) -> Array:
    library = codecs(f"a TIFF compressed by {_NAMES[kind]}")
    if kind == "jpeg2000":
        found = library.jpeg2k_decode(block)
    elif kind == "lerc":
        found = library.lerc_decode(block)
    elif kind == "jpegxl":
        found = library.jpegxl_decode(block)
    else:  # the colours of a TIFF are what its header says, whatever the JPEG would have them be
        known = {"YCBCR": ("YCBCR", "RGB")}.get(colours, (colours, colours))
        found = library.jpeg_decode(block, tables=tables or None, colorspace=known[0], outcolorspace=known[1])
    return np.asarray(found)


_NAMES = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000", "lerc": "LERC", "jpegxl": "JPEG XL"}
