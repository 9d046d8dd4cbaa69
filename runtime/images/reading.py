"""Read image files and prepare them for the ViT.

There is only one way from a file to the graph's input, for inference, export and benchmark alike:
:func:`read_image` then :func:`preprocess`.  Paper, section 4.1: the image is resized to the model's
size ignoring its aspect; the authors' code does this with Pillow, antialiased, in 8 bits.

Files with 9 to 16 bits per channel are scaled to 8 bits by one depth for the whole lot, never by an
image's own range: value * 255 / (2**depth - 1).  Pillow keeps only the high 8 bits of 16-bit colour, in
which 12-bit data is nearly black, so OpenCV reads their values at full depth.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageFile

from ..._numbers import row_blocks
from ..errors import MuscEdgeError
from ..limits import limit_reached
from ..remote import RemoteFile
from ..types import Array, FilePath, FloatArray, PreprocessSpec
from . import metadata
from .decoders import check_pixels, open_pillow, png_scale, read_samples
from .image_bytes import FileHeader, ImageInput
from .image_bytes import ImageError as ImageError  # noqa: PLC0414  # part of this module to all others
from .image_header import read_file_header
from .remote_blocks import Blocks
from .samples import deepest, to_rgb

MAX_PIXELS = 178_956_970
"""Default limit of an image's pixels: half a gigabyte of RGB, like Pillow's own limit."""

BACKGROUND = "white"
"""The colour behind transparent pixels."""

BIT_DEPTHS = (8, 10, 12, 14, 16)

_DECODING = {
    "pillow": (14, 0),
    "pillow webp": (22, 1),
    "pillow avif": (20, 1),
    "pillow heic": (20, 1),
    "pillow jpeg2000": (32, 1),
    "opencv": (18, 1),
    "opencv jpeg2000": (32, 1),
    "netpbm": (10, 2),
    "bmp": (24, 1),
    "jpegxl": (22, 1),
    "old jpeg": (14, 1),
}
"""Bytes for a pixel of an image while it is decoded, and how often its file is in memory; by decoder.

Measured by ``tests/measure/decode_memory.py``.
"""

_TURNING, _SHOWING, _SCALING = 4, 14, 24_000_000
"""Bytes for a pixel to turn an image, and to make 8-bit RGB of samples; bytes to scale some of its rows."""

_AT_ONCE = (1 << 18) - 1
"""Pixels whose values are looked up at once: for more OpenCV would start threads of its own."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPEN = (
    os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)  # without NONBLOCK, opening a pipe would wait for ever
_REASON = 300  # most characters of a reason, which a decoder may quote from the file


@dataclass(frozen=True)
class Header:
    """The header of an image file, as the lot's survey keeps it.

    ``width`` and ``height`` are as displayed; ``stamp`` shows whether the file has changed since;
    ``decode_bytes`` is the most memory that :func:`read_image` needs for it; ``white`` is the value that is
    white where a file of more than 8 bits says it, and the lot's depth does not matter; ``profile`` is a
    checksum of the colour profile, 0 without one.
    """

    width: int
    height: int
    bits: int
    pages: int
    stamp: tuple[int, int]
    decode_bytes: int
    white: int | None = None
    profile: int = 0

    @property
    def open_scale(self) -> bool:
        """Whether the lot's depth decides which value is white."""
        return self.bits > 8 and self.white is None


def read_header(path: FilePath, max_pixels: int = MAX_PIXELS) -> Header:
    """Read size, bits per channel and pages of an image file without decoding it.

    Raises
    ------
    ImageError
        If the file is not an image, has more than ``max_pixels``, or a kind of pixel that has no
        known range (float, 32-bit).
    """
    with _reading(path, whole=False) as file:
        found = read_file_header(file, max_pixels)
        width, height = found.width, found.height
        orientation = found.orientation
        if found.decoder == "pillow":
            image = open_pillow(file, found)
            (width, height), orientation = image.size, _orientation(image, found)
        if orientation in _TURNED:
            width, height = height, width
        memory = _decode_bytes(found, file.stamp[1], turned=orientation != 1)
        if isinstance(path, RemoteFile):
            memory += file.stamp[1]  # where it is fetched to may be memory
        return Header(width, height, found.bits, found.pages, file.stamp, memory, found.white, found.profile)


def _decode_bytes(header: FileHeader, file_bytes: int, turned: bool) -> int:
    """Return the most memory that reading an image takes."""
    pixels = header.width * header.height
    turning = _TURNING * pixels * turned
    if header.decoder == "tiff":
        scaling = min(72 * pixels, _SCALING)
        return header.pixel_bytes + _SHOWING * pixels + scaling + header.scratch + turning
    each, times = _DECODING.get(f"{header.decoder} {header.kind}") or _DECODING[header.decoder]
    return each * pixels + times * min(file_bytes, header.most_bytes) + turning


def read_image(
    path: FilePath, bit_depth: int = 16, max_pixels: int = MAX_PIXELS, stamp: tuple[int, int] | None = None
) -> Image.Image:
    """Read an image file as 8-bit RGB: first page, EXIF orientation applied, alpha over white.

    Alpha that is 0 everywhere is no alpha.

    Parameters
    ----------
    bit_depth : bits of the lot's full scale; used for files with more than 8 bits per channel only, and not
        for those that say themselves what white is.
    max_pixels : larger images are not decoded.
    stamp : that of the file as it was seen before.

    Raises
    ------
    ImageError
        If the file is not an image, is damaged or too large, holds values above ``bit_depth``, or has
        another ``stamp`` now.
    """
    with _reading(path) as file:
        if stamp not in (None, file.stamp):
            raise ImageError("unreadable", "the file changed while the lot was being read")
        header = read_file_header(file, max_pixels)
        check_pixels(file, header)
        if header.decoder != "pillow":
            rgb, orientation = to_rgb(read_samples(file, header), bit_depth), header.orientation
        else:
            image = open_pillow(file, header)
            image.load()
            orientation = _orientation(image, header)
            rgb = _seen(file, header, image)
        return rgb.transpose(_TURNS[orientation]) if orientation != 1 else rgb


def deepest_value(path: FilePath, max_pixels: int = MAX_PIXELS) -> int:
    """Return the largest value, without alpha, of an image whose scale is the lot's; may raise ImageError."""
    with _reading(path) as file:
        header = read_file_header(file, max_pixels)
        return deepest(read_samples(file, header)) if header.open_scale else 0


def resize(
    image: Image.Image, spec: PreprocessSpec, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Resize an RGB image, or a ``box`` of it, to the model's size, ignoring aspect, as the authors do."""
    height, width = spec.size
    return image.resize((width, height), _RESAMPLING[spec.interpolation], box)


def normalise(pixels: Array, spec: PreprocessSpec) -> FloatArray:
    """Scale uint8 pixels (...,H,W,3) to the graph's input (...,3,H,W) float32."""
    *many, height, width, channels = pixels.shape
    scaled = np.empty((*many, channels, height, width), np.float32)
    images, targets = pixels.reshape(-1, height, width, channels), scaled.reshape(-1, channels, height, width)
    tables = _tables(tuple(spec.mean), tuple(spec.std))
    # Looked up, in few calls: on many threads at once each array of a step of the formula costs more than the
    # step, and each call waits for its turn in Python.
    for image, planes in zip(images, targets, strict=True):
        for table, channel, plane in zip(tables, cv2.split(image), planes, strict=True):
            for rows in row_blocks(height, width, _AT_ONCE):
                cv2.LUT(channel[rows], table, dst=plane[rows])
    return scaled


@lru_cache(16)
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> FloatArray:
    """What each of the 256 values becomes in each channel (3,256)."""
    values = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    return np.ascontiguousarray(((values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)).T)


def preprocess(image: Image.Image, spec: PreprocessSpec) -> FloatArray:
    """Return the graph input (3,H,W) of one RGB image."""
    return normalise(np.asarray(resize(image, spec)), spec)


def file_stamp(path: FilePath) -> tuple[int, int]:
    """Return modification time and size, which change when a file is written to; OSError if it is gone.

    At a URL another number has the place of the time.
    """
    return path.stamp() if isinstance(path, RemoteFile) else _stamp(path.stat())


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_mtime_ns, found.st_size


# ---- opening ---------------------------------------------------------------------------------


@contextmanager
def _reading(path: FilePath, whole: bool = True) -> Iterator[ImageInput]:
    """Open an image file, and turn whatever goes wrong while it is read into ImageError.

    A file at a URL is fetched first, unless not the ``whole`` of it is looked at.
    """
    try:
        with _open_remote(path, whole) if isinstance(path, RemoteFile) else _open_regular(path) as file:
            yield file
    except (ImageError, MuscEdgeError):
        raise
    except Exception as error:
        raise limit_reached(error) or image_error(error) from error


def _open_regular(path: Path) -> ImageInput:
    """Open a regular file; ImageError if it is anything else."""
    # Checked on the descriptor: the name may stand for something else a moment later.
    descriptor = os.open(path, _OPEN)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        return ImageInput(io.FileIO(descriptor, "rb"), _stamp(found))
    os.close(descriptor)
    raise ImageError("unreadable", "not a regular file")


def _open_remote(file: RemoteFile, whole: bool) -> ImageInput:
    """Open a file at a URL; ImageError if it is too large to be fetched."""
    if whole:
        descriptor, stamp = file.fetch()
        return ImageInput(io.FileIO(descriptor, "rb"), stamp)
    stamp = file.stamp()
    if reason := file.why_too_large(stamp[1]):
        raise ImageError("too_large", reason)
    return ImageInput(Blocks(file, stamp[1]), stamp)


def image_error(error: Exception) -> ImageError:
    """Turn any error of a decoder into an ImageError: on damaged files decoders raise anything at all."""
    if isinstance(error, MemoryError):
        return ImageError("too_large", "not enough memory to decode it")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too_large", str(error))  # a limit that this process has set in Pillow
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ImageError("unreadable", str(reason)[:_REASON])


def _orientation(image: ImageFile.ImageFile, header: FileHeader) -> int:
    """Return the orientation, 1 (upright) to 8; that of an AVIF is told by its decoder."""
    if header.kind != "avif":
        return header.orientation
    exif, xmp = (image.info.get(key, b"") for key in ("exif", "xmp"))
    return metadata.orientation(exif, xmp)


def _seen(file: ImageInput, header: FileHeader, image: Image.Image) -> Image.Image:
    """Convert what Pillow has decoded to RGB, with what it leaves undone for some formats."""
    if header.kind == "png" and image.mode == "L" and "transparency" in image.info:
        image.info["transparency"] *= png_scale(file)  # which Pillow leaves as it is stored
    if header.kind == "jpeg" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's, who store ink the other way round
    if header.kind == "tiff" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return to_rgb(read_samples(file, header), 8)  # Pillow makes black of colours with no alpha
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any 8-bit mode to RGB, with transparent pixels laid over the background."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() == (0, 0):  # programs leave it so, and a picture that shows nothing is none
            return rgba.convert("RGB")
        canvas = Image.new("RGB", rgba.size, BACKGROUND)
        canvas.paste(rgba, mask=alpha)
        return canvas
    return image.convert("RGB")
