"""Decide from the first bytes of a file what it is and which class decodes it.

Pillow has fifty plugins, and its own search gives a file to any that claims it, whatever the name: one starts
Ghostscript, others decode what is packed inside.  Here five formats are known.  Our own code reads the header
of each (:func:`read_file_header`), and only then does the file go to the one class that decodes it
(:func:`open_decoder`).  Pillow's own limit on pixels, which is one for the whole process, is left alone.
"""

from __future__ import annotations

import io

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .ifd import PREFIXES
from .image_bytes import FileHeader, ImageError, ImageInput, read_at
from .jpeg_header import check_jpeg, jpeg_header
from .png_header import SIGNATURE, check_png, png_header
from .small_headers import bmp_header, webp_content, webp_header
from .tiff_header import BIG_PREFIXES, tiff_header

_START = 512  # bytes from which a file's kind is told
_WEBP = (b"VP8 ", b"VP8L", b"VP8X")
_OTHERS = {
    b"%!PS": "EPS", b"\xc5\xd0\xd3\xc6": "EPS", b"%PDF": "PDF", b"GIF8": "GIF", b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "CUR", b"icns": "ICNS", b"8BPS": "PSD", b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"DDS ": "DDS", b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance", b"qoif": "QOI", b"II\xbc": "JPEG XR", b"AT&TFORM": "DjVu", b"\x8aMNG": "MNG",
    b"\x59\xa6\x6a\x95": "Sun raster", b"<svg": "SVG", b"\xd7\xcd\xc6\x9a": "WMF", b"PK\3\4": "ZIP",
    b"\x1f\x8b": "gzip", b"\x89HDF": "HDF5", b"SIMPLE  =": "FITS",
    **{b"P%d%c" % (kind, space): "Netpbm" for kind in range(1, 8) for space in b" \t\r\n#"},
}  # fmt: skip
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
}


class _Jpeg(JpegImageFile):
    """Pillow's decoder without its search for a resolution, which would copy all EXIF data for nothing."""

    def _read_dpi_from_exif(self) -> None: ...


class _Tiff(TiffImageFile):
    """Pillow's decoder without its second check of the size against the process's limit on pixels."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        super().load_prepare()


_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "bmp": BmpImageFile, "jpeg": _Jpeg, "png": PngImageFile, "tiff": _Tiff, "webp": WebPImageFile
}  # fmt: skip


def read_file_header(file: ImageInput, max_pixels: int) -> FileHeader:
    """Read the header of an image file.

    Raises
    ------
    ImageError
        If it is none of the five kinds, has no size or one above ``max_pixels``, or would cost too much.
    """
    header = _header(file, read_at(file, 0, _START))
    if header.width <= 0 or header.height <= 0:
        raise ImageError("unreadable", f"a {header.kind} file without a size")
    if header.width * header.height > max_pixels:
        raise ImageError("too_large", f"{header.width} x {header.height} pixels; the limit is {max_pixels}")
    return header


def open_decoder(file: ImageInput, header: FileHeader) -> ImageFile.ImageFile:
    """Open a file with Pillow without decoding it; it can read no more than an image of this header needs.

    Raises
    ------
    ImageError
        If the decoder finds a size other than the header's.
    Exception
        Of any kind, by the decoder.
    """
    file.allow(header)
    source = io.BytesIO(webp_content(file)) if header.kind == "webp" else file
    source.seek(0)
    try:
        image = _DECODERS[header.kind](source)
    except SyntaxError as error:  # what Pillow's decoders raise for a file that they do not take
        raise ImageError(
            "unreadable", f"damaged, or a kind of {header.kind} that is not read ({error})"
        ) from error
    if image.size != (header.width, header.height):
        found = f"{image.width} x {image.height}"
        raise ImageError(
            "unreadable", f"a header of {header.width} x {header.height} pixels, but {found} inside"
        )
    return image


def check_pixels(file: ImageInput, header: FileHeader) -> None:
    """Raise ImageError if the pixels are in more parts or passes than a decoder can be given.

    Reads through the whole file, so call it only before decoding, ahead of :func:`open_decoder`.
    """
    if header.kind == "png":
        check_png(file, header)
    elif header.kind == "jpeg":
        check_jpeg(file, header)


def _header(file: ImageInput, start: bytes) -> FileHeader:
    if start.startswith(SIGNATURE):
        return png_header(file)
    if start.startswith(b"\xff\xd8\xff"):
        return jpeg_header(file)
    if start.startswith(PREFIXES + BIG_PREFIXES):
        return tiff_header(file, start)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP" and start[12:16] in _WEBP:
        return webp_header(file, start)
    if start.startswith(b"BM"):
        return bmp_header(file)
    raise ImageError("unreadable", _what_else(start))


def _what_else(start: bytes) -> str:
    """Return the reason why a file that starts like this is not read."""
    if not start:
        return "the file is empty"
    brand = _BRANDS.get(start[8:12], "MP4") if start[4:8] == b"ftyp" else None
    name = brand or next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)
    return f"{name}, not a bmp, jpeg, png, tiff or webp file" if name else "not an image file"
