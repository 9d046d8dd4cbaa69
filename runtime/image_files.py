"""One anomaly map and one overlay per image, written by several threads, a few images at a time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from .anomaly_map import upsample
from .heatmap import Scale, legend, lot_scale, overlay
from .images import ImageError
from .lot_result import LotResult
from .memory import process_memory, size_text
from .survey import run_ahead
from .types import Array, FloatArray, LotImage, Progress, no_progress

MAP_FORMATS = {"npy": ".npy", "tiff": ".tiff", "png8": ".png", "png16": ".png"}
MAPS, OVERLAYS = "maps", "overlays"
_AHEAD = 8
_MAP_BYTES, _OVERLAY_BYTES = 16, 56
"""For a pixel of the original image, while its map or its overlay is made."""
_LONGEST = 255 - len(".tiff")  # bytes of a file name, on every common file system
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class OutputOptions:
    """What is written per image.

    ``maps``: "grid" (Gh,Gw), "pixel" (model size), "original" (the image's own size) or "none".
    ``map_format``: "npy" or "tiff" (float32 distances), "png8" or "png16" (one scale for the lot).
    """

    maps: str = "grid"
    map_format: str = "npy"
    overlays: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Written:
    """File of each image's map, relative to the output folder, and what could not be drawn."""

    maps: dict[str, str]
    problems: tuple[str, ...]


def write_image_files(
    result: LotResult, folder: Path, options: OutputOptions, progress: Progress = no_progress
) -> Written:
    """Write maps and overlays of every image of a lot.

    At most a few maps in pixels exist at a time, whatever the size of the lot.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    names = file_names(result.images)
    suffix = MAP_FORMATS[options.map_format]
    targets = {} if options.maps == "none" else {n: f"{MAPS}/{s}{suffix}" for n, s in names.items()}
    scale = lot_scale(result.maps, result.raw_scores)

    def write(row: int) -> None:
        image = result.images[row]
        if targets:
            values = _map(result, row, options.maps)
            save_map(
                _new_file(folder, targets[image.name]), values, options.map_format, map_scale(result.maps)
            )
        if options.overlays:
            picture = draw_overlay(np.asarray(result.survey.read(image)), result.maps[row], scale)
            target = _new_file(folder, f"{OVERLAYS}/{names[image.name]}.jpg")
            Image.fromarray(picture).save(target, quality=_JPEG_QUALITY)

    threads, problems = _threads(result, options)
    if targets or options.overlays:
        stream = run_ahead(range(len(result.images)), write, threads, _AHEAD)
        for row, outcome in stream:
            if isinstance(outcome, ImageError):
                problems.append(f"no overlay of {result.images[row].name}: {outcome}")
            progress("write", row + 1, len(result.images), "images")
    return Written(targets, tuple(problems))


def _threads(result: LotResult, options: OutputOptions) -> tuple[int, list[str]]:
    """As many threads as the memory budget has room for, and what to say if that is none."""
    each = _OVERLAY_BYTES * options.overlays or _MAP_BYTES * (options.maps == "original")
    needed = each * max((h.width * h.height for h in result.survey.headers.values()), default=0)
    if result.plan.budget < 0 or not needed:
        return options.threads, []
    room = result.plan.budget - process_memory()
    if room >= needed:
        return min(options.threads, room // needed), []
    return 1, [
        f"writing took about {size_text(needed)} for the largest image, more than the memory budget of "
        f"{size_text(result.plan.budget)} had left"
    ]


def file_names(images: tuple[LotImage, ...]) -> dict[str, str]:
    """Name without suffix for each image's files: its stem, or its full name where stems collide."""
    stems = {image.name: str(PurePosixPath(image.name).with_suffix("")) for image in images}
    count = Counter(stem.casefold() for stem in stems.values())
    full = {image.name.casefold() for image in images}
    return {
        name: _fitting(stem if count[stem.casefold()] == 1 and stem.casefold() not in full else name)
        for name, stem in stems.items()
    }


def _fitting(name: str) -> str:
    """The name itself, or one cut and marked with a hash where a suffix would make it too long for a file."""
    last = os.fsencode(PurePosixPath(name).name)
    if len(last) <= _LONGEST:
        return name
    mark = hashlib.sha256(last).hexdigest()[:12]
    head = last[: _LONGEST - len(mark) - 1].decode("utf-8", "ignore")
    return str(PurePosixPath(name).with_name(f"{head}~{mark}"))


def map_scale(maps: FloatArray) -> Scale:
    """What the lowest and highest code of a PNG map stand for, over the whole lot."""
    low, high = float(maps.min()), float(maps.max())
    return Scale(low, high if high > low else low + 1e-6)


def save_map(path: Path, values: FloatArray, map_format: str, scale: Scale) -> None:
    """Write one map (H,W) in one of MAP_FORMATS; ``scale`` is used by the PNG formats."""
    if map_format == "npy":
        np.save(path, values)
    elif map_format == "tiff":
        Image.fromarray(values).save(path)
    else:
        top, kind = (255, np.uint8) if map_format == "png8" else (65535, np.uint16)
        codes = np.round(scale.unit(values).astype(np.float64) * top).astype(kind)
        Image.fromarray(codes).save(path)


def draw_overlay(image: Array, grid: FloatArray, scale: Scale) -> Array:
    """RGB (H+h,W,3): the heatmap of ``grid`` (Gh,Gw) over ``image`` (H,W,3), the colour scale below it."""
    height, width = image.shape[:2]
    unit = scale.unit(upsample(grid[None], (height, width))[0])
    return np.concatenate([overlay(image, unit), legend(width, scale)])


def _map(result: LotResult, row: int, kind: str) -> FloatArray:
    """The map of one image at the size that was asked for."""
    if kind == "grid":
        return np.ascontiguousarray(result.maps[row])
    header = result.survey.headers[result.images[row].name]
    size = result.bundle.manifest.preprocess.size if kind == "pixel" else (header.height, header.width)
    pixels: FloatArray = upsample(result.maps[row : row + 1], size)[0]
    return pixels


def _new_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
