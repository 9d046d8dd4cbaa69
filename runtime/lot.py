"""List the images of a lot: every image file below a folder, in natural order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import LotError
from .types import LotImage

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
RESULT_MARKER = "lot.json"
"""A folder that holds this file, as written by an earlier run, is its output and is not searched."""


def list_lot(root: str | os.PathLike[str], exclude: Path | None = None) -> tuple[LotImage, ...]:
    """Image files below ``root``, subfolders included, in natural order (2.png before 10.png).

    Hidden files and folders, results of earlier runs and the folder ``exclude`` are left out.
    Linked folders are followed, but never into one of their own parents.

    Raises
    ------
    LotError
        If ``root`` is not a readable folder, or no image is below it.
    """
    folder = Path(root)
    if not folder.exists():
        raise LotError(f"there is no folder {folder}. Give the folder that holds the lot's images.")
    if not folder.is_dir():
        raise LotError(f"{folder} is a file, not a folder. Give the folder that holds the lot's images.")
    skip = exclude.resolve() if exclude is not None else None
    found = [LotImage(path.relative_to(folder).as_posix(), path) for path in _walk(folder, skip, ())]
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise LotError(f"no image was found below {folder}. Expected files ending in {kinds}.")
    return tuple(sorted(found, key=lambda image: natural_key(image.name)))


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that orders runs of digits by value and everything else without case.

    The name itself comes last, so that names differing only in case or leading zeros keep one order.
    """
    parts = re.split(r"([0-9]+)", name)
    key = tuple(
        (0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts if part
    )
    return key, name


def _walk(folder: Path, skip: Path | None, parents: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        stat = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise LotError(f"{folder} cannot be read: {error.strerror}. Check its permissions.") from error
    identity = (stat.st_dev, stat.st_ino)
    marked = bool(parents) and any(entry.name == RESULT_MARKER for entry in entries)
    if identity in parents or folder.resolve() == skip or (marked and _is_result(folder / RESULT_MARKER)):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _walk(folder / entry.name, skip, (*parents, identity))
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            yield folder / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_result(marker: Path) -> bool:
    """Whether a file of the marker's name is one of ours."""
    try:
        content = json.loads(marker.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"lot", "images", "skipped", "warnings"} <= content.keys()
