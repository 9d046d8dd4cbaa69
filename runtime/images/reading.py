"""Read image files and prepare them for the ViT.

There is only one way from a file to the graph's input, for inference, export and benchmark alike:
:func:`read_image` then :func:`preprocess`.  Paper, section 4.1: the image is resized to the model's
size ignoring its aspect; the authors' code does this with Pillow, antialiased, in 8 bits.

Files with 9 to 16 bits per channel are scaled to 8 bits by one depth for the whole lot, never by an
image's own range: value * 255 / (2**depth - 1).  Pillow keeps only the high 8 bits of 16-bit colour, in
which 12-bit data is nearly black, so OpenCV reads their values at full depth.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..limits import limit_reached
from ..types import Array, FloatArray, PreprocessSpec
from .ifd import exif_orientation
from .image_bytes import FileHeader, ImageInput
from .image_bytes import ImageError as ImageError  # noqa: PLC0414  # part of this module to all others
from .image_header import check_pixels, open_decoder, read_file_header

MAX_PIXELS = 178_956_970
"""Default limit of an image's pixels: half a gigabyte of RGB, like Pillow's own limit."""

BACKGROUND = "white"
"""The colour behind transparent pixels."""

BIT_DEPTHS = (8, 10, 12, 14, 16)

_DECODING, _DECODING_DEEP = 14, 50
"""Bytes for a pixel of an image while it is decoded, with up to 8 bits per channel and with more."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# EXIF orientation -> direction of rows and columns, once those are swapped
_MIRRORED = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
_TIFF_BITS = 258  # tag BitsPerSample
_OPEN = (
    os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)  # without NONBLOCK, opening a pipe would wait for ever
_REASON = 300  # most characters of a reason, which a decoder may quote from the file


@dataclass(frozen=True)
class Header:
    """The header of an image file, as the lot's survey keeps it.

    ``width`` and ``height`` are as displayed; ``stamp`` shows whether the file has changed since;
    ``decode_bytes`` is the most memory that :func:`read_image` needs for it.
    """

    width: int
    height: int
    bits: int
    pages: int
    stamp: tuple[int, int]
    decode_bytes: int


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> Header:
    """Read size, bits per channel and pages of an image file without decoding it.

    Raises
    ------
    ImageError
        If the file is not an image, has more than ``max_pixels``, or a kind of pixel that has no
        known range (float, 32-bit).
    """
    with _reading(path) as file:
        found = read_file_header(file, max_pixels)
        image = open_decoder(file, found)
        width, height = found.width, found.height
        # Pillow gives a TIFF's size as displayed, and would decode a whole PNG to look for EXIF data
        # behind the pixels: take what stands before them.
        known = found.kind != "tiff" and (found.kind != "png" or "exif" in image.info)
        if known and _orientation(image) in _TURNED:
            width, height = height, width
        bits = _bits(image)
        decode_bytes = width * height * (_DECODING_DEEP if bits > 8 else _DECODING)
        return Header(width, height, bits, found.pages, _stamp(os.fstat(file.fileno())), decode_bytes)


def read_image(path: Path, bit_depth: int = 16, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as 8-bit RGB: first page, EXIF orientation applied, alpha over white.

    Parameters
    ----------
    bit_depth : bits of the lot's full scale; used for files with more than 8 bits per channel only.
    max_pixels : larger images are not decoded.

    Raises
    ------
    ImageError
        If the file is not an image, is damaged or too large, or holds values above ``bit_depth``.
    """
    with _reading(path) as file:
        header, image = _open_whole(file, max_pixels)
        if _bits(image) > 8:
            return _to_8_bits(_deep_pixels(file, header, image), bit_depth)
        image.load()
        orientation = _orientation(image)  # after loading: Pillow turns a TIFF by itself
        rgb = _to_rgb(image)
        return rgb if orientation == 1 else Image.fromarray(_upright(np.asarray(rgb), orientation))


def deepest_value(path: Path, max_pixels: int = MAX_PIXELS) -> int:
    """Return the largest value, without alpha, of an image with more than 8 bits; may raise ImageError."""
    with _reading(path) as file:
        return int(_colour(_deep_pixels(file, *_open_whole(file, max_pixels))).max())


def resize(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """Resize an RGB image to the model's size, ignoring aspect, as the authors do."""
    height, width = spec.size
    return image.resize((width, height), _RESAMPLING[spec.interpolation])


def normalise(pixels: Array, spec: PreprocessSpec) -> FloatArray:
    """Scale uint8 pixels (...,H,W,3) to the graph's input (...,3,H,W) float32."""
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def preprocess(image: Image.Image, spec: PreprocessSpec) -> FloatArray:
    """Return the graph input (3,H,W) of one RGB image."""
    return normalise(np.asarray(resize(image, spec)), spec)


def file_stamp(path: Path) -> tuple[int, int]:
    """Return modification time and size, which change when a file is written to; OSError if it is gone."""
    return _stamp(path.stat())


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_mtime_ns, found.st_size


# ---- opening ---------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[ImageInput]:
    """Open an image file, and turn whatever goes wrong while it is read into ImageError."""
    try:
        with _open_regular(path) as file:
            yield file
    except ImageError:
        raise
    except Exception as error:
        raise limit_reached(error) or image_error(error) from error


def _open_regular(path: Path) -> ImageInput:
    """Open a regular file; ImageError if it is anything else."""
    # Checked on the descriptor: the name may stand for something else a moment later.
    descriptor = os.open(path, _OPEN)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return ImageInput(descriptor)
    os.close(descriptor)
    raise ImageError("unreadable", "not a regular file")


def image_error(error: Exception) -> ImageError:
    """Turn any error of a decoder into an ImageError: on damaged files decoders raise anything at all."""
    if isinstance(error, MemoryError):
        return ImageError("too_large", "not enough memory to decode it")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too_large", str(error))  # a limit that this process has set in Pillow
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError("unreadable", str(reason)[:_REASON])


def _open_whole(file: ImageInput, max_pixels: int) -> tuple[FileHeader, ImageFile.ImageFile]:
    """Read the header of a file that is about to be decoded, and open it with Pillow."""
    header = read_file_header(file, max_pixels)
    check_pixels(file, header)
    return header, open_decoder(file, header)


def _bits(image: Image.Image) -> int:
    """Return 16 for more than 8 bits per channel, else 8; ImageError if the full scale is not known."""
    # Pillow's mode does not tell: 16-bit colour opens as 8-bit RGB.  The TIFF tag and the raw mode that the
    # decoder is given do.
    bits = image.tag_v2.get(_TIFF_BITS, (1,)) if isinstance(image, TiffImageFile) else (1,)
    most = max(bits) if isinstance(bits, tuple) else bits
    tile: list[tuple[object, ...]] = getattr(image, "tile", [])
    deep = most > 8 or image.mode.startswith("I;16") or any(";16" in str(part[3]) for part in tile[:1])
    if image.mode == "F" or most > 16 or (image.mode == "I" and not deep):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageError("unsupported", f"{kind} pixels have no known white; save the lot with 8 or 16 bits")
    return 16 if deep else 8


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the orientation, 1 (upright) to 8, of EXIF or else of XMP; 1 if the data is damaged.

    It is 1 for a TIFF, which Pillow has already turned.
    """
    if image.format == "TIFF":
        return 1
    value = exif_orientation(_exif(image))
    if value is None:
        value = _xmp_orientation(image)
    return int(value) if value in range(2, 9) else 1


def _exif(image: ImageFile.ImageFile) -> bytes:
    """Return the EXIF data of the file, or of the text in which ImageMagick keeps it."""
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:
        try:
            exif = bytes.fromhex("".join(str(image.info["Raw profile type exif"]).split("\n")[3:]))
        except ValueError:
            return b""
    return exif if isinstance(exif, bytes) else b""


def _xmp_orientation(image: ImageFile.ImageFile) -> int:
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or ""
    text = xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp)
    found = re.search(r'tiff:Orientation(="|>)([0-9])', text)
    return int(found[2]) if found else 1


def _upright(pixels: Array, orientation: int) -> Array:
    """Turn and mirror an image (H,W,...) according to its EXIF orientation."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = _MIRRORED[orientation]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any 8-bit mode to RGB, with transparent pixels laid over the background."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, BACKGROUND)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")


# ---- more than 8 bits ------------------------------------------------------------------------


def _deep_pixels(file: ImageInput, header: FileHeader, image: ImageFile.ImageFile) -> Array:
    """Read values at full depth, upright: uint16 (H,W), or (H,W,3 or 4) as blue, green, red, alpha."""
    image.load()  # finds a truncated file, which OpenCV would fill with black
    if image.mode[:2] not in ("I", "I;", "RG", "LA"):
        raise ImageError("unsupported", f"16-bit {image.mode} pixels; save the lot as 16-bit gray or RGB")
    pixels = _by_opencv(file, header)
    if pixels is None or pixels.dtype != np.uint16:
        raise ImageError("unsupported", "16-bit pixels in a form that cannot be read; save as 16-bit PNG")
    if sorted(pixels.shape[:2]) != sorted((header.width, header.height)):
        raise ImageError("unreadable", "OpenCV finds another size than the header")
    return _upright(pixels, _orientation(image))  # OpenCV turns a TIFF by itself


def _by_opencv(file: ImageInput, header: FileHeader) -> Array | None:
    """Read all channels at full depth, as stored.

    Reads the file into memory first, unless it is much larger than its pixels, as with many pages.
    """
    # OpenCV maps a file that it is given by name, and one that shrinks while it is mapped ends the process.
    # So that is left to files which would take too much memory otherwise.
    name = f"/proc/self/fd/{file.fileno()}"
    if os.fstat(file.fileno()).st_size > header.most_bytes:
        return cv2.imread(name, cv2.IMREAD_UNCHANGED)
    return cv2.imdecode(np.fromfile(name, np.uint8), cv2.IMREAD_UNCHANGED)


def _colour(pixels: Array) -> Array:
    """Return the channels without alpha."""
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def _to_8_bits(pixels: Array, bit_depth: int) -> Image.Image:
    """Scale by the lot's depth and lay transparent pixels over white; RGB."""
    full = 2**bit_depth - 1
    colour = _colour(pixels)
    if colour.max() > full:
        raise ImageError(
            "unsupported",
            f"holds the value {colour.max()}, above {bit_depth} bits; use --bit-depth auto or 16",
        )
    values = colour.astype(np.float32) * np.float32(255 / full)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / np.float32(65535)
        values = values * alpha + 255 * (1 - alpha)
    levels = np.round(values).astype(np.uint8)
    if levels.ndim == 3:
        return Image.fromarray(np.ascontiguousarray(levels[..., ::-1]))
    return Image.fromarray(levels).convert("RGB")
