"""Survey every file of a lot before any is scored: which can be read, at which depth and sizes.

Only headers are read, except in files with more than 8 bits per channel, whose largest value decides
the depth of the lot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

import numpy as np
from PIL import Image

from ..._numbers import counted
from ..errors import LotError
from ..memory import size_text
from ..parallel import Item, Result, Room, in_order
from ..remote import LANES, RemoteFile
from ..timing import UNTIMED, StageTimer
from ..types import FloatArray, LotImage, PreprocessSpec, Progress, SkippedImage, no_progress
from .kinds import refusal
from .listing import Listing
from .reading import (
    BIT_DEPTHS,
    MAX_PIXELS,
    Header,
    ImageError,
    deepest_value,
    image_error,
    preprocess,
    read_header,
    read_image,
    resize,
)
from .roi import RoiOption

PATIENCE = 2.0
"""Seconds that a decoder gets to finish when its image is not wanted any more."""
Stream = Generator[tuple[LotImage, FloatArray | ImageError], None, None]
"""Images in the lot's order, each with its input for the graph (3,H,W) or why it could not be read."""


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
    roi : (x, y, width, height), str or path, optional
        What of the images is scored: a rectangle in pixels of the image as it is shown; the file of a mask,
        light inside, of the images' size; or a folder with a mask under each image's name.  All of it by
        default (docs/small-defects.md).
    mask_background : {"auto"}, optional
        Leave out a plain background behind the product, where it is clear to tell.
    """

    bit_depth: int | None = None
    max_pixels: int = MAX_PIXELS
    roi: RoiOption | None = None
    mask_background: str | None = None


DEFAULT_READING = ReadOptions()


@dataclass(frozen=True)
class Survey:
    """The readable and the skipped files of a lot; ``bit_depth`` is 8 unless some have more.

    ``listing`` is there if the lot's folder was searched, and says what was left out.  ``roi`` and
    ``mask_background`` are those of the ReadOptions.
    """

    images: tuple[LotImage, ...]
    headers: dict[str, Header]
    skipped: tuple[SkippedImage, ...]
    bit_depth: int
    max_pixels: int
    listing: Listing | None = None
    roi: RoiOption | None = None
    mask_background: str | None = None

    @property
    def in_region(self) -> bool:
        """Whether a part of the images alone is looked at."""
        return self.roi is not None or bool(self.mask_background)

    def without_region(self) -> Survey:
        """Return the same files with all of their patches."""
        return replace(self, roi=None, mask_background=None)

    def read(self, image: LotImage) -> Image.Image:
        """Read an image as 8-bit RGB; ImageError if it cannot be read or its file has changed since."""
        return read_image(image.path, self.bit_depth, self.max_pixels, self.headers[image.name].stamp)

    def notes(self) -> list[str]:
        """Return remarks for the user on several pages, and on depths, sizes or aspects that differ."""
        headers = list(self.headers.values())
        paged = sum(h.pages > 1 for h in headers)
        deep = sum(h.open_scale for h in headers)
        scaled = sum(h.bits > 8 and not h.open_scale for h in headers)
        profiles = Counter(h.profile for h in headers)
        notes = []
        if paged:
            notes.append(f"{_have(paged)} several pages; the first page of each is scored")
        if deep:
            notes.append(f"{_have(deep)} more than 8 bits per channel; read as {self.bit_depth}-bit data")
        if scaled:
            says = "says" if scaled == 1 else "say"
            notes.append(f"{counted(scaled, 'file')} {says} which value is white: read on that scale")
        if deep and (rest := len(headers) - deep - scaled):
            notes.append(f"{_have(rest)} 8 bits, on another scale than those with more ({deep})")
        if len(profiles) > 1:
            notes.append(_profile_note(profiles))
        notes += _size_notes(Counter((h.width, h.height) for h in headers))
        return notes + (self.listing.notes() if self.listing else [])


def survey_lot(
    images: Sequence[LotImage],
    options: ReadOptions,
    threads: int,
    progress: Progress = no_progress,
    room: int | None = None,
) -> Survey:
    """Read the headers of ``images`` and settle the lot's bit depth.

    ``room`` is the memory in bytes for the images that have to be decoded for that; None for without limit.

    Raises
    ------
    LotError
        If one of them needs more.
    """
    headers: dict[str, Header] = {}
    skipped: list[SkippedImage] = []
    maximum = 255
    decoding = Room(room)

    def look(image: LotImage) -> tuple[Header, int]:
        if refused := refusal(image.name):
            raise ImageError(*refused)
        header = read_header(image.path, options.max_pixels)
        if not header.open_scale or options.bit_depth is not None:
            return header, 0
        if room is not None and header.decode_bytes > room:
            raise LotError(
                f"{size_text(room)} of the memory budget are left, too little: {needs(image, header)}"
            )
        with decoding.taken(header.decode_bytes):
            return header, deepest_value(image.path, options.max_pixels)

    for done, (image, found) in enumerate(run_ahead(images, look, lanes(images, threads), ahead=64), 1):
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
    listing = images if isinstance(images, Listing) else None
    return Survey(
        readable,
        headers,
        tuple(skipped),
        depth,
        options.max_pixels,
        listing,
        options.roi,
        options.mask_background,
    )


def decode_ahead(
    survey: Survey,
    spec: PreprocessSpec,
    threads: int,
    ahead: int,
    first: int = 0,
    timer: StageTimer = UNTIMED,
    room: int | None = None,
    aside: Callable[[LotImage, Image.Image], None] | None = None,
) -> Stream:
    """Yield each image from ``first`` on with its graph input (3,H,W), or the ImageError of reading it.

    ``room`` is the memory in bytes for what is decoded at once: fewer threads work on large images.
    ``aside`` is given each picture before it is resized.
    """
    decoding = Room(room)

    def decode(image: LotImage) -> FloatArray:
        with decoding.taken(survey.headers[image.name].decode_bytes):
            with timer.work("decode"):
                pixels = survey.read(image)
            try:
                with timer.work("resize"):
                    if aside:
                        aside(image, pixels)
                    return preprocess(pixels, spec)
            except MemoryError as error:
                raise image_error(error) from error

    return run_ahead(survey.images[first:], decode, lanes(survey.images, threads), ahead)


def lanes(images: Sequence[LotImage], threads: int) -> int:
    """Return how many files are read at once by so many threads' work: more where servers are waited for."""
    return max(threads, LANES) if images and isinstance(images[0].path, RemoteFile) else threads


def gray(survey: Survey, image: LotImage, spec: PreprocessSpec) -> FloatArray | None:
    """Read an image once more, as gray values (H,W) at the model's size; None if that is not possible now."""
    try:
        pixels = np.asarray(resize(survey.read(image), spec))
        return np.asarray(pixels.mean(axis=-1, dtype=np.float32))
    except ImageError:
        return None


def decoding_bytes(survey: Survey, lanes: int) -> int:
    """Return the bytes that the largest images of a lot take, ``lanes`` of which are decoded at once."""
    return sum(nlargest(lanes, (header.decode_bytes for header in survey.headers.values())))


def needs(image: LotImage, header: Header) -> str:
    """Say what the largest image of a lot needs, and what to do about it."""
    return (
        f"{image.name} of {header.width} x {header.height} pixels needs {size_text(header.decode_bytes)} to "
        f"be decoded. Allow more by --memory-budget, or leave such images out by --max-pixels "
        f"{header.width * header.height - 1}."
    )


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


def _have(files: int) -> str:
    return f"{counted(files, 'file')} {'has' if files == 1 else 'have'}"


def _profile_note(profiles: Counter[int]) -> str:
    """A remark on colour profiles that differ, counted by their checksums; 0 for none."""
    without = f", and {counted(profiles[0], 'file')} none" if 0 in profiles else ""
    return (
        f"the files have {len(profiles) - (0 in profiles)} different colour profiles{without}: profiles are "
        "not applied, so that the same colour may have different values"
    )


def _size_notes(sizes: Counter[tuple[int, int]]) -> list[str]:
    """Return a remark if sizes or aspects differ, since the resize to one size distorts them differently."""
    if len(sizes) < 2:
        return []
    aspects = [width / height for width, height in sizes]
    most, count = sizes.most_common(1)[0]
    note = f"images have {len(sizes)} sizes, most often {most[0]} x {most[1]} ({counted(count, 'image')})"
    if max(aspects) > 1.05 * min(aspects):
        note += f", and aspects from {min(aspects):.3g} to {max(aspects):.3g}, which the resize distorts"
    return [note]
