"""Read image files and prepare them for the ViT.

There is one way from a file to the graph's input, used by inference, export and benchmark alike:
:func:`read_image` then :func:`preprocess`.  Paper, section 4.1: the image is resized to the model's
size ignoring its aspect; the authors' code does this with Pillow, antialiased, in 8 bits.

Files with 9 to 16 bits per channel are scaled to 8 bits by one depth for the whole lot, never by an
image's own range: value * 255 / (2**depth - 1).  Pillow reads 16-bit colour as its high 8 bits, in
which 12-bit data is nearly black, so their values are read at full depth.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.TiffImagePlugin import TiffImageFile

from .types import Array, FloatArray, PreprocessSpec

MAX_PIXELS = 178_956_970
"""Largest image that is decoded unless more is asked for: half a gigabyte of RGB, as Pillow's own limit."""

BACKGROUND = "white"
"""What shows through transparent pixels."""

BIT_DEPTHS = (8, 10, 12, 14, 16)

# Our own limit is checked before anything is decoded; Pillow's would refuse what a user has allowed.
Image.MAX_IMAGE_PIXELS = None

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# EXIF orientation -> direction of rows and columns, once those are swapped
_MIRRORED = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
_TIFF_BITS = 258  # tag BitsPerSample


class ImageError(Exception):
    """Why one image cannot be scored; ``status`` is the word for scores.csv."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded.

    ``width`` and ``height`` are as displayed; ``stamp`` tells whether the file changed since.
    """

    width: int
    height: int
    bits: int
    pages: int
    stamp: tuple[int, int]


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> Header:
    """Size, bits per channel and pages of an image file, which is not decoded.

    Raises
    ------
    ImageError
        If the file is not an image, has more than ``max_pixels``, or a kind of pixel that has no
        known range (float, 32-bit).
    """
    with _Reading(path) as image:
        if image.width * image.height > max_pixels:
            raise ImageError("too_large", f"{image.width} x {image.height} pixels; the limit is {max_pixels}")
        width, height = image.size
        # Pillow gives a TIFF's size as displayed, and would decode a whole PNG to look for EXIF data
        # behind the pixels: take what stands before them.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        if known and _orientation(image) in _TURNED:
            width, height = height, width
        return Header(width, height, _bits(image), int(getattr(image, "n_frames", 1)), file_stamp(path))


def read_image(path: Path, bit_depth: int = 16, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as 8-bit RGB: first page, EXIF orientation applied, alpha over white.

    Parameters
    ----------
    bit_depth : bits of the lot's full scale; used for files with more than 8 bits per channel only.
    max_pixels : images with more are not decoded.

    Raises
    ------
    ImageError
        If the file is not an image, is damaged or too large, or holds values above ``bit_depth``.
    """
    header = read_header(path, max_pixels)
    with _Reading(path) as image:
        if header.bits > 8:
            return _to_8_bits(_deep_pixels(path, image), bit_depth)
        image.load()
        orientation = _orientation(image)  # after loading: Pillow turns a TIFF by itself
        rgb = _to_rgb(image)
        return rgb if orientation == 1 else Image.fromarray(_upright(np.asarray(rgb), orientation))


def deepest_value(path: Path) -> int:
    """Largest value, alpha left out, in an image with more than 8 bits per channel; may raise ImageError."""
    with _Reading(path) as image:
        return int(_colour(_deep_pixels(path, image)).max())


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
    """Graph input (3,H,W) of one RGB image."""
    return normalise(np.asarray(resize(image, spec)), spec)


def file_stamp(path: Path) -> tuple[int, int]:
    """Modification time and size, which change when a file is written to; OSError if it is gone."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


# ---- opening ---------------------------------------------------------------------------------


class _Reading:
    """Opens an image file, and turns whatever goes wrong while it is read into ImageError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image: Image.Image | None = None

    def __enter__(self) -> Image.Image:
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):  # opening a pipe would wait for ever
                raise ImageError("unreadable", "not a regular file")
            self._image = Image.open(self._path)
        except Exception as error:
            raise self._explain(error) from error
        return self._image

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._image is not None:
            self._image.__exit__()  # closes the file; close() would also free the pixels
        if isinstance(error, Exception) and not isinstance(error, ImageError):
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ImageError:
        """Decoders raise anything at all on damaged files, so nothing is left out here."""
        if isinstance(error, ImageError):
            return error
        if isinstance(error, UnidentifiedImageError):
            empty = self._path.stat().st_size == 0
            return ImageError("unreadable", "the file is empty" if empty else "not an image file")
        if isinstance(error, MemoryError):
            return ImageError("too_large", "not enough memory to decode it")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ImageError("unreadable", reason)


def _bits(image: Image.Image) -> int:
    """Bits per channel, 8 or less or 16; ImageError for pixels whose full scale is not known."""
    bits = image.tag_v2.get(_TIFF_BITS, (1,)) if isinstance(image, TiffImageFile) else (1,)
    most = max(bits) if isinstance(bits, tuple) else bits
    tile: list[tuple[object, ...]] = getattr(image, "tile", [])
    deep = most > 8 or image.mode.startswith("I;16") or any(";16" in str(part[3]) for part in tile)
    if image.mode == "F" or most > 16 or (image.mode == "I" and not deep):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageError("unsupported", f"{kind} pixels have no known white; save the lot with 8 or 16 bits")
    return 16 if deep else 8


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; damaged EXIF data says nothing."""
    try:
        value = image.getexif().get(ExifTag.Orientation, 1)
    except Exception:  # Pillow's parser raises anything at all on damaged data
        return 1
    return value if value in range(2, 9) else 1


def _upright(pixels: Array, orientation: int) -> Array:
    """Turn and mirror an image (H,W,...) as its EXIF orientation says."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = _MIRRORED[orientation]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any 8-bit mode to RGB; transparent pixels are laid over the background."""
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


def _deep_pixels(path: Path, image: Image.Image) -> Array:
    """Values at full depth, upright: uint16 (H,W), or (H,W,3 or 4) as blue, green, red, alpha."""
    orientation = 1 if image.format == "TIFF" else _orientation(image)  # OpenCV turns a TIFF by itself
    image.load()  # finds a truncated file, which OpenCV would fill with black
    if image.mode[:2] not in ("I", "I;", "RG", "LA"):
        raise ImageError("unsupported", f"16-bit {image.mode} pixels; save the lot as 16-bit gray or RGB")
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ImageError("unsupported", "16-bit pixels in a form that cannot be read; save as 16-bit PNG")
    return _upright(pixels, orientation)


def _colour(pixels: Array) -> Array:
    """The channels without alpha."""
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
