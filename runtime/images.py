"""Read image files and prepare them for the ViT, in threads that run ahead of it.

There is one way from a file to the graph's input, used by inference, export and benchmark alike:
:func:`read_image` then :func:`preprocess`.  Paper, section 4.1: the image is resized to the model's
size ignoring its aspect; the authors' code does this with Pillow, antialiased, in 8 bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from .types import FloatArray, LotImage, PreprocessSpec, SkippedImage

MAX_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels; above it Pillow itself refuses to open a file."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TIFF_BITS = 258  # tag BitsPerSample
_BACKGROUND = (255, 255, 255)


class ImageError(Exception):
    """Why one image cannot be scored; ``status`` is the word for scores.csv."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def read_image(path: Path) -> Image.Image:
    """Read an image file as 8-bit RGB: first page, EXIF orientation applied, alpha over white.

    Raises
    ------
    ImageError
        If the file is not an image, is damaged, is larger than MAX_PIXELS, or has more than 8 bits
        per channel (which Pillow would clip).
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise ImageError("unreadable", "not a regular file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    "too_large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS}"
                )
            _refuse_deep(image)
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", f"{error}; the limit is {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise ImageError("unreadable", "the file is empty" if size == 0 else "not an image file") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError("unreadable", reason) from error


def _refuse_deep(image: Image.Image) -> None:
    """Raise ImageError for images with more than 8 bits per channel."""
    bits = image.tag_v2.get(_TIFF_BITS, (8,)) if isinstance(image, TiffImageFile) else (8,)
    tile: list[tuple[object, ...]] = getattr(image, "tile", [])
    deep_png = image.format == "PNG" and any(";16" in str(part[3]) for part in tile)
    if image.mode.startswith(("I", "F")) or max(bits) > 8 or deep_png:
        raise ImageError(
            "unsupported", "more than 8 bits per channel; convert the lot to 8 bits with one scale"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any 8-bit mode to RGB; transparent pixels are laid over white."""
    if image.mode == "RGB":
        image.load()
        return image
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, _BACKGROUND)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")


def resize(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """Resize an RGB image to the model's size, ignoring aspect, as the authors do."""
    height, width = spec.size
    return image.resize((width, height), _RESAMPLING[spec.interpolation])


def normalise(pixels: np.ndarray, spec: PreprocessSpec) -> FloatArray:
    """Scale uint8 pixels (...,H,W,3) to the graph's input (...,3,H,W) float32."""
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def preprocess(image: Image.Image, spec: PreprocessSpec) -> FloatArray:
    """Graph input (3,H,W) of one RGB image."""
    return normalise(np.asarray(resize(image, spec)), spec)


def decode_ahead(
    images: Sequence[LotImage], spec: PreprocessSpec, threads: int, ahead: int
) -> Generator[tuple[LotImage, FloatArray | SkippedImage], None, None]:
    """Yield every image with its graph input (3,H,W), or with why it is skipped, in the lot's order.

    ``threads`` decode at once, at most ``ahead`` images before the consumer, which bounds memory.
    """

    def decode(image: LotImage) -> FloatArray | SkippedImage:
        try:
            return preprocess(read_image(image.path), spec)
        except ImageError as problem:
            return SkippedImage(image.name, problem.status, str(problem))

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[LotImage, Future[FloatArray | SkippedImage]]] = deque()
        try:
            for image in images:
                waiting.append((image, pool.submit(decode, image)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
