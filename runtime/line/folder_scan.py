"""Which files below a watched folder are images: those that a lot would have (``images/search.py``)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..._files import open_regular
from ..errors import LotError
from ..images.first_bytes import is_image, read_start
from ..images.folder_tree import is_results
from ..images.kinds import (
    IMAGE_SUFFIXES,
    is_master,
    is_placeholder,
    is_side_file,
    is_side_folder,
    is_unfinished,
    looks_like_image,
    may_be_image,
    suffix,
)
from .result_log import MARK
from .seen_files import Stamp

Say = Callable[[str], None]


def may_be_taken(name: str) -> bool:
    """Return whether a file may be an image, by its name and those of the folders that it is in."""
    *folders, base = name.split("/")
    if any(_closed(folder) for folder in folders) or is_side_file(base):
        return False
    if is_placeholder(base):
        return True
    named = looks_like_image(base) or (may_be_image(base) and not is_unfinished(base))
    return named and not base.startswith(".")


def is_taken(path: Path) -> bool:
    """Return whether a file whose name may be an image's is one.

    It is if it has an image's ending, unless it is a camera's raw file beside its picture; or if it begins as
    images do.

    Raises
    ------
    OSError
        If that cannot be told.
    """
    if is_placeholder(path.name):
        return True
    if is_master(path.name):
        return not any(_beside(path, ending) for ending in IMAGE_SUFFIXES if not is_master(f"a{ending}"))
    if looks_like_image(path.name):
        return True
    with open_regular(path) as file:
        return is_image(read_start(file))


def files_below(
    root: Path, inside: str, enter: Callable[[str], None], say: Say
) -> Iterator[tuple[str, Stamp]]:
    """Yield the names, relative to ``root``, and stamps of files in its folder ``inside`` and below.

    ``enter`` is called with each folder's name before its files are listed.  Every folder is searched once,
    whatever links lead to it.  What vanishes meanwhile is passed over; of a folder that is closed to us
    ``say`` is told.

    Raises
    ------
    OSError
        If ``inside`` cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting, linked = [inside], deque[str]()  # links come last: a folder has its own name if it has one
    while waiting or linked:
        name = waiting.pop() if waiting else linked.popleft()
        try:
            found = (root / name).stat()
            if (found.st_dev, found.st_ino) in seen or (name and _holds_results(root / name)):
                continue
            seen.add((found.st_dev, found.st_ino))
            enter(name)
            with os.scandir(root / name) as entries:
                for entry in entries:
                    full = f"{name}/{entry.name}" if name else entry.name
                    if _is_folder(entry):
                        if not _closed(entry.name):
                            (linked if entry.is_symlink() else waiting).append(full)
                    elif may_be_taken(full):
                        with suppress(OSError):  # gone again, or a link to nothing
                            status = entry.stat()
                            yield full, (status.st_mtime_ns, status.st_size)
        except (OSError, LotError) as error:
            if name == inside:
                raise
            if not isinstance(error, FileNotFoundError):
                say(f"{root / name} cannot be searched: {getattr(error, 'strerror', None) or error}")


def _closed(folder: str) -> bool:
    """Return whether a folder of this name is none of the line's: hidden, or of other programs."""
    return folder.startswith(".") or is_side_folder(folder)


def _holds_results(folder: Path) -> bool:
    return (folder / MARK).exists() or is_results(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _beside(path: Path, ending: str) -> bool:
    stem = path.name[: len(path.name) - len(suffix(path.name))]
    return any(path.with_name(f"{stem}{each}").exists() for each in (ending, ending.upper()))
