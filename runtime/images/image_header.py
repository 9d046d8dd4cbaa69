"""Decide from the first bytes of a file what it is and who decodes it.

Pillow has fifty plugins, and its own search gives a file to any that claims it, whatever the name: one starts
Ghostscript, others decode what is packed inside.  Here the formats of ``FORMATS`` are known.  Our own code
reads the header of each (:func:`read_file_header`), which names the decoder, and only then does the file go
there (``decoders``).

| format | what is read | by |
|---|---|---|
| png | all colour types and depths; animated: the first picture | Pillow; OpenCV for 16 bits |
| jpeg | 8 bits, 1, 3 or 4 components, Huffman- or arithmetic-coded, baseline or progressive | Pillow |
| tiff | see ``tiff_kinds`` | Pillow, ``tiff_pixels``, imagecodecs |
| bmp, dib | all but 2 bits and what holds a JPEG or PNG | Pillow; ``bmp`` for 16 bits and fields of bits |
| webp, gif | all; animated: the first picture | Pillow |
| netpbm | P1 to P7, up to 16 bits | ``netpbm`` |
| jpeg2000 | up to 16 bits, unsigned | Pillow; OpenCV for other depths than 8 |
| avif | all, at 8 bits | Pillow, where it was built with it |
| heic | all, at 8 bits | pillow_heif, optional |
| jpegxl | up to 16 bits, unsigned | imagecodecs, optional |
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from . import jp2_header, jxl_header
from .bmp import bmp_header, is_dib
from .heif_header import brands_of, heif_header, heif_kind
from .image_bytes import START, FileHeader, ImageError, read_at
from .jp2_header import jp2_header as read_jp2_header
from .jpeg_header import jpeg_header
from .jxl_header import jxl_header as read_jxl_header
from .netpbm import KINDS, netpbm_header
from .png_header import SIGNATURE, png_header
from .small_headers import gif_header, webp_header
from .tiff_header import tiff_header
from .tiff_page import PREFIXES

_WEBP = (b"VP8 ", b"VP8L", b"VP8X")
_SPACE = b" \t\r\n\f\v#"


def _is_webp(start: bytes) -> bool:
    return start.startswith(b"RIFF") and start[8:12] == b"WEBP" and start[12:16] in _WEBP


def _is_netpbm(start: bytes) -> bool:
    return start.startswith(KINDS) and start[2:3] in [_SPACE[k : k + 1] for k in range(len(_SPACE))]


FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, bytes], FileHeader]], ...] = (
    (lambda start: start.startswith(SIGNATURE), lambda file, _: png_header(file)),
    (lambda start: start.startswith(b"\xff\xd8\xff"), lambda file, _: jpeg_header(file)),
    (lambda start: start.startswith(PREFIXES), tiff_header),
    (_is_webp, webp_header),
    (lambda start: start.startswith(b"BM"), lambda file, _: bmp_header(file, "bmp")),
    (lambda start: start.startswith((b"GIF87a", b"GIF89a")), lambda file, _: gif_header(file)),
    (_is_netpbm, lambda file, _: netpbm_header(file)),
    (
        lambda start: start.startswith((jp2_header.SIGNATURE, jp2_header.CODESTREAM)),
        lambda file, _: read_jp2_header(file),
    ),
    (lambda start: start.startswith((jxl_header.SIGNATURE, jxl_header.CODESTREAM)), read_jxl_header),
    (lambda start: heif_kind(start) == "avif", lambda file, _: heif_header(file, "avif")),
    (lambda start: heif_kind(start) == "heic", lambda file, _: heif_header(file, "heic")),
    (is_dib, lambda file, _: bmp_header(file, "dib")),
)
"""How the files that are read begin, and who reads the header of each."""

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
"""Kinds that are told by name, and how they begin."""

_TGA_END = b"TRUEVISION-XFILE.\0"


def read_file_header(file: BinaryIO, max_pixels: int) -> FileHeader:
    """Read the header of an image file.

    Raises
    ------
    ImageError
        If it is of no kind that is read, has no size or one above ``max_pixels``, or would cost too much.
    """
    header = _header(file, read_at(file, 0, START))
    if header.width <= 0 or header.height <= 0:
        raise ImageError("unreadable", f"a {header.kind} file without a size")
    if header.width * header.height > max_pixels:
        raise ImageError("too_large", f"{header.width} x {header.height} pixels; the limit is {max_pixels}")
    return header


def _header(file: BinaryIO, start: bytes) -> FileHeader:
    if start[4:8] == b"ftyp":
        start = brands_of(file)
    for begins, read in FORMATS:
        if begins(start):
            return read(file, start)
    if not start:
        raise ImageError("unreadable", "the file is empty")
    raise _refusal(file, start)


def _refusal(file: BinaryIO, start: bytes) -> ImageError:
    """Make the error for a file of a kind that is not read."""
    name = next((name for name, begins in _OTHERS.items() if start.startswith(begins)), None)
    end = max(0, file.seek(0, io.SEEK_END) - len(_TGA_END))
    if read_at(file, end, len(_TGA_END)) == _TGA_END:
        name = "TGA"
    elif start[4:8] == b"ftyp":
        name = "MP4"
    if name is None:
        return ImageError("unreadable", "not an image file")
    return ImageError("unsupported", f"a file of the kind {name}, which is not read; save it as PNG")
