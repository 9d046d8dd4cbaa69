"""What a search for images walks over: folders and files, and how those of this machine are looked at."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ..._files import open_regular, read_regular
from ..errors import LotError
from .first_bytes import is_image, read_start

RESULT_MARKER = "lot.json"
"""A folder that holds this file, as written by an earlier run, is its output and is not searched."""
_LARGEST_MARKER = 1 << 26  # bytes; ours have about 100 for each image that could not be read


class Entry(Protocol):
    """A file or folder, as ``os.DirEntry`` has them."""

    @property
    def name(self) -> str: ...
    def is_dir(self, *, follow_symlinks: bool = True) -> bool: ...
    def is_symlink(self) -> bool: ...


class Tree(Protocol):
    """What lies below a lot's root; ``inside`` is a name relative to it, with forward slashes."""

    def where(self, inside: str) -> str:
        """The whole name, for messages."""

    def entries(self, inside: str) -> Sequence[Entry]:
        """What is in a folder, sorted by name; OSError if it cannot be read."""

    def identity(self, inside: str) -> Hashable:
        """What a folder is known by, however many links lead to it; OSError if there is none."""

    def is_results(self, inside: str, entries: Iterable[Entry]) -> bool:
        """Whether a folder with these entries holds, or will hold, results of ours."""

    def starts_like_image(self, inside: str) -> bool:
        """Whether a file can be read and begins as an image does."""

    def relative(self, name: str) -> str:
        """A name of a list of files, relative to the root; LotError if it leads out of it."""


class FolderTree:
    """A folder of this machine; ``out`` is that of the results that are to be."""

    def __init__(self, root: Path, out: Path | None = None) -> None:
        self._root = root
        self._out = _identity(out) if out and out.is_dir() else None

    def where(self, inside: str) -> str:
        """The path."""
        return str(self._root / inside)

    def entries(self, inside: str) -> Sequence[Entry]:
        """What is in a folder, sorted by name."""
        with os.scandir(self._root / inside) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def identity(self, inside: str) -> Hashable:
        """Its device and number there."""
        return _identity(self._root / inside)

    def is_results(self, inside: str, entries: Iterable[Entry]) -> bool:
        """Whether a folder is that of the results, or holds those of an earlier run."""
        if self.identity(inside) == self._out:
            return True
        return any(entry.name == RESULT_MARKER for entry in entries) and is_results(self._root / inside)

    def starts_like_image(self, inside: str) -> bool:
        """Whether a file can be read and begins as an image does."""
        try:
            with open_regular(self._root / inside) as file:
                return is_image(read_start(file))
        except OSError:
            return False

    def relative(self, name: str) -> str:
        """A listed name relative to the root; LotError if it leads out of it."""
        top = os.path.normpath(self._root.absolute())
        relative = Path(os.path.relpath(os.path.normpath(self._root.absolute() / name), top))
        if not relative.parts or relative.parts[0] == os.pardir:
            raise LotError(
                f"the list names {name!r}, which is no file below {self._root}. Expected names relative to "
                "that folder."
            )
        return relative.as_posix()


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def is_results(folder: Path) -> bool:
    """Return whether a folder holds results of an earlier run; LotError if that cannot be told."""
    marker = folder / RESULT_MARKER
    try:
        content = json.loads(read_regular(marker, _LARGEST_MARKER))
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise LotError(
                f"{marker} is {error.strerror}: it cannot be told whether the folder holds results of an "
                "earlier run, which are not images of the lot. Move it out of the lot."
            ) from error
        return False
    except (ValueError, RecursionError):
        return False
    return is_marker(content)


def is_marker(content: object) -> bool:
    """Whether the parsed content of a ``lot.json`` is that of a musc-edge run."""
    return isinstance(content, dict) and {"lot", "images", "skipped", "warnings"} <= content.keys()
