"""Write the report of a folder of results."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import Any

from ...._files import remove_folder, write_whole
from ...._version import __version__
from ...errors import LotError, OutputError
from ...types import Progress, no_progress
from ..output import new_folder
from ..read_results import ScoredLot, read_results
from ..write import REPORT
from .content import Grids, Part, colour_maps, part_content, parts_of
from .html import page
from .originals import find_root
from .pictures import Pictures, Place
from .thumbnails import SUFFIXES, Reading, Shelf, shelf, side

INLINE = 18_000_000
"""Bytes of thumbnails up to which they are in the page itself; a report beyond has them in a folder beside it."""
MARKER = "report.txt"
_MARK = "The pictures of {}, beside this folder. Written by musc-edge, which replaces it as a whole.\n"


def write_report(
    out: Path,
    target: Path | None = None,
    *,
    images: Path | None = None,
    grids: Grids | None = None,
    room: int | None = None,
    progress: Progress = no_progress,
) -> list[Path]:
    """Write the report of the results in ``out``.

    Parameters
    ----------
    target : the page's file; by default report.html in ``out``.
    images : folder that the images' names are relative to, if it is not where it was.
    grids : maps on the grid (Gh,Gw) by image; by default those of the results.
    room : bytes of memory for decoding an image; by default what is free.

    Returns
    -------
    The page and, if the thumbnails are not in it, their folder.

    Raises
    ------
    LotError
        If ``out`` holds no results, or they are damaged.
    OutputError
        If the report cannot be written.
    """
    lots, target = read_results(out), target or out / REPORT
    try:
        parts = parts_of(lots, out)
        contents = [part_content(part, grids) for part in parts]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise LotError(f"the results in {out} are damaged: {error!r}. Score the lot again.") from error
    try:
        return _write(target, out, parts, contents, images, room, progress)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}. Choose another with -o.") from error


def _write(
    target: Path,
    out: Path,
    parts: list[Part],
    contents: list[dict[str, Any]],
    folder: Path | None,
    room: int | None,
    progress: Progress,
) -> list[Path]:
    total = sum(len(part.rows) for part in parts)
    with shelf(target.parent) as kept:
        placed = []
        for part, content in zip(parts, contents, strict=True):
            root = folder or find_root(content["lot"], out, (row["image"] for row in part.rows))
            content["found"] = root is not None
            pictures = Pictures(root, _reading(part.lot), side(total), room, target)
            placed += list(pictures.add(content["images"], kept, progress))
        files = target.with_name(f"{target.stem}-files")
        if kept.size > INLINE:
            with new_folder(files, True, MARKER) as staged:
                (staged / MARKER).write_text(_MARK.format(target.name), encoding="utf-8")
                _store(placed, kept, staged, files.name)
        else:
            _embed(placed, kept)
        write_whole(target, page({**_head(), "lots": contents}))
    if kept.size > INLINE:
        return [target, files]
    if (files / MARKER).is_file():  # of an earlier report, of more pictures
        remove_folder(files)
    return [target]


def _head() -> dict[str, Any]:
    return {"format": "musc-edge report", "schema": 1, "version": __version__, "colours": colour_maps()}


def _reading(lot: ScoredLot) -> Reading:
    return Reading(int(lot.settings["bit_depth"]), int(lot.settings["max_pixels"]))


def _embed(placed: list[tuple[dict[str, Any], Place, str]], kept: Shelf) -> None:
    """Put the thumbnails into the page as addresses of their own."""
    for image, place, form in placed:
        content = base64.b64encode(kept.get(place)).decode("ascii")
        image["picture"] = f"data:image/{form.lower()};base64,{content}"


def _store(placed: list[tuple[dict[str, Any], Place, str]], kept: Shelf, folder: Path, name: str) -> None:
    """Put the thumbnails into ``folder``, which will be called ``name``."""
    for number, (image, place, form) in enumerate(placed, 1):
        file = f"{number:05d}{SUFFIXES[form]}"
        (folder / file).write_bytes(kept.get(place))
        image["picture"] = f"{name}/{file}"
