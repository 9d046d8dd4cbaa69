"""What the first page of a TIFF says of its pixels, read with bounded work before a decoder sees the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from .ifd import MOST_ENTRIES, ORIENTATION, Directory, Layout, next_directory, read_directory
from .ifd import PREFIXES as SMALL_PREFIXES
from .image_bytes import MOST_METADATA, ImageError, too_many, unpack_at

MOST_BLOCKS = 1 << 19
"""Limit of strips or tiles: 134 megapixels in tiles of 16 x 16. Pillow takes 20 us for each."""

MOST_NUMBERS = 1 << 19
"""Limit of numbers in all other entries: colour map and transfer functions have 400,000, at 3 us each."""

MOST_SAMPLES = 64
"""Limit of samples of a pixel that are looked at."""

LARGE_TILE = 1 << 24
"""Pixels of a tile that are accepted even in a smaller image; a tile is decoded as a whole."""

MOST_PAGES = 1000
"""Pages are counted up to here; the user is only told that there are several."""

PREFIXES = (*SMALL_PREFIXES, b"II+\0", b"MM\0+")
"""The first bytes of a TIFF file, the last two those of a BigTIFF."""

COLOUR_MAP, JPEG_TABLES, SUBSAMPLING, REFERENCE, COEFFICIENTS, PROFILE = 320, 347, 530, 532, 529, 34675
OLD_JPEG, OLD_JPEG_LENGTH = 513, 514
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR, _INKS = 273, 277, 278, 279, 284, 317, 332
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_BLOCKS = (273, 279, 324, 325)  # where strips and tiles are, and their sizes
_INNER = (34665, 34853, 40965)  # EXIF, GPS and, inside of EXIF, interoperability: Pillow reads these as well
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}  # photometric -> samples of a colour
_CCITT = (2, 3, 4)


@dataclass(frozen=True)
class TiffPage:
    """The tags of a page that say how its pixels are stored; ``width`` and ``height`` are as stored.

    ``extra`` says what each sample beyond the colour's is (TIFF 6.0, ExtraSamples): 0 not said, 1 alpha by
    which the colour is multiplied, 2 alpha; None where the tag is missing.  ``tile`` is the width and height
    of a tile, None with strips.  ``low_palette`` means a palette written with 8 bits where 16 belong,
    ``fine_colours`` YCbCr in which every pixel has its own Cb and Cr.
    """

    directory: Directory
    width: int
    height: int
    bits: tuple[int, ...]
    photometric: int
    extra: tuple[int, ...] | None
    formats: tuple[int, ...]
    chunky: bool
    compression: int
    predictor: int
    reversed_bits: bool
    orientation: int
    rows: int
    tile: tuple[int, int] | None
    ink_set: int
    subfile: int
    low_palette: bool
    fine_colours: bool

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return len(self.bits)

    @property
    def colours(self) -> int:
        """Samples of a pixel's colour, without alpha and others."""
        return min(_COLOURS.get(self.photometric, self.samples), self.samples)

    @property
    def alpha(self) -> int | None:
        """Index of the sample that is alpha, if one is."""
        if self.extra is None:  # RGBA from before there was a tag for it
            return 3 if (self.photometric, self.samples) == (2, 4) else None
        found = [k for k, kind in enumerate(self.extra, self.colours) if kind != 0 and k < self.samples]
        return found[0] if found else None

    @property
    def premultiplied(self) -> bool:
        """Whether the colour is multiplied by alpha."""
        return (
            self.alpha is not None and self.extra is not None and self.extra[self.alpha - self.colours] == 1
        )

    def blocks(self, file: BinaryIO) -> tuple[list[int], list[int]]:
        """Read offsets and sizes of all strips or tiles."""
        where, sizes = (_TILE_OFFSETS, _TILE_COUNTS) if self.tile else (_OFFSETS, _COUNTS)
        return self.directory.array(file, where).tolist(), self.directory.array(file, sizes).tolist()


def read_page(file: BinaryIO, start: bytes) -> tuple[TiffPage, int]:
    """Read the first page of a TIFF, and count its pages.

    Raises
    ------
    ImageError
        If there is none, or it holds more than a decoder should be given.
    """
    layout = Layout("<" if start.startswith(b"II") else ">", b"+" in start[:4])
    (offset,) = unpack_at(file, 8 if layout.big else 4, layout.pointer)
    directory = read_directory(file, offset, layout)
    _require_modest(file, directory)
    page = _page(file, directory)
    if page.tile is not None and page.tile[0] * page.tile[1] > max(page.width * page.height, LARGE_TILE):
        size = f"{page.tile[0]} x {page.tile[1]}"
        raise ImageError("too_large", f"tiles of {size} pixels, far more than the image has")
    return page, _pages(file, offset, directory)


def _page(file: BinaryIO, directory: Directory) -> TiffPage:
    def whole(tag: int, default: int = 0) -> int:
        return directory.whole(file, tag, default)

    width, height, samples = whole(_WIDTH), whole(_HEIGHT), max(1, whole(_SAMPLES, 1))
    if samples > MOST_SAMPLES:
        raise too_many("samples of a pixel", MOST_SAMPLES)
    bits, formats = (_spread(directory.array(file, tag).tolist(), samples) for tag in (_BITS, _FORMAT))
    compression = whole(_COMPRESSION, 1)
    unsaid = 2 if samples >= 3 else int(compression not in _CCITT)  # as libtiff guesses
    tiled = _TILE_OFFSETS in directory.entries
    return TiffPage(
        directory,
        width,
        height,
        bits,
        whole(_PHOTOMETRIC, unsaid),
        tuple(directory.array(file, _EXTRA).tolist()) if _EXTRA in directory.entries else None,
        formats,
        whole(_PLANAR, 1) != 2 or samples == 1,
        compression,
        whole(_PREDICTOR, 1),
        whole(_FILL_ORDER, 1) == 2,
        orientation if (orientation := whole(ORIENTATION, 1)) in range(1, 9) else 1,
        max(1, min(whole(_ROWS, height), height)),
        (whole(_TILE_WIDTH), whole(_TILE_HEIGHT)) if tiled else None,
        whole(_INKS, 1),
        whole(_SUBFILE),
        bool((directory.array(file, COLOUR_MAP) < 256).all()),  # as libtiff tells it
        directory.array(file, SUBSAMPLING).tolist() == [1, 1],
    )


def _spread(values: list[int], samples: int) -> tuple[int, ...]:
    """Return one value for each sample: all, the first of them for all, or 1 for all."""
    return tuple(values[:samples]) if len(values) >= samples else tuple((values or [1])[:1] * samples)


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
