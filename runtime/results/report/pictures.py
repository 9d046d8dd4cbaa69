"""Give the images of a page their thumbnails and addresses, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...images.image_bytes import ImageError
from ...images.kinds import suffix
from ...images.listing import file_at
from ...images.survey import run_ahead
from ...types import FilePath, LotImage, LotRoot, Progress
from .originals import inside, is_file, link
from .thumbnails import Reading, Shelf, Thumbnail, make_thumbnail

SHOWN = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".avif"})
"""Endings of files that browsers show."""
_GONE = "the lot's folder was not found"


@dataclass(frozen=True)
class Kept:
    """Where on the shelf a thumbnail is, and in which format."""

    place: tuple[int, int]
    form: str


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a lot come from: its folder or URL, None if it is gone; and how files were read.

    ``longest`` is the longer side of thumbnails in pixels, ``room`` the memory in bytes for decoding one,
    ``page`` the folder that the page will be in.
    """

    root: LotRoot | None
    reading: Reading
    longest: int
    room: int | None
    page: Path

    def add(self, images: list[dict[str, Any]], shelf: Shelf, progress: Progress) -> list[Kept | None]:
        """Complete what the page is told of ``images``; returns where each thumbnail is, if there is one.

        Memory is taken for one image at a time.
        """
        sources = [LotImage(image["name"], self._path(image["name"])) for image in images]
        kept: list[Kept | None] = []
        for source, found in run_ahead(sources, self._thumbnail, threads=1, ahead=1):
            image = images[len(kept)]
            if self.root and inside(source.name) and isinstance(source.path, Path) and is_file(source.path):
                image["file"] = link(source.path, self.page)
            if isinstance(found, ImageError):
                image["no_picture"] = str(found)
                kept.append(None)
            else:
                image |= _facts(found, source.name)
                kept.append(Kept(shelf.put(found.content), found.form))
            progress("report", len(kept), len(images), "images")
        return kept

    def _path(self, name: str) -> FilePath:
        return file_at(self.root or Path(), name)

    def _thumbnail(self, image: LotImage) -> Thumbnail:
        if self.root is None:
            raise ImageError("unreadable", _GONE)
        if not inside(image.name):
            raise ImageError("unreadable", "its name leaves the lot's folder")
        return make_thumbnail(image.path, self.reading, self.longest, self.room)


def _facts(found: Thumbnail, name: str) -> dict[str, Any]:
    header = found.header
    # Of deep files browsers show the high bits alone, of those with pages any: not what was scored.
    shown = suffix(name) in SHOWN and header.bits <= 8 and header.pages == 1
    return {"size": [header.width, header.height], "shown": shown}
