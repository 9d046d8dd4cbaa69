"""Survey every file of a lot before any is scored: which can be read, at which depth and sizes.

Only headers are read, except in files with more than 8 bits per channel, whose largest value decides
the depth of the lot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from ..parallel import Item, Result, in_order
from ..timing import UNTIMED, StageTimer
from ..types import FloatArray, LotImage, PreprocessSpec, Progress, SkippedImage, no_progress
from .reading import (
    BIT_DEPTHS,
    MAX_PIXELS,
    Header,
    ImageError,
    deepest_value,
    file_stamp,
    image_error,
    preprocess,
    read_header,
    read_image,
)

PATIENCE = 2.0
"""Seconds that a decoder gets to finish when its image is not wanted any more."""


@dataclass(frozen=True)
class ReadOptions:
    """How files become images.

    Attributes
    ----------
    bit_depth : {8, 10, 12, 14, 16}, optional
        Full scale of files with more than 8 bits per channel; by default the smallest that holds the largest
        value in the lot, so that all images of a lot are on one scale.
    max_pixels : int, default 178956970
        Images with more pixels are skipped without being decoded.
    """

    bit_depth: int | None = None
    max_pixels: int = MAX_PIXELS


DEFAULT_READING = ReadOptions()


@dataclass(frozen=True)
class Survey:
    """The readable and the skipped files of a lot; ``bit_depth`` is 8 unless some have more."""

    images: tuple[LotImage, ...]
    headers: dict[str, Header]
    skipped: tuple[SkippedImage, ...]
    bit_depth: int
    max_pixels: int

    def read(self, image: LotImage) -> Image.Image:
        """Read an image as 8-bit RGB; ImageError if it cannot be read or its file has changed since."""
        header = self.headers[image.name]
        try:
            same = file_stamp(image.path) == header.stamp
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
        if not same:
            raise ImageError("unreadable", "the file changed while the lot was being read")
        return read_image(image.path, self.bit_depth, self.max_pixels)

    def notes(self) -> list[str]:
        """Return remarks for the user on several pages, and on depths, sizes or aspects that differ."""
        headers = list(self.headers.values())
        paged = sum(h.pages > 1 for h in headers)
        deep = sum(h.open_scale for h in headers)
        scaled = sum(h.bits > 8 and not h.open_scale for h in headers)
        profiles = Counter(h.profile for h in headers)
        notes = []
        if paged:
            notes.append(f"{paged} files have several pages; the first page of each is scored")
        if deep:
            notes.append(f"{deep} files have more than 8 bits per channel; read as {self.bit_depth}-bit data")
        if scaled:
            notes.append(f"{scaled} files say themselves which value is white, and are read on that scale")
        if deep and (rest := len(headers) - deep - scaled):
            notes.append(f"{rest} files have 8 bits: they are on another scale than the {deep} others")
        if len(profiles) > 1:
            without = f", and {profiles[0]} files none" if 0 in profiles else ""
            notes.append(
                f"the files have {len(profiles) - (0 in profiles)} different colour profiles{without}: "
                "profiles are not applied, so that the same colour may have different values"
            )
        return notes + _size_notes(Counter((h.width, h.height) for h in headers))


def survey_lot(
    images: Sequence[LotImage],
    options: ReadOptions,
    threads: int,
    progress: Progress = no_progress,
) -> Survey:
    """Read the headers of ``images`` and settle the lot's bit depth."""
    headers: dict[str, Header] = {}
    skipped: list[SkippedImage] = []
    maximum = 255

    def look(image: LotImage) -> tuple[Header, int]:
        header = read_header(image.path, options.max_pixels)
        wanted = header.open_scale and options.bit_depth is None
        return header, deepest_value(image.path, options.max_pixels) if wanted else 0

    for done, (image, found) in enumerate(run_ahead(images, look, threads, ahead=64), 1):
        if isinstance(found, ImageError):
            skipped.append(SkippedImage(image.name, found.status, str(found)))
        else:
            headers[image.name], value = found
            maximum = max(maximum, value)
        progress("survey", done, len(images), "files")
    # The smallest usual depth that holds the lot's maximum: 12-bit cameras write 16-bit files.
    deep = [header for header in headers.values() if header.bits > 8]
    if not any(header.open_scale for header in deep):  # what the files say
        maximum = max((header.white or 0 for header in deep), default=maximum)
    wanted = options.bit_depth if deep else 8
    depth = wanted or next(depth for depth in BIT_DEPTHS if maximum < 2**depth)
    readable = tuple(image for image in images if image.name in headers)
    return Survey(readable, headers, tuple(skipped), depth, options.max_pixels)


def decode_ahead(
    survey: Survey,
    spec: PreprocessSpec,
    threads: int,
    ahead: int,
    first: int = 0,
    timer: StageTimer = UNTIMED,
) -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
    """Yield each image from ``first`` on with its graph input (3,H,W), or the ImageError of reading it."""

    def decode(image: LotImage) -> FloatArray:
        with timer.work("decode"):
            pixels = survey.read(image)
        try:
            with timer.work("resize"):
                return preprocess(pixels, spec)
        except MemoryError as error:
            raise image_error(error) from error

    return run_ahead(survey.images[first:], decode, threads, ahead)


def run_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], threads: int, ahead: int
) -> Generator[tuple[Item, Result | ImageError], None, None]:
    """Yield each item with ``work(item)`` or the ImageError that it raised, in order.

    ``threads`` work at once, at most ``ahead`` items before the consumer (``parallel.in_order``).  A decoder
    that hangs does not keep the consumer from stopping.
    """

    def attempt(item: Item) -> Result | ImageError:
        try:
            return work(item)
        except ImageError as error:
            return error

    return in_order(items, attempt, threads, ahead, name="images", patience=PATIENCE)


def _size_notes(sizes: Counter[tuple[int, int]]) -> list[str]:
    """Return a remark if sizes or aspects differ, since the resize to one size distorts them differently."""
    if len(sizes) < 2:
        return []
    aspects = [width / height for width, height in sizes]
    most, count = sizes.most_common(1)[0]
    note = f"images have {len(sizes)} sizes, most often {most[0]} x {most[1]} ({count} images)"
    if max(aspects) > 1.05 * min(aspects):
        note += f", and aspects from {min(aspects):.3g} to {max(aspects):.3g}, which the resize distorts"
    return [note]
