"""The decoders of image files, one for each that a header names (``image_header``).

Pillow's own limit on pixels, which is one for the whole process, is left alone.
"""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..types import Array
from .bmp import bmp_samples
from .extras import codecs, heif
from .first_bytes import read_start
from .image_bytes import FileHeader, ImageError, ImageInput, read_at, wrong_size
from .jpeg_header import check_jpeg, jpeg_header
from .netpbm import netpbm_samples
from .png_header import transparent_gray
from .samples import Samples
from .small_headers import webp_content
from .tiff_page import OLD_JPEG, OLD_JPEG_LENGTH, read_page
from .tiff_pixels import tiff_samples

_TIFF_ORIENTATION = 274


class _Jpeg(JpegImageFile):
    """Pillow's decoder without its search for a resolution, which would copy all EXIF data for nothing."""

    def _read_dpi_from_exif(self) -> None: ...


class _Tiff(TiffImageFile):
    """Pillow's decoder without its second check of the size against the process's limit on pixels.

    It does not turn the image either: that is done once for all formats.
    """

    def _setup(self) -> None:
        self.tag_v2[_TIFF_ORIENTATION] = 1
        super()._setup()

    def load_end(self) -> None: ...

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        super().load_prepare()


_PILLOW: dict[str, type[ImageFile.ImageFile]] = {
    "avif": AvifImageFile, "bmp": BmpImageFile, "dib": DibImageFile, "gif": GifImageFile, "jpeg": _Jpeg,
    "jpeg2000": Jpeg2KImageFile, "png": PngImageFile, "tiff": _Tiff, "webp": WebPImageFile,
}  # fmt: skip
_FEATURES = {"avif": "avif", "webp": "webp", "jpeg2000": "jpg_2000"}


def open_pillow(file: ImageInput, header: FileHeader) -> ImageFile.ImageFile:
    """Open a file with Pillow without decoding it; it can read no more than an image of this header needs.

    Raises
    ------
    ImageError
        If the decoder finds a size other than the header's, or is not there.
    Exception
        Of any kind, by the decoder.
    """
    file.allow(header)
    source = io.BytesIO(webp_content(file)) if header.kind == "webp" else file
    source.seek(0)
    try:
        image = _decoder_class(header.kind)(source)
    except SyntaxError as error:  # what Pillow's decoders raise for a file that they do not take
        raise ImageError(
            "unreadable", f"damaged, or a kind of {header.kind} that is not read ({error})"
        ) from error
    if not _same_size(image.size, header):
        raise wrong_size(header, *image.size)
    return image


def _same_size(found: tuple[int, int], header: FileHeader) -> bool:
    """Return whether a decoder finds the header's size; a HEIC may be turned, and cut from what is stored."""
    if header.kind != "heic":
        return found == (header.width, header.height)
    return min(found) <= min(header.width, header.height) and max(found) <= max(header.width, header.height)


def _decoder_class(kind: str) -> type[ImageFile.ImageFile]:
    if kind == "heic":
        found: type[ImageFile.ImageFile] = heif("a HEIC file").HeifImageFile
        return found
    if kind in _FEATURES and not features.check(_FEATURES[kind]):
        raise ImageError("unsupported", f"a file of {kind}, which this build of Pillow does not read")
    return _PILLOW[kind]


def check_pixels(file: ImageInput, header: FileHeader) -> None:
    """Raise ImageError if the pixels are in more passes than a decoder can be given.

    Reads through the whole file, so call it only before decoding.
    """
    if header.kind == "jpeg":
        check_jpeg(file, header)


def read_samples(file: ImageInput, header: FileHeader) -> Samples:
    """Read the values of an image that Pillow does not decode, as stored and not turned.

    Raises
    ------
    ImageError
        If the file is damaged, or its decoder is not installed.
    Exception
        Of any kind, by the decoder.
    """
    if header.decoder == "opencv":
        return _by_opencv(file, header)
    if header.decoder == "netpbm":
        return netpbm_samples(file, header)
    if header.decoder == "bmp":
        return bmp_samples(file, header)
    if header.decoder == "jpegxl":
        return _jpeg_xl(file, header)
    page, _ = read_page(file, read_start(file))
    if header.decoder == "old jpeg":
        if OLD_JPEG not in page.directory.entries:
            raise ImageError("unsupported", "a TIFF of an old-style JPEG in parts; save it as PNG")
        content = read_at(file, *(page.directory.whole(file, tag) for tag in (OLD_JPEG, OLD_JPEG_LENGTH)))
        return _whole_jpeg(content, header)
    return tiff_samples(file, page, header)


def _by_opencv(file: ImageInput, header: FileHeader) -> Samples:
    """Read all channels at full depth."""
    if header.kind == "png":
        open_pillow(file, header).load()  # finds a truncated file, which OpenCV would fill with black
    pixels = _opencv_pixels(file, header)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError("unreadable", f"damaged, or a kind of {header.kind} that is not read")
    if pixels.shape[:2] != (header.height, header.width):
        raise wrong_size(header, pixels.shape[1], pixels.shape[0])
    opaque = header.white or 65535
    if pixels.ndim == 2:
        key = transparent_gray(file) if header.kind == "png" else None
        alpha = None if key is None else np.where(pixels == key, 0, opaque)
        return Samples(pixels, alpha, header.white, opaque)
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    return Samples(pixels[..., 2::-1], alpha, header.white, opaque)


def _opencv_pixels(file: ImageInput, header: FileHeader) -> Array | None:
    """Decode as stored.

    Reads the file into memory first, unless it is much larger than its pixels, as with many pages.
    """
    # OpenCV maps a file that it is given by name, and one that shrinks while it is mapped ends the process.
    # So that is left to files which would take too much memory otherwise.
    name, flags = f"/proc/self/fd/{file.fileno()}", cv2.IMREAD_UNCHANGED
    if os.fstat(file.fileno()).st_size > header.most_bytes:
        return cv2.imread(name, flags)
    level = cv2.utils.logging.getLogLevel()
    # OpenJPEG's remarks on files that name no colours would go to the user's terminal.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return cv2.imdecode(np.fromfile(name, np.uint8), flags)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _jpeg_xl(file: ImageInput, header: FileHeader) -> Samples:
    library = codecs("a JPEG XL file")
    file.allow(header)
    file.seek(0)
    pixels: Array = library.jpegxl_decode(file.read(), index=0)
    if pixels.shape[:2] != (header.height, header.width):
        raise wrong_size(header, pixels.shape[1], pixels.shape[0])
    if pixels.dtype.kind != "u":
        raise ImageError("unreadable", f"a JPEG XL file of whole numbers, but {pixels.dtype} inside")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    has_alpha = pixels.shape[2] in (2, 4)
    colours = min(pixels.shape[2] - has_alpha, 3)
    full = 255 if pixels.dtype == np.uint8 else 65535
    white = header.white if header.bits > 8 else 255
    return Samples(pixels[..., :colours], pixels[..., -1] if has_alpha else None, white, full)


def _whole_jpeg(content: bytes, header: FileHeader) -> Samples:
    """Read a JPEG inside of a TIFF, which describes itself."""
    source = io.BytesIO(content)
    inside = jpeg_header(source)
    if (inside.width, inside.height) != (header.width, header.height):
        raise wrong_size(header, inside.width, inside.height)
    check_jpeg(source, inside)
    source.seek(0)
    return Samples(np.asarray(_Jpeg(source).convert("RGB")), None, 255)


def png_scale(file: BinaryIO) -> int:
    """Return what Pillow multiplies the values of a gray PNG of 1, 2 or 4 bits by."""
    (bits,) = struct.unpack("B", read_at(file, 24, 1))
    return 255 // (2**bits - 1) if bits < 8 else 1
