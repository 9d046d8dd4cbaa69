"""List the images of a lot: every image file below a folder, in natural order."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from ..._files import read_regular
from ..errors import LotError
from ..types import LotImage

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
RESULT_MARKER = "lot.json"
"""A folder that holds this file, as written by an earlier run, is its output and is not searched."""
_LARGEST_MARKER = 1 << 26  # bytes; ours have about 100 for each image that could not be read


def list_lot(root: str | os.PathLike[str], exclude: Path | None = None) -> tuple[LotImage, ...]:
    """List the image files below ``root``, subfolders included, in natural order (2.png before 10.png).

    Hidden files and folders, results of earlier runs and the folder ``exclude`` are left out.
    Linked folders are followed, but every folder is searched only once: an image that is listed twice would
    be its own nearest neighbor.

    Raises
    ------
    LotError
        If ``root`` is not a readable folder, no image is below it, or a ``lot.json`` is too large to tell
        whether it is ours.
    """
    folder = Path(root)
    if not folder.exists():
        raise LotError(f"there is no folder {folder}. Give the folder that holds the lot's images.")
    if not folder.is_dir():
        raise LotError(f"{folder} is a file, not a folder. Give the folder that holds the lot's images.")
    found = [LotImage(path.relative_to(folder).as_posix(), path) for path in _walk(folder, exclude)]
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise LotError(f"no image was found below {folder}. Expected files ending in {kinds}.")
    return tuple(sorted(found, key=lambda image: natural_key(image.name)))


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a sort key that orders runs of digits by value and everything else without case.

    The name itself comes last, so that names that differ only in case or leading zeros keep one order.
    """
    parts = re.split(r"([0-9]+)", name)
    # Triples of one kind, so that a number can be compared with a text: it comes first.
    key = tuple(
        (0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts if part
    )
    return key, name


def _walk(root: Path, exclude: Path | None) -> Iterator[Path]:
    """Yield the image files below ``root``.

    Every folder is visited once, however many links lead to it, and by its own path if it has one below
    ``root``: links are followed when no other folder is left.  Waiting folders are kept in a list, since they
    may be nested deeper than Python can recurse.
    """
    seen = {_identity(exclude)} if exclude and exclude.is_dir() else set()
    waiting, linked = [root], deque[Path]()
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.popleft()
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise LotError(f"{folder} cannot be read: {error.strerror}. Check its permissions.") from error
        marked = folder != root and any(entry.name == RESULT_MARKER for entry in entries)
        if identity in seen or (marked and _is_result(folder / RESULT_MARKER)):
            continue
        seen.add(identity)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else waiting).append(folder / entry.name)
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield folder / entry.name


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_result(marker: Path) -> bool:
    """Return whether a file of the marker's name is ours; LotError if it is too large to be looked into."""
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
    return isinstance(content, dict) and {"lot", "images", "skipped", "warnings"} <= content.keys()
