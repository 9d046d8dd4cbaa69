"""Read headers of TIFF files, and check them before Pillow, libtiff and OpenCV see the file."""

from __future__ import annotations

from typing import BinaryIO

from .ifd import MOST_ENTRIES, ORIENTATION, Directory, Layout, next_directory, read_directory
from .image_bytes import MOST_METADATA, FileHeader, ImageError, too_many, unpack_at

MOST_BLOCKS = 1 << 19
"""Limit of strips or tiles: 134 megapixels in tiles of 16 x 16. Pillow takes 20 us for each."""

MOST_NUMBERS = 1 << 19
"""Limit of numbers in all other entries: colour map and transfer functions have 400,000, at 3 us each."""

LARGE_TILE = 1 << 24
"""Pixels of a tile that are accepted even in a smaller image; a tile is decoded as a whole."""

MOST_PAGES = 1000
"""Pages are counted up to here; the user is only told that there are several."""

BIG_PREFIXES = (b"II+\0", b"MM\0+")

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323
_BLOCKS = (273, 279, 324, 325)  # where strips and tiles are, and their sizes
_INNER = (34665, 34853, 40965)  # EXIF, GPS and, inside of EXIF, interoperability: Pillow reads these as well
_TURNED = (5, 6, 7, 8)


def tiff_header(file: BinaryIO, start: bytes) -> FileHeader:
    """Read the header of a TIFF file's first page; ``width`` and ``height`` are as displayed.

    Raises
    ------
    ImageError
        If there is none, or it holds more than a decoder should be given.
    """
    if start.startswith(b"MM\0+"):
        raise ImageError("unsupported", "a BigTIFF of big-endian numbers; save it as TIFF or PNG")
    layout = Layout("<" if start.startswith(b"II") else ">", start.startswith(b"II+"))
    (offset,) = unpack_at(file, 8 if layout.big else 4, layout.pointer)
    page = read_directory(file, offset, layout)
    _require_modest(file, page)
    width, height = (page.whole(file, tag) for tag in (_WIDTH, _HEIGHT))
    _require_tiles(file, page, max(width * height, LARGE_TILE))
    samples, bits = min(page.whole(file, _SAMPLES, 1), 8), min(page.whole(file, _BITS, 1), 64)
    if page.number(file, ORIENTATION) in _TURNED:
        width, height = height, width
    return FileHeader(
        "tiff", width, height, width * height * max(samples, 1) * bits // 8, _pages(file, offset, page)
    )


def _require_modest(file: BinaryIO, page: Directory) -> None:
    """Raise ImageError if the entries of a page and its inner directories would cost much to read."""
    inner = _inner(file, page)
    directories = [page, *inner, *(deeper for each in inner for deeper in _inner(file, each))]
    if any(directory.listed > MOST_ENTRIES for directory in directories):
        raise too_many("entries in a directory", MOST_ENTRIES)
    entries = [item for directory in directories for item in directory.entries.items()]
    if any(entry.count > MOST_BLOCKS for tag, entry in entries if tag in _BLOCKS):
        raise too_many("strips or tiles", MOST_BLOCKS)
    if sum(entry.numbers for tag, entry in entries if tag not in _BLOCKS) > MOST_NUMBERS:
        raise too_many("numbers besides the pixels", MOST_NUMBERS)
    if sum(entry.size for _, entry in entries) > MOST_METADATA:
        raise too_many("bytes besides the pixels", MOST_METADATA)


def _inner(file: BinaryIO, directory: Directory) -> list[Directory]:
    """Read the directories that entries of a directory point to."""
    offsets = [directory.whole(file, tag) for tag in _INNER if tag in directory.entries]
    return [read_directory(file, offset, directory.layout) for offset in offsets if offset > 0]


def _require_tiles(file: BinaryIO, page: Directory, most: int) -> None:
    """Raise ImageError if a tile has more than ``most`` pixels."""
    width, height = (page.whole(file, tag) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if width * height > most:
        raise ImageError("too_large", f"tiles of {width} x {height} pixels, far more than the image has")


def _pages(file: BinaryIO, offset: int, page: Directory) -> int:
    """Count the pages, up to ``MOST_PAGES`` and up to the first damage."""
    seen, after = {offset}, page.after  # directories of a hostile file may form a ring
    while after and after not in seen and len(seen) < MOST_PAGES:
        try:
            (listed,) = unpack_at(file, after, page.layout.order + ("Q" if page.layout.big else "H"))
        except ImageError:
            break
        seen.add(after)
        after = next_directory(file, after, listed, page.layout)
    return len(seen)
