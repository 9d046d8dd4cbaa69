"""Where the images of a lot lie now, seen from its results, and how a page links to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote


def find_root(lot: str, out: Path, names: Iterable[str]) -> Path | None:
    """Return the folder that the images' names are relative to, or None if it is not there any more.

    ``lot`` is what was given to musc-edge infer.  A relative one is looked for from here, and from each
    folder around the results ``out``, for the current folder of that run is not known.
    """
    first = next((name for name in names if inside(name)), None)
    for folder in _candidates(lot, out):
        if folder.is_dir() and (first is None or is_file(folder / first)):
            return folder
    return None


def inside(name: str) -> bool:
    """Whether an image's name stays in the lot's folder: results may come from a stranger."""
    path = PurePosixPath(name)
    return name != "" and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def link(path: Path, page: Path) -> str:
    """Return the address of a file, relative to the folder ``page``, with the bytes of its name quoted.

    Both without links in them, for a browser takes each .. for the folder before it in the address.
    """
    return quote(os.fsencode(os.path.relpath(path, page)))


def _candidates(lot: str, out: Path) -> Iterator[Path]:
    yield Path(lot)
    if not Path(lot).is_absolute():
        for parent in out.absolute().parents:
            yield parent / lot


def is_file(path: Path) -> bool:
    """Whether there is a file that can be seen from here."""
    try:
        return path.is_file()
    except OSError:  # a part of it may not be entered, or is too long
        return False
