"""What is kept of the last images: their results, where nothing is written, and their pictures and maps."""

from __future__ import annotations

import io
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count, islice
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from ...runtime.line.result_log import Entry
from ...runtime.results.heatmap import Scale
from ...runtime.results.image_files import JPEG_QUALITY, draw_overlay
from ...runtime.scoring.anomaly_map import upsample
from ...runtime.types import FloatArray

KEPT_RESULTS = 1000
"""Results that are kept in memory where no log is written."""
KEPT_PICTURES = 100
"""Images whose picture and map can be asked for."""

PREVIEW = 640
"""Longest side in pixels of the picture that is kept of an image."""
CODES = 65535 / 2
"""Code of a distance of 1 in a map of 16 bits: distances are from 0 to 2."""


class MemoryLog:
    """Stands in for ``ResultLog`` where nothing is written: the last results alone, from any thread."""

    def __init__(self, keep: int = KEPT_RESULTS) -> None:
        self._log, self._numbers = str(uuid.uuid4()), count(1)
        self._entries = deque[tuple[Entry, bytes | None]](maxlen=keep)
        self._keys: dict[bytes, Entry] = {}
        self._turn = Lock()

    def add(self, facts: Mapping[str, Any], reference: str = "", key: bytes | None = None) -> Entry:
        """Record a result; KeyError if ``key`` is that of a result that is kept."""
        with self._turn:
            if key is not None and key in self._keys:
                raise KeyError(key)
            number = next(self._numbers)
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            entry = Entry(number, f"{self._log}-{number}", time, reference, facts)
            if len(self._entries) == self._entries.maxlen and (oldest := self._entries[0][1]) is not None:
                del self._keys[oldest]
            self._entries.append((entry, key))
            if key is not None:
                self._keys[key] = entry
        return entry

    def find(self, key: bytes) -> Entry | None:
        """Return the result that was recorded with this key; None if there is none, or no more."""
        with self._turn:
            return self._keys.get(key)

    def last(self, count: int, reference: str | None = None) -> list[Entry]:
        """Return the last ``count`` results (of one reference), the newest first."""
        with self._turn:
            newest = [entry for entry, _ in reversed(self._entries)]
        return list(islice((e for e in newest if reference in (None, e.reference)), count))

    def after(self, number: int, count: int) -> list[Entry]:
        """Return the ``count`` results that were recorded after the one of this ``id``, the oldest first."""
        with self._turn:
            return list(islice((entry for entry, _ in self._entries if entry.id > number), count))


@dataclass(frozen=True, eq=False)
class Picture:
    """What can be shown of an image: a small picture as JPEG, its map (Gh,Gw) and how to draw it."""

    preview: bytes
    map: FloatArray | None
    size: tuple[int, int]
    scale: Scale
    caption: str

    def overlay(self) -> bytes:
        """Draw the heatmap over the picture: a JPEG."""
        if self.map is None:
            return self.preview
        with Image.open(io.BytesIO(self.preview)) as picture:
            return _jpeg(
                Image.fromarray(draw_overlay(np.asarray(picture), self.map, self.scale, self.caption))
            )

    def codes(self) -> bytes:
        """Return the map in the ViT's pixels as a gray PNG of 16 bits, whose code is distance * 65535 / 2."""
        if self.map is None:
            return b""
        values = np.nan_to_num(upsample(self.map[None], self.size)[0], nan=0.0)
        content = io.BytesIO()
        Image.fromarray(np.round(np.clip(values, 0, 2) * CODES).astype(np.uint16)).save(content, "PNG")
        return content.getvalue()


def preview(picture: Image.Image) -> bytes:
    """Make the small JPEG that is kept of an image."""
    small = picture.copy() if max(picture.size) <= PREVIEW else picture.reduce(max(picture.size) // PREVIEW)
    small.thumbnail((PREVIEW, PREVIEW))
    return _jpeg(small)


def _jpeg(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=JPEG_QUALITY)
    return content.getvalue()


@dataclass
class Pictures:
    """The pictures of the last images, by the id of their result."""

    keep: int = KEPT_PICTURES
    _kept: OrderedDict[int, Picture] = field(default_factory=OrderedDict)

    def add(self, number: int, picture: Picture) -> None:
        """Keep a picture, in place of the oldest one if there are enough."""
        self._kept[number] = picture
        while len(self._kept) > self.keep:
            self._kept.popitem(last=False)

    def get(self, number: int) -> Picture | None:
        """Return the picture of a result; None if it is not kept."""
        return self._kept.get(number)
