"""Write one anomaly map and one overlay per image, with several threads, a few images at a time.

The scores are the result and these files are optional: one that cannot be made is reported and left out.
Only a disk that is full or fails ends the run.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..._files import make_folders
from ..._numbers import row_blocks
from ..errors import DeviceError, OutputError
from ..images.reading import Header
from ..images.survey import PATIENCE, Survey
from ..limits import limit_reached
from ..memory import process_memory, release_memory, size_text
from ..parallel import Room, in_order
from ..scoring.anomaly_map import map_size, upsample
from ..types import Array, FloatArray, LotImage, Progress, no_progress
from .heatmap import Scale, legend, legend_height, overlay
from .lettering import shown
from .lot_scores import LotScores
from .tables import CSV_FORMS

MAP_FORMATS = {"npy": ".npy", "tiff": ".tiff", "png8": ".png", "png16": ".png"}
MAP_KINDS = ("grid", "pixel", "original", "none")
MAPS, OVERLAYS = "maps", "overlays"
TOP, MOST_TOP = 8, 400
"""The most suspicious images on a contact sheet: by default, and at most, in a picture of 20,000 pixels."""
_SUFFIXES = {*MAP_FORMATS.values(), ".jpg"}
_AHEAD = 8
_DRAWING = 14
"""Bytes for a pixel of an image while its overlay, or its map at original size, is made and encoded."""
_STRIP = 1 << 17
"""Pixels of an overlay or a map that are coloured at once, at 80 bytes each, far more than the image has."""
_STRIP_BYTES = 80 * _STRIP + (1 << 20)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_JPEG_SIDE = 65_500  # pixels; libjpeg's limit
_LONGEST = 255 - len(".tiff")  # bytes of a file name, on every common file system
JPEG_QUALITY = 90


@dataclass(frozen=True)
class OutputOptions:
    """The files per image that are written.

    Attributes
    ----------
    maps : {"grid", "pixel", "original", "none"}
        Maps of shape (Gh, Gw), at the model's size (H, W), at the image's own size, or no maps.
    map_format : {"npy", "tiff", "png8", "png16"}
        Distances in float32 (npy, tiff), or one scale for the whole lot (png8, png16).
    overlays : bool, default False
        Also each image with its heatmap over it, as JPEG.
    threads : int, default 1
        Threads that write them.
    csv : {"plain", "excel"}
        The form of scores.csv: excel as spreadsheets open it well.
    top : int, default 8
        The most suspicious images on the contact sheet.

    Raises
    ------
    OutputError
        If one of them is none of the above.
    """

    maps: str = "grid"
    map_format: str = "npy"
    overlays: bool = False
    threads: int = 1
    csv: str = "plain"
    top: int = TOP

    def __post_init__(self) -> None:
        for name, value, known in (
            ("maps", self.maps, MAP_KINDS),
            ("map_format", self.map_format, MAP_FORMATS),
            ("csv", self.csv, CSV_FORMS),
        ):
            if value not in known:
                raise OutputError(f"{name} {value!r}: expected one of {', '.join(known)}.")
        if not 1 <= self.top <= MOST_TOP:
            raise OutputError(f"top {self.top!r}: expected 1 to {MOST_TOP}.")


NO_FILES = OutputOptions(maps="none")
"""No files per image, the contact sheet alone."""


@dataclass(frozen=True)
class Missing:
    """An optional file that could not be made."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"no {self.what}: {self.reason}"


@dataclass(frozen=True)
class Written:
    """The files that were written.

    ``maps`` has the file of each image's map, relative to the output folder, ``missing`` the files that an
    image lacks, ``problems`` the warnings for the lot.
    """

    maps: dict[str, str]
    missing: dict[str, list[Missing]]
    problems: tuple[str, ...]


def write_image_files(
    result: LotScores, folder: Path, options: OutputOptions, progress: Progress = no_progress
) -> Written:
    """Write maps and overlays of every image of a lot.

    At most a few maps in pixels exist at a time, whatever the size of the lot.

    Raises
    ------
    OSError
        If the disk is full or fails.
    """
    names = file_names(result.images)
    suffix = MAP_FORMATS[options.map_format]
    drawing = Drawing(
        result.survey,
        map_size(result.maps.shape, result.run.bundle.manifest),
        options,
        folder,
        result.heat,
        map_scale(result.maps),
    )
    threads, room, problems = writing_room(result, options)

    def write(row: int) -> list[Missing]:
        image = result.images[row]
        with room.taken(writing_bytes(result.survey.headers[image.name], options)):
            return drawing.write(image, result.maps[row], names[image.name], _caption(result, row))

    maps, missing = {}, {}
    if options.maps != "none" or options.overlays:
        rows = range(len(result.images))
        for row, failed in in_order(rows, write, threads, _AHEAD, name="images", patience=PATIENCE):
            name = result.images[row].name
            if options.maps != "none" and "map" not in [each.what for each in failed]:
                maps[name] = f"{MAPS}/{names[name]}{suffix}"
            if failed:
                missing[name] = failed
            progress("write", row + 1, len(result.images), "images")
    return Written(maps, missing, problems)


@dataclass(frozen=True)
class Drawing:
    """What the files of every image of a lot are made with.

    ``size`` (H, W) is that of maps in pixels, ``scale`` that of the overlays' colours, ``codes`` that of PNG
    maps.
    """

    survey: Survey
    size: tuple[int, int]
    options: OutputOptions
    folder: Path
    scale: Scale
    codes: Scale

    def write(self, image: LotImage, grid: FloatArray, name: str, caption: str) -> list[Missing]:
        """Write the files of one image with the map ``grid`` (Gh,Gw); returns those that were not made.

        ``name`` is that of the files, ``caption`` the line below the overlay.
        """
        options, failed = self.options, list[Missing]()
        if options.maps != "none":
            suffix = MAP_FORMATS[options.map_format]
            with optional("map", self.folder / MAPS / f"{name}{suffix}", failed, self.folder) as target:
                save_map(target, self._map(image, grid), options.map_format, self.codes)
        if options.overlays:
            with optional("overlay", self.folder / OVERLAYS / f"{name}.jpg", failed, self.folder) as target:
                self._require_jpeg(image)
                picture = draw_overlay(np.asarray(self.survey.read(image)), grid, self.scale, caption)
                save_picture(target, Image.fromarray(picture), "JPEG", quality=JPEG_QUALITY)
        return failed

    def _map(self, image: LotImage, grid: FloatArray) -> FloatArray:
        """Return the map of one image at the size that was asked for."""
        if self.options.maps == "grid":
            return np.ascontiguousarray(grid)
        header = self.survey.headers[image.name]
        size = self.size if self.options.maps == "pixel" else (header.height, header.width)
        pixels: FloatArray = upsample(grid[None], size)[0]
        return pixels

    def _require_jpeg(self, image: LotImage) -> None:
        """Raise ValueError if an image is too large for its overlay, before it is drawn."""
        header = self.survey.headers[image.name]
        if max(header.width, header.height + legend_height(header.width)) > _JPEG_SIDE:
            size = f"{header.width} x {header.height}"
            raise ValueError(f"{size} pixels; a JPEG has at most {_JPEG_SIDE} a side")


@contextmanager
def optional(what: str, target: Path, failed: list[Missing], within: Path | None = None) -> Iterator[Path]:
    """Yield the path of an optional file, its folder made; a failure of the block goes to ``failed``.

    Raises
    ------
    OSError
        If the disk is full or fails, or ``within``, the folder of all results, is gone.
    DeviceError
        If the machine allows too few files.
    """
    try:
        make_folders(target.parent, within=within)
        yield target
    except Exception as error:  # decoders and encoders raise anything at all
        of_disk = isinstance(error, OSError) and (error.errno in _DISK or (within and not within.is_dir()))
        if isinstance(error, DeviceError) or of_disk:
            raise
        if found := limit_reached(error):
            raise found from error
        with suppress(OSError):
            target.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        failed.append(Missing(what, reason))


def save_picture(path: Path, picture: Image.Image, kind: str, **options: int) -> None:
    """Encode a picture in memory and write it: Pillow reports a full disk like a picture it cannot encode."""
    content = io.BytesIO()
    picture.save(content, kind, **options)
    path.write_bytes(content.getbuffer())


def writing_bytes(header: Header, options: OutputOptions) -> int:
    """Return the most memory that writing the files of one image takes, at least that of decoding it."""
    # Even without overlays: the contact sheet shows some of the images, one after the other.
    drawn = options.overlays or options.maps == "original"
    drawing = header.width * header.height * _DRAWING + _STRIP_BYTES if drawn else 0
    return max(header.decode_bytes, drawing)


def writing_room(result: LotScores, options: OutputOptions) -> tuple[int, Room, tuple[str, ...]]:
    """Return threads and memory for writing, and a warning if the budget is too small for one image."""
    sizes = [writing_bytes(header, options) for header in result.survey.headers.values()]
    budget, largest = result.run.plan.budget, max(sizes, default=0)
    if budget is None or not largest:
        return options.threads, Room(), ()
    release_memory()  # what comparing took
    held = process_memory()
    # What was promised; more of the budget only if nobody said beforehand that so much would be written.
    left = max(result.run.plan.memory_bytes - held, min(largest, budget - held))
    if left >= largest:
        return options.threads, Room(left), ()
    return (
        1,
        Room(left),
        (
            f"writing took about {size_text(largest)} for the largest image, more than the memory budget of "
            f"{size_text(budget)} had left",
        ),
    )


def file_names(images: tuple[LotImage, ...]) -> dict[str, str]:
    """Choose a name without suffix for each image's files: its stem, or its full name where stems collide.

    A name that a suffix would turn into that of a folder which other files need is marked with a hash.
    """
    # Without case throughout: results may be written to, or copied to, a file system that ignores it.
    stems = {image.name: str(PurePosixPath(image.name).with_suffix("")) for image in images}
    count = Counter(stem.casefold() for stem in stems.values())
    full = {image.name.casefold() for image in images}
    chosen = {
        name: stem if count[stem.casefold()] == 1 and stem.casefold() not in full else name
        for name, stem in stems.items()
    }
    folders = {str(parent).casefold() for name in stems for parent in PurePosixPath(name).parents}
    taken = {name for name, own in chosen.items() if _is_taken(own, folders)}
    return {name: _fitting_path(own, marked=name in taken) for name, own in chosen.items()}


def _is_taken(name: str, folders: set[str]) -> bool:
    """Return whether this name, with any suffix that it may get, is that of a folder."""
    return any(f"{name}{suffix}".casefold() in folders for suffix in _SUFFIXES)


def _fitting_path(name: str, marked: bool) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(fitting(path.name, _LONGEST, marked)))


def fitting(name: str, longest: int, marked: bool = False) -> str:
    """Return the name, or if it exceeds ``longest`` bytes or is ``marked``, one cut to end in a hash."""
    content = os.fsencode(name)
    if len(content) <= longest and not marked:
        return name
    mark = hashlib.sha256(content).hexdigest()[:12]
    head = content[: longest - len(mark) - 1].decode("utf-8", "ignore")
    return f"{head}~{mark}"


def map_scale(maps: FloatArray) -> Scale:
    """Return the values that the lowest and highest code of PNG maps stand for, over the whole lot."""
    low, high = float(np.nanmin(maps)), float(np.nanmax(maps))
    return Scale(low, high if high > low else low + 1e-6)


def save_map(path: Path, values: FloatArray, map_format: str, scale: Scale) -> None:
    """Write one map (H,W) in one of MAP_FORMATS; ``scale`` is used by the PNG formats."""
    if map_format == "npy":
        np.save(path, values)
    elif map_format == "tiff":
        save_picture(path, Image.fromarray(values), "TIFF")
    else:
        top, kind = (255, np.uint8) if map_format == "png8" else (65535, np.uint16)
        codes = np.empty(values.shape, kind)
        for rows in row_blocks(len(values), values.shape[1], _STRIP):
            unit = np.nan_to_num(scale.unit(values[rows]).astype(np.float64), nan=0.0)  # outside of a region
            codes[rows] = np.round(unit * top)
        save_picture(path, Image.fromarray(codes), "PNG")


def draw_overlay(image: Array, grid: FloatArray, scale: Scale, caption: str = "") -> Array:
    """Draw the heatmap of ``grid`` (Gh,Gw) over ``image`` (H,W,3), its legend below: RGB (H+h,W,3)."""
    height, width = image.shape[:2]
    values, below = upsample(grid[None], (height, width))[0], legend(width, scale, caption)
    drawn = np.empty((height + len(below), width, 3), np.uint8)
    for rows in row_blocks(height, width, _STRIP):
        drawn[rows] = overlay(image[rows], scale.unit(values[rows]))
    drawn[height:] = below
    return drawn


def _caption(result: LotScores, row: int) -> str:
    """Name and score of an image, below its overlay."""
    word = result.judge_by.replace("_", " ")
    return f"{shown(result.images[row].name)}   {word} {result.judged[row]:.3f}"
