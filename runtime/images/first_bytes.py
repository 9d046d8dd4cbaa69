"""What a file is by its first bytes: the one table, by which files are listed as well as read.

``kind_of`` says what an image file is, and ``is_image`` whether it is one whatever it is called.  What
``is_image`` takes has a kind, and with it one reader (``image_header``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from . import jp2_header, jxl_header, png_header, tiff_page
from .bmp import is_bmp, is_dib
from .heif_header import heif_kind
from .image_bytes import read_at

START = 4096
"""Bytes from which a file's kind is told: those of the brands of an AVIF or HEIC file."""


@dataclass(frozen=True)
class _Kind:
    """How the files of a kind begin; ``sure`` tells whether nothing else begins so, no text either."""

    name: str
    begins: Callable[[bytes], object]
    sure: Callable[[bytes], object] = lambda start: True


def _with(*prefixes: bytes) -> Callable[[bytes], object]:
    return lambda start: start.startswith(prefixes)


def _never(start: bytes) -> bool:
    return False


_KINDS = (
    _Kind("png", _with(png_header.SIGNATURE)),
    _Kind("jpeg", _with(b"\xff\xd8\xff")),
    _Kind("tiff", _with(*tiff_page.PREFIXES)),
    _Kind("webp", lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP"),
    _Kind("bmp", _with(b"BM"), is_bmp),
    _Kind("gif", _with(b"GIF87a", b"GIF89a")),
    _Kind("netpbm", re.compile(rb"P[1-7][ \t\r\n\f\v#]").match, _never),
    _Kind("jpeg2000", _with(jp2_header.SIGNATURE, jp2_header.CODESTREAM)),
    _Kind("jpegxl", _with(jxl_header.SIGNATURE)),
    _Kind("jpegxl", _with(jxl_header.CODESTREAM), _never),
    _Kind("avif", lambda start: heif_kind(start) == "avif"),
    _Kind("heic", lambda start: heif_kind(start) == "heic"),
    _Kind("dib", is_dib, _never),
)
"""The kinds that are read; the first that fits is a file's."""

_OTHERS = {
    "BPG": (b"BPG\xfb",),
    "CUR": (b"\0\0\2\0",),
    "DDS": (b"DDS ",),
    "DjVu": (b"AT&TFORM",),
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "FITS": (b"SIMPLE  =",),
    "FLIF": (b"FLIF",),
    "HDF5": (b"\x89HDF",),
    "ICNS": (b"icns",),
    "ICO": (b"\0\0\1\0",),
    "JNG": (b"\x8bJNG",),
    "JPEG XR": (b"II\xbc",),
    "MNG": (b"\x8aMNG",),
    "OpenEXR": (b"\x76\x2f\x31\x01",),
    "PCX": (b"\x0a\x05\x01",),
    "PDF": (b"%PDF",),
    "PFM (floating-point)": (b"PF\n", b"Pf\n"),
    "PSD": (b"8BPS",),
    "QOI": (b"qoif",),
    "Radiance": (b"#?RADIANCE", b"#?RGBE"),
    "raw camera": (b"FUJIFILMCCD", b"IIRO", b"IIU\0"),
    "SGI": (b"\x01\xda",),
    "Sun raster": (b"\x59\xa6\x6a\x95",),
    "SVG": (b"<svg",),
    "WMF": (b"\xd7\xcd\xc6\x9a",),
    "XBM": (b"#define ",),
    "XCF": (b"gimp xcf",),
    "XPM": (b"/* XPM",),
    "ZIP": (b"PK\3\4",),
    "gzip": (b"\x1f\x8b",),
    "numpy": (b"\x93NUMPY",),
}
"""Other kinds of files, told by name, and how they begin."""


def read_start(file: BinaryIO) -> bytes:
    """Read the first ``START`` bytes of a file."""
    return read_at(file, 0, START)


def kind_of(start: bytes) -> str | None:
    """Return the kind of an image file by its first ``START`` bytes; None if it is of none that is read."""
    return next((kind.name for kind in _KINDS if kind.begins(start)), None)


def is_image(start: bytes) -> bool:
    """Return whether a file with these first ``START`` bytes is an image, whatever it is called.

    Beginnings that a text or any other data may have do not count.
    """
    return any(kind.begins(start) and kind.sure(start) for kind in _KINDS)


def other_kind(start: bytes) -> str | None:
    """Return the name of a kind that is not read, by a file's first bytes; None if they are of none."""
    return next((name for name, begins in _OTHERS.items() if start.startswith(begins)), None)
