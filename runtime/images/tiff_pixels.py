"""Put the pixels of a TIFF together from its strips or tiles: what Pillow does not read, or not right.

Any depth up to 16 bits, planes together or apart, both orders of bytes and of bits, samples that are neither
colour nor alpha, and colours that are not red, green and blue.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from ..types import Array
from . import tiff_kinds as kinds
from .colours import rgb_of_cmyk, rgb_of_lab, rgb_of_ycbcr
from .extras import codecs
from .image_bytes import FAR_TOO_MUCH, FileHeader, ImageError, read_at
from .samples import Samples, blocks_of
from .tiff_codecs import UNPACKED_AT_ONCE, decode_picture, undo_differences, unpack, values
from .tiff_page import COEFFICIENTS, COLOUR_MAP, JPEG_TABLES, REFERENCE, SUBSAMPLING, TiffPage

Block = tuple[int, int, Array]
"""Row and column of a strip or tile in the image, and its pixels (h,w,samples)."""

_LERC_PARAMETERS = 50674
_JPEG_COLOURS = {(kinds.RGB, 3): "RGB", (kinds.YCBCR, 3): "YCBCR"}  # four are left as they are by any name


def tiff_samples(file: BinaryIO, page: TiffPage, header: FileHeader) -> Samples:
    """Read the pixels of a page, as stored but for the colours, which become gray or red, green and blue.

    Raises
    ------
    ImageError
        If they are damaged, or a package that decodes them is missing.
    """
    stored = _assemble(file, page, header)
    full, bits = 2 ** page.bits[0] - 1, page.bits[0]
    alpha = stored[..., -1] if page.alpha is not None else None
    colour = stored[..., : page.colours]
    white = None if bits == 16 else full
    if page.photometric == kinds.WHITE_IS_ZERO:
        colour = full - colour
    elif page.photometric == kinds.PALETTE:
        colour, white = _by_palette(file, page, colour[..., 0]), 255
    elif page.photometric == kinds.CMYK:
        colour, white = _in_rows(lambda rows: rgb_of_cmyk(rows, full), colour), full
    elif page.photometric == kinds.YCBCR and page.compression in kinds.PACKED:
        scale = _ycbcr_scale(file, page)
        colour = _in_rows(lambda rows: rgb_of_ycbcr(rows, *scale), colour)
    elif page.photometric in (kinds.CIELAB, kinds.ICCLAB):
        colour, white = _in_rows(lambda rows: _by_lab(page, rows), colour), 255
    return Samples(colour, alpha, white, full, page.premultiplied)


def _in_rows(convert: Callable[[Array], Array], pixels: Array) -> Array:
    """Convert blocks of rows, so that what comes between takes little memory."""
    return np.concatenate([convert(pixels[rows]) for rows in blocks_of(pixels)])


def _assemble(file: BinaryIO, page: TiffPage, header: FileHeader) -> Array:
    """Return the samples that are looked at (H,W,samples): those of the colour, then alpha."""
    wanted = [*range(page.colours), *([page.alpha] if page.alpha is not None else [])]
    whole = wanted == [*range(page.samples)]
    image: Array | None = None
    for target, plane in (
        [(slice(None), 0)] if page.chunky else [(slice(k, k + 1), p) for k, p in enumerate(wanted)]
    ):
        for top, left, block in _blocks(file, page, header, plane):
            part = block if whole or not page.chunky else block[..., wanted]
            if image is None and page.chunky and part.shape[:2] == (page.height, page.width):
                return part
            if image is None:
                image = np.empty((page.height, page.width, len(wanted)), block.dtype)
            height, width = min(len(part), page.height - top), min(part.shape[1], page.width - left)
            image[top : top + height, left : left + width, target] = part[:height, :width]
    assert image is not None  # a page has a pixel, and so a block
    return image


def _layout(page: TiffPage) -> tuple[int, int, int, int]:
    """Return how many strips or tiles lie across and down, and their width and height."""
    width, height = page.tile or (page.width, page.rows)
    if width <= 0 or height <= 0:
        raise ImageError("unreadable", "a TIFF with tiles without a size")
    return math.ceil(page.width / width), math.ceil(page.height / height), width, height


def _blocks(file: BinaryIO, page: TiffPage, header: FileHeader, plane: int) -> Iterator[Block]:
    """Decode the strips or tiles of one plane, or of all planes together."""
    across, down, width, height = _layout(page)
    count, samples = across * down, page.samples if page.chunky else 1
    part = slice(plane * count, (plane + 1) * count)
    where = list(zip(*(found[part] for found in page.blocks(file)), strict=False))
    if len(where) < count:
        raise ImageError("unreadable", "a TIFF with fewer strips or tiles than its size needs")
    corners = [(row * height, column * width) for row in range(down) for column in range(across)]
    heights = [height if page.tile else min(height, page.height - top) for top, _ in corners]
    if page.compression == 1:  # what lies between parts is not theirs
        room = _row_bytes(page, width, samples)
        where = [
            (at, min(size, 2 * rows * room + 64)) for (at, size), rows in zip(where, heights, strict=True)
        ]
    if sum(size for _, size in where) > header.most_bytes:
        raise ImageError("unsupported", FAR_TOO_MUCH)
    contents = (read_at(file, offset, size) for offset, size in where)
    if page.compression in kinds.PICTURES:
        tables = page.directory.content(file, JPEG_TABLES)
        for (top, left), rows, content in zip(corners, heights, contents, strict=True):
            yield top, left, _picture(file, page, content, (rows, width, samples), tables)
    elif page.compression == 1:
        for (top, left), rows, content in zip(corners, heights, contents, strict=True):
            yield top, left, _stacked(file, page, [content], (width, samples), [rows])
    else:
        for group in _groups(heights, _row_bytes(page, width, samples)):
            parts = [next(contents) for _ in heights[group]]
            stacked = _stacked(file, page, parts, (width, samples), heights[group])
            starts = np.cumsum([0, *heights[group]])
            for (top, left), rows, start in zip(corners[group], heights[group], starts, strict=False):
                yield top, left, stacked[start : start + rows]


def _groups(heights: list[int], row: int) -> Iterator[slice]:
    """Cut blocks into groups that are unpacked at once."""
    first = size = 0
    for number, height in enumerate(heights, 1):
        size += height * row
        if size >= UNPACKED_AT_ONCE or number == len(heights):
            yield slice(first, number)
            first, size = number, 0


def _row_bytes(page: TiffPage, width: int, samples: int) -> int:
    return (width * samples * page.bits[0] + 7) // 8


def _stacked(
    file: BinaryIO, page: TiffPage, contents: list[bytes], shape: tuple[int, int], heights: list[int]
) -> Array:
    """Unpack blocks of bytes into one stack of pixels (H,w,samples)."""
    (width, samples), bits = shape, page.bits[0]
    if page.photometric == kinds.YCBCR and page.chunky:
        across, down = _subsampling(file, page)
        if (across, down) != (1, 1):
            return _coarse_stack(page, contents, width, heights, across, down)
    row = _row_bytes(page, width, samples)
    rows = unpack(contents, page.compression, page.reversed_bits, row, heights)
    pixels = values(rows, width, samples, bits, page.directory.layout.order)
    return undo_differences(pixels) if page.predictor == 2 and page.compression not in (1, 32773) else pixels


def _coarse_stack(
    page: TiffPage, contents: list[bytes], width: int, heights: list[int], across: int, down: int
) -> Array:
    """Unpack YCbCr whose Cb and Cr stand for across x down pixels: units of all their Y, then Cb, then Cr."""
    units, size = math.ceil(width / across), across * down + 2
    rows = [math.ceil(height / down) for height in heights]
    found = unpack(contents, page.compression, page.reversed_bits, units * size, rows).reshape(
        -1, units, size
    )
    y = found[..., :-2].reshape(len(found), units, down, across).swapaxes(1, 2)
    pixels = np.empty((len(found) * down, units * across, 3), np.uint8)
    pixels[..., 0] = y.reshape(pixels.shape[:2])
    pixels[..., 1:] = found[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    whole = np.cumsum([0, *(each * down for each in rows)])
    return np.concatenate([pixels[k : k + height, :width] for k, height in zip(whole, heights, strict=False)])


def _subsampling(file: BinaryIO, page: TiffPage) -> tuple[int, int]:
    """Return how many pixels across and down share a Cb and a Cr."""
    found = page.directory.array(file, SUBSAMPLING).tolist()
    across, down = found if len(found) == 2 else (2, 2)
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise ImageError("unreadable", f"YCbCr with one colour for {across} x {down} pixels")
    return across, down


def _picture(
    file: BinaryIO, page: TiffPage, content: bytes, shape: tuple[int, int, int], tables: bytes
) -> Array:
    kind = kinds.PICTURES[page.compression]
    if kind == "lerc":
        content = _lerc(file, page, content, shape)
    colours = _JPEG_COLOURS.get((page.photometric, shape[2]), "GRAYSCALE" if shape[2] == 1 else "CMYK")
    return decode_picture(content, kind, tables, shape, colours)


def _lerc(file: BinaryIO, page: TiffPage, content: bytes, shape: tuple[int, int, int]) -> bytes:
    """Undo what GDAL may pack LERC with."""
    parameters, most = page.directory.array(file, _LERC_PARAMETERS).tolist(), 4 * math.prod(shape) + 4096
    packing = parameters[1] if len(parameters) > 1 else 0
    if packing == 1:
        try:
            return zlib.decompressobj().decompress(content, most)
        except zlib.error as error:
            raise ImageError("unreadable", f"damaged LERC ({error})") from error
    return (
        bytes(codecs("a TIFF compressed by LERC").zstd_decode(content, out=most)) if packing == 2 else content
    )


def _by_palette(file: BinaryIO, page: TiffPage, indices: Array) -> Array:
    """Look up 8-bit colours (H,W,3)."""
    table = page.directory.array(file, COLOUR_MAP)
    if len(table) < 3 << page.bits[0]:
        raise ImageError("unreadable", "a palette with fewer colours than its pixels may have")
    table = table[: 3 << page.bits[0]].reshape(3, -1).T
    if not page.low_palette:
        table = table >> 8
    return np.asarray(table.astype(np.uint8)[indices])


def _ycbcr_scale(file: BinaryIO, page: TiffPage) -> tuple[Array, Array]:
    found = [page.directory.fractions(file, tag) for tag in (COEFFICIENTS, REFERENCE)]
    coefficients = found[0] if len(found[0]) == 3 else np.array([0.299, 0.587, 0.114])
    reference = found[1] if len(found[1]) == 6 else np.array([0, 255, 128, 255, 128, 255])
    if not coefficients.all() or not (reference[1::2] - reference[::2]).all():
        raise ImageError("unreadable", "YCbCr without a scale")
    return coefficients, reference


def _by_lab(page: TiffPage, stored: Array) -> Array:
    """Return 8-bit RGB of 8- or 16-bit CIELab, whose a* and b* are signed, or of ICCLab, with offsets."""
    bits, signed = page.bits[0], page.photometric == kinds.CIELAB
    step = 2 ** (bits - 8)
    lightness = stored[..., 0].astype(np.float32) * np.float32(100 / (2**bits - 1))
    if not signed and bits == 16:
        lightness = stored[..., 0].astype(np.float32) * np.float32(100 / 0xFF00)
    a, b = (
        (plane.view(f"i{bits // 8}") if signed else plane.astype(np.int32) - 128 * step).astype(np.float32)
        / step
        for plane in (np.ascontiguousarray(stored[..., k]) for k in (1, 2))
    )
    return rgb_of_lab(lightness, a, b)
