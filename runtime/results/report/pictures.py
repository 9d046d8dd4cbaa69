"""Give the images of a page their thumbnails and addresses, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...images.image_bytes import ImageError
from ...images.survey import run_ahead
from ...types import LotImage, Progress
from .originals import inside, link
from .thumbnails import Reading, Shelf, Thumbnail, make_thumbnail

SHOWN = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".avif"})
"""Endings of files that browsers show."""
_GONE = "the lot's folder was not found"
Place = tuple[int, int]


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a lot come from: its folder, None if it is gone, and how its files were read.

    ``longest`` is the longer side of thumbnails in pixels, ``room`` the memory in bytes for decoding one.
    """

    root: Path | None
    reading: Reading
    longest: int
    room: int | None
    page: Path

    def add(
        self, images: list[dict[str, Any]], kept: Shelf, progress: Progress
    ) -> Iterator[tuple[dict[str, Any], Place, str]]:
        """Complete ``images``; yields each that has a thumbnail with its place on the shelf and its format.

        Memory is taken for one image at a time.
        """
        wanted = [LotImage(image["name"], self._path(image["name"])) for image in images]
        by_name = {image["name"]: image for image in images}
        for done, (source, found) in enumerate(run_ahead(wanted, self._thumbnail, threads=1, ahead=1), 1):
            image = by_name[source.name]
            if self.root and inside(source.name) and source.path.is_file():
                image["file"] = link(source.path, self.page)
            if isinstance(found, ImageError):
                image["no_picture"] = str(found)
            elif found is not None:
                image |= _facts(found, source.path)
                yield image, kept.put(found.content), found.form
            progress("report", done, len(images), "images")

    def _path(self, name: str) -> Path:
        return (self.root or Path()) / name

    def _thumbnail(self, image: LotImage) -> Thumbnail:
        if self.root is None:
            raise ImageError("unreadable", _GONE)
        if not inside(image.name):
            raise ImageError("unreadable", "its name leaves the lot's folder")
        return make_thumbnail(image.path, self.reading, self.longest, self.room)


def _facts(found: Thumbnail, path: Path) -> dict[str, Any]:
    header = found.header
    # Of deep files browsers show the high bits alone, of those with pages any: not what was scored.
    shown = path.suffix.lower() in SHOWN and header.bits <= 8 and header.pages == 1
    return {"size": [header.width, header.height], "shown": shown}
