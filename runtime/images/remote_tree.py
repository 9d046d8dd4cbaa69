"""The files below a URL as a search for images walks over them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import LotError
from ..remote import RemoteFolder, is_url
from .first_bytes import START, is_image
from .folder_tree import RESULT_MARKER, Entry, is_marker

_LARGEST_MARKER = 1 << 26  # bytes


@dataclass(frozen=True, order=True)
class RemoteEntry:
    """A file, or a part of files' keys that stands for a folder."""

    name: str
    folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        return self.folder

    def is_symlink(self) -> bool:
        """It is none."""
        return False


class RemoteTree:
    """The files below a URL, which are listed when they are first asked for.

    ``odd`` are keys that no folder could have: with parts that are empty, ``.`` or ``..``.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder
        self.odd: list[str] = []

    def where(self, inside: str) -> str:
        """The URL."""
        return str(self._folder.file(inside)) if inside else str(self._folder)

    def entries(self, inside: str) -> Sequence[Entry]:
        """What is in a folder, sorted by name."""
        return sorted(self._folders[inside])

    def identity(self, inside: str) -> Hashable:
        """Its name: there are no links."""
        return inside

    def is_results(self, inside: str, entries: Iterable[Entry]) -> bool:
        """Whether a folder with these entries holds results of an earlier run."""
        if not any(entry.name == RESULT_MARKER for entry in entries):
            return False
        try:
            return is_marker(json.loads(self._start(f"{inside}/{RESULT_MARKER}", _LARGEST_MARKER)))
        except (OSError, ValueError, RecursionError):
            return False

    def starts_like_image(self, inside: str) -> bool:
        """Whether a file can be read and begins as an image does."""
        try:
            return is_image(self._start(inside, START))
        except OSError:
            return False

    def relative(self, name: str) -> str:
        """A listed name, or URL, relative to the root; LotError if it leads out of it."""
        below = name.removeprefix(f"{self._folder}/")
        relative = posixpath.normpath(below)
        if is_url(below) or relative in (".", "..") or relative.startswith(("/", "../")):
            raise LotError(
                f"the list names {name!r}, which is no file below {self._folder}. Expected names relative to "
                "that URL."
            )
        return relative

    def _start(self, inside: str, most: int) -> bytes:
        file = self._folder.file(inside)
        return file.part(0, min(most, file.stamp()[1])) or b""

    @cached_property
    def _folders(self) -> dict[str, set[RemoteEntry]]:
        """What is in each folder."""
        folders: dict[str, set[RemoteEntry]] = {"": set()}
        for key, info in self._folder.list().items():
            if key.endswith("/") and not info.get("size"):  # consoles make such an object for a folder
                continue
            parts = key.split("/")
            if "\0" in key or not {"", ".", ".."}.isdisjoint(parts):
                self.odd.append(key)
                continue
            for depth, part in enumerate(parts, 1):
                inside = "/".join(parts[: depth - 1])
                folders.setdefault(inside, set()).add(RemoteEntry(part, depth < len(parts)))
        return folders
