"""Read the results of a lot from its folder: scores, verdicts and maps."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..._files import read_regular
from ..._json import from_json, parse_json, shortly
from ..errors import LotError
from ..images.image_bytes import ImageError
from ..images.reading import image_error
from ..images.reading import read_header as read_image_header
from ..scoring.anomaly_map import upsample
from ..settings import JUDGED, PAIRS, RAW_SCORE, SCORE
from ..store.npy import read_data, read_header
from ..types import Array, FloatArray
from ..verdict.judged_lot import MadeBy
from ..verdict.regions import SizedMap
from .tables import read_table
from .write import LOT, POSITION, SCORES

_LARGEST = 1 << 28  # bytes of a table, a description or a map
_LONGEST_SIDE = 1 << 20  # pixels
_MOST_PIXELS = 1 << 28  # of a map: 1 GB
_PNG_TOP = {"png8": 255, "png16": 65535}
_OBJECTS = ("settings", "bundle", "png_map_scale")
_SPLITS = ("test", "test_public")
"""Folders of a data set whose name says nothing of the product: it is that of the folder around."""


@dataclass(frozen=True)
class ScoredImage:
    """A row of scores.csv with status ok; ``verdict`` and ``map`` are empty, and ``p`` None, without one."""

    name: str
    raw_score: float
    score: float
    verdict: str
    map: str
    p: float | None = None

    def judged(self, by: str) -> float:
        """The value of a column that a lot may be judged by."""
        return self.raw_score if by == RAW_SCORE else self.score


@dataclass(frozen=True)
class ScoredLot:
    """The results of one lot, or of one group of it.

    ``about`` is the content of its lot.json; ``skipped`` has the names of images without a score.
    """

    folder: Path
    about: dict[str, Any]
    images: tuple[ScoredImage, ...]
    skipped: tuple[str, ...]

    @property
    def lot(self) -> str:
        """The lot's folder or URL, as it was given to musc-edge infer; LotError if it is not said."""
        try:
            return str(self.about["lot"])
        except KeyError as error:
            raise self._damaged("it names no lot") from error

    @property
    def root(self) -> Path:
        """Its folder; that of a URL is nowhere."""
        return Path(self.lot)

    @property
    def name(self) -> str:
        """The name of the product: of the lot's folder, or of the one around it if it is called test."""
        path = Path.cwd() / self.root
        return path.parent.name if path.name in _SPLITS else path.name

    @property
    def settings(self) -> dict[str, Any]:
        """What the lot was scored and written with."""
        settings: dict[str, Any] = self.about["settings"]
        return settings

    @property
    def judge_by(self) -> str:
        """The column that the lot is sorted and judged by; earlier versions knew ``score`` alone.

        Raises
        ------
        LotError
            If lot.json names none that there is.
        """
        column = self.settings.get("judge_by", SCORE)
        if column not in JUDGED:
            raise self._damaged(f"judge_by is {shortly(column)}")
        return str(column)

    @property
    def has_maps(self) -> bool:
        """Whether maps were written."""
        return any(image.map for image in self.images)

    def pixels(self, image: ScoredImage) -> FloatArray:
        """Read the map of an image (H,W): at model size, or at the image's own if it was written so.

        Raises
        ------
        LotError
            If the map is missing or damaged.
        """
        values = self.stored_map(image.map)
        if "maps" not in self.settings:
            raise self._damaged("it does not say of which size maps are")
        if self.settings["maps"] != "grid":
            return values
        pixels: FloatArray = upsample(values[None], self._map_size)[0]
        return pixels

    @property
    def _map_size(self) -> tuple[int, int]:
        """Height and width of the maps in pixels."""
        size = self.about.get("map_size") or self.about["bundle"].get("image_size")
        whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
        if not (whole and min(size) > 0 and max(size) <= _LONGEST_SIDE and size[0] * size[1] <= _MOST_PIXELS):
            raise self._damaged(f"maps of the size {shortly(size)}")
        return size[0], size[1]

    def _damaged(self, what: object) -> LotError:
        return LotError(f"{self.folder / LOT} is damaged: {what}. Score the lot again.")

    def stored_map(self, name: str) -> FloatArray:
        """Read a map as it was written: (Gh,Gw) for maps on the grid, else (H,W).

        ``name`` is that of its file, as in the column ``map``.

        Raises
        ------
        LotError
            If the map is missing or damaged.
        """
        path = self.folder / name
        try:
            return self._read_map(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LotError(f"the map {path} cannot be read: {error}. Score the lot again.") from error

    @property
    def made_by(self) -> MadeBy:
        """How the raw scores came about.

        Raises
        ------
        LotError
            If lot.json does not say it.
        """
        try:
            made_by: MadeBy = from_json(
                MadeBy,
                {
                    "bundle": self.about["bundle"]["sha256"],
                    "judges": self.about["judges_per_image"],
                    # earlier versions knew no other
                    "by": self.settings.get("by", PAIRS),
                    "burn_out": self.settings.get("burn_out", False),
                    "tiles": self.settings.get("tiles"),
                    "window": self.settings.get("window"),
                    "roi": self.settings.get("roi"),
                    "mask_background": self.settings.get("mask_background"),
                    "copies_judge": self.settings.get("copies_judge", True),
                    **{name: self.settings[name] for name in ("degrees", "interval", "bit_depth")},
                    "position_median": self.settings.get("position_median", 0.0),
                },
                LOT,
            )
            return made_by
        except (KeyError, ValueError) as error:
            raise self._damaged(repr(error)) from error

    def sized_map(self, image: ScoredImage) -> SizedMap | None:
        """Read the map of an image as it is judged, for its own size; None without a map or a known size.

        Raises
        ------
        LotError
            If the map is missing or damaged.
        """
        if not image.map:
            return None
        values = self.stored_map(image.map)
        size = values.shape if self.settings.get("maps") == "original" else self.size_of(image)
        if (level := self.level) is not None:
            same = level.shape == values.shape
            values = values - (level if same else upsample(level[None], values.shape)[0])
        return SizedMap(values, (size[0], size[1])) if size else None

    @cached_property
    def level(self) -> FloatArray | None:
        """What was subtracted at each position (Gh,Gw) before the maximum was taken; None: nothing.

        Raises
        ------
        LotError
            If its file is missing or damaged.
        """
        if not self.settings.get("position_median"):
            return None
        path = self.folder / POSITION
        try:
            return _read_npy(read_regular(path, _LARGEST))
        except (OSError, ValueError) as error:
            raise LotError(f"{path} cannot be read: {error}. Score the lot again.") from error

    def size_of(self, image: ScoredImage) -> tuple[int, int] | None:
        """Return height and width of an image as it was scored, or None if they are not known.

        lot.json has them; for one that an earlier version wrote, the image's file is asked.

        Raises
        ------
        LotError
            If lot.json gives a size that none can be.
        """
        sizes = self.about.get("image_sizes")
        if isinstance(sizes, dict) and image.name in sizes:
            found = re.fullmatch(r"(\d{1,7})x(\d{1,7})", str(sizes[image.name]))
            width, height = map(int, found.groups()) if found else (0, 0)
            if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
                raise self._damaged(f"{shortly(sizes[image.name])} is no size")
            return height, width
        try:
            header = read_image_header(self.root / image.name)
        except ImageError:
            return None
        return header.height, header.width

    def _read_map(self, path: Path) -> FloatArray:
        kind = self.settings["map_format"]
        content = read_regular(path, _LARGEST)
        if kind == "npy":
            return _read_npy(content)
        values = _decoded(content)
        if values.ndim != 2:
            raise ValueError(f"an array of shape {values.shape}, expected (H,W)")
        if kind in _PNG_TOP:
            scale = self.about["png_map_scale"]
            values = scale["low"] + values / _PNG_TOP[kind] * (scale["high"] - scale["low"])
        return np.ascontiguousarray(values, np.float32)


def _decoded(content: bytes) -> Array:
    """Return the values of a map in a TIFF or PNG; ValueError if it is none."""
    try:
        return np.asarray(Image.open(io.BytesIO(content), formats=("TIFF", "PNG")))
    except Exception as error:  # on damaged files Pillow raises anything at all
        raise ValueError(str(image_error(error))) from error


def _read_npy(content: bytes) -> FloatArray:
    file = io.BytesIO(content)
    header = read_header(file, np.float32)
    if len(header.shape) != 2 or math.prod(header.shape) * 4 > len(content):
        raise ValueError(f"its shape is {header.shape}, expected (H,W), and its data behind it")
    return read_data(file, header, header.shape)


def read_results(out: Path) -> list[ScoredLot]:
    """Read a folder that musc-edge infer wrote: one lot, or each of its groups.

    Raises
    ------
    LotError
        If the folder holds no results, or they are damaged.
    """
    about = read_about(out)
    if "groups" not in about:
        return [_lot(out, about)]
    return [_lot(out / name, read_about(out / name)) for name in about["groups"]]


def read_about(folder: Path) -> dict[str, Any]:
    """Read the lot.json of a folder of results; LotError if there is none, or it is damaged."""
    path = folder / LOT
    try:
        about = parse_json(read_regular(path, _LARGEST))
    except OSError as error:
        raise LotError(
            f"{folder} holds no results: {LOT} {error.strerror}. Give a folder that musc-edge infer wrote."
        ) from error
    except (ValueError, RecursionError) as error:
        raise LotError(f"{path} is damaged: {error}. Score the lot again.") from error
    parts = _parts(about)
    if not isinstance(parts, dict) or not all(isinstance(parts.get(name), dict) for name in _OBJECTS):
        raise LotError(f"{path} was not written by musc-edge infer. Give a folder of its results.")
    whole: dict[str, Any] = about
    return whole


def _parts(about: Any) -> Any:
    """Return the content of lot.json that a lot has: with groups, that of the first."""
    groups = about.get("groups") if isinstance(about, dict) else None
    return next(iter(groups.values()), None) if isinstance(groups, dict) else about


def _lot(folder: Path, about: dict[str, Any]) -> ScoredLot:
    path = folder / SCORES
    try:
        rows = read_rows(folder, about)
        images = tuple(_image(row) for row in rows if row["status"] == "ok")
        skipped = tuple(row["image"] for row in rows if row["status"] != "ok")
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise LotError(f"{path} cannot be read: {error!r}. Score the lot again.") from error
    return ScoredLot(folder, about, images, skipped)


def read_rows(folder: Path, about: dict[str, Any]) -> list[dict[str, str]]:
    """Read scores.csv of a folder of results, as text; ``about`` is the lot.json of it, or of a group.

    Raises
    ------
    OSError, ValueError, csv.Error
        If it cannot be read.
    """
    return read_table(folder / SCORES, about["settings"].get("csv", "plain"))[1]


def _image(row: dict[str, str]) -> ScoredImage:
    raw, score = float(row["raw_score"]), float(row["score"])
    if not (math.isfinite(raw) and math.isfinite(score)):
        raise ValueError(f"the score of {row['image']} is not finite")
    p = float(row["p"]) if row.get("p") else None
    return ScoredImage(row["image"], raw, score, row.get("verdict") or "", row["map"], p)


def all_lots(folders: list[Path]) -> Iterator[ScoredLot]:
    """Yield the lots of several folders of results."""
    for folder in folders:
        yield from read_results(folder)
