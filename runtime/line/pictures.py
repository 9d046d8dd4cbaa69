"""Keep the pictures of suspects, with their maps and overlays, in so much room as they are given.

Files are named after an image's key: a program that is killed after it wrote a picture and before the result
was recorded writes the same files again.  Those that no result will ever name, since the image went away
meanwhile, are removed when the log is opened.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from ..._files import PARTIAL, make_folders, open_regular, write_pieces, write_whole
from ..._numbers import size_text
from ..errors import OutputError
from ..images.reading import read_image
from ..reference.checker import Check
from ..reference.manifest import ReferenceManifest
from ..results.heatmap import Scale
from ..results.image_files import (
    JPEG_QUALITY,
    MAPS,
    OVERLAYS,
    Missing,
    draw_overlay,
    fitting,
    optional,
)
from ..results.lettering import shown
from ..verdict.limits import REJECT
from .database import ELSEWHERE
from .result_log import ResultLog
from .station import Source

PICTURES = "pictures"
FOLDERS = (PICTURES, OVERLAYS, MAPS)
KEPT = ("reject", "all", "none")
"""Whose pictures may be kept."""
KEY_BYTES = 16

_FACTS = ("picture", "overlay", "map")
_OURS = re.compile(rf"~([0-9a-f]{{{2 * KEY_BYTES}}})\.[^.]*$")
_LONGEST = 200 - 2 * KEY_BYTES  # bytes of an image's own name in that of a file
_DROPPED = "pictures dropped"
_SPARE = 100_000_000
"""Bytes of the disk that are left to the log, and to others."""
_AT_ONCE = 100
_CHUNK = 1 << 20


class Pictures:
    """A witness that keeps pictures, overlays and maps beside a log.

    Parameters
    ----------
    log : ResultLog
        Their folders are beside it, and its order is the one in which the oldest go.
    manifest : ReferenceManifest
        That of the reference: how files are read, and the scale of the overlays.
    keep : int, optional
        Bytes that the log and the pictures may take together.  The oldest pictures go first; the log stays.
        For a moment they take more, by the files of one image.
    which : {"reject", "all", "none"}
        Of which images: of suspects, or of all that can be read.
    say : callable, optional
        Is told once if there is no room for any picture.

    Raises
    ------
    OutputError
        If the disk fails.
    """

    def __init__(
        self,
        log: ResultLog,
        manifest: ReferenceManifest,
        keep: int | None = None,
        which: str = "reject",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._log, self._manifest, self._keep, self._which = log, manifest, keep, which
        self._scale = Scale(*manifest.scale)
        self._say, self._said = say, False
        self._turn = Lock()
        with _disk_errors(log.folder):
            self.bytes = sum(self._sizes())
        with log.database.turn():
            self._dropped: int = log.database.get(_DROPPED, 0)

    def see(self, check: Check, image: Source, key: bytes | None) -> Mapping[str, Any]:
        """Keep the files of an image if they are wanted; returns their paths from the log's folder on."""
        wanted = check.verdict == REJECT if self._which == "reject" else self._which == "all"
        if check.map is None or not wanted:
            return {}
        with self._turn, _disk_errors(self._log.folder):
            facts, missing = self._write(check, image, _file_name(check.name, key))
            if not self._make_room():
                for path in facts.values():
                    self._remove(path)
                missing = [Missing("picture", "there is no room for it")]
                facts = {}
                self._tell()
        return {**facts, "missing": [str(each) for each in missing]} if missing else facts

    def _write(self, check: Check, image: Source, name: str) -> tuple[dict[str, str], list[Missing]]:
        """Write the files of an image; returns those that were written, and what is missing."""
        ending = ".png" if isinstance(image, Image.Image) else PurePath(image).suffix
        names = (f"{PICTURES}/{name}{ending}", f"{OVERLAYS}/{name}.jpg", f"{MAPS}/{name}.npy")
        written, failed = {}, list[Missing]()
        for fact, relative, write in zip(
            _FACTS, names, (_write_picture, self._draw, _write_map), strict=True
        ):
            before = len(failed)
            with optional(fact, self._log.folder / relative, failed) as target:
                self.bytes -= _size(target)  # of a program that was killed before it recorded the result
                write(target, check, image)
                self.bytes += _size(target)
            if len(failed) == before:
                written[fact] = relative
        return written, failed

    def _draw(self, target: Path, check: Check, image: Source) -> None:
        m, given = self._manifest, image
        picture = (
            given if isinstance(given, Image.Image) else read_image(Path(given), m.bit_depth, m.max_pixels)
        )
        caption = f"{shown(PurePath(check.name).name)}   raw {check.raw_score:.3f}   p {check.p:.3f}"
        grid = np.asarray(check.map, np.float32)
        drawn = draw_overlay(np.asarray(picture.convert("RGB")), grid, self._scale, caption)
        write_whole(target, _encoded(Image.fromarray(drawn), "JPEG", quality=JPEG_QUALITY))

    # ---- room --------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Remove the oldest pictures until the rest has room; returns whether it has."""
        before = self._dropped
        while self.bytes > self._room() and (entries := self._log.after(self._dropped, _AT_ONCE)):
            for entry in entries:
                if self.bytes <= self._room():
                    break
                for fact in _FACTS:
                    if fact in entry.facts:
                        self._remove(entry.facts[fact])
                self._dropped = entry.id
        if self._dropped != before:
            with self._log.database.turn():
                self._log.database.set(_DROPPED, self._dropped)
        return self.bytes <= self._room()

    def _room(self) -> float:
        """Bytes that pictures may take."""
        disk = os.statvfs(self._log.folder)
        free = self.bytes + disk.f_bavail * disk.f_frsize - _SPARE
        return free if self._keep is None else min(free, self._keep - self._log.size)

    def _remove(self, relative: str) -> None:
        path = self._log.folder / relative
        size = _size(path)
        with suppress(FileNotFoundError):
            path.unlink()
            self.bytes -= size

    def _sizes(self) -> Iterator[int]:
        """Yield the size of each file that is kept, and remove what a killed program left."""
        for folder in FOLDERS:
            make_folders(self._log.folder / folder)
            with os.scandir(self._log.folder / folder) as entries:
                for entry in entries:
                    named = _OURS.search(entry.name)
                    orphan = named and bytes.fromhex(named[1]) not in self._log
                    if orphan or entry.name.endswith(PARTIAL):
                        Path(entry).unlink()
                    else:
                        yield entry.stat(follow_symlinks=False).st_size

    def _tell(self) -> None:
        if not self._said:
            self._said = True
            keep = f"{size_text(self._keep)} (--keep)" if self._keep is not None else "the disk"
            self._say(f"no picture is kept: the log takes all of {keep} but what must stay free.")


def _file_name(name: str, key: bytes | None) -> str:
    """A name for an image's files, without ending: its own with its key."""
    own = fitting(PurePath(name).stem, _LONGEST)
    if key is not None and len(key) == KEY_BYTES:
        return f"{own}~{key.hex()}"
    return f"{own}-{uuid.uuid4().hex}"


def _write_picture(target: Path, check: Check, image: Source) -> None:
    """Copy an image's file as it is, or write a picture as PNG."""
    if isinstance(image, Image.Image):
        write_whole(target, _encoded(image, "PNG"))
    else:
        with open_regular(Path(image)) as file:
            write_pieces(target, iter(lambda: file.read(_CHUNK), b""))


def _write_map(target: Path, check: Check, image: Source) -> None:
    content = io.BytesIO()
    np.save(content, np.asarray(check.map))
    write_whole(target, content.getbuffer())


def _encoded(picture: Image.Image, kind: str, **options: int) -> memoryview:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getbuffer()


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Within the block an OSError becomes an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"no pictures can be kept in {folder}: {error.strerror or error}. {ELSEWHERE}"
        ) from error
