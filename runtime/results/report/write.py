"""Write the report of a folder of results."""

from __future__ import annotations

import base64
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...._files import remove_folder, write_pieces
from ...._json import parse_json
from ...._version import __version__
from ...errors import LotError, OutputError
from ...memory import memory_left
from ...types import LotRoot, Progress, no_progress
from ..image_files import Missing, optional
from ..lot_scores import LotScores
from ..output import new_folder
from ..read_results import read_results
from ..write import LOT, REPORT, write_json
from .content import Grids, Part, colour_maps, part_content, parts_of
from .html import page
from .originals import find_root
from .pictures import Kept, Pictures
from .thumbnails import SUFFIXES, Reading, Shelf, shelf_in, side

Image = dict[str, Any]
Address = Callable[[Kept], str]

INLINE = 18_000_000
"""Bytes of thumbnails up to which they are in the page itself; more of them are in a folder beside it."""
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
    target = target or out / REPORT
    try:
        return _write(out, target, images, grids, room, progress)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}. Choose another with -o.") from error


def add_report(
    folder: Path,
    images: LotRoot | None = None,
    grids: Grids | None = None,
    room: int | None = None,
    progress: Progress = no_progress,
) -> list[str]:
    """Write the report into results that are being made; a failure is one of the warnings in lot.json.

    Parameters as for ``write_report``; returns that warning, if there is one.

    Raises
    ------
    OSError
        If the disk is full or fails.
    """
    failed: list[Missing] = []
    with optional("report", folder / REPORT, failed, folder) as target:
        _write(folder, target, images, grids, room, progress)
    warnings = [str(each) for each in failed]
    if warnings:
        about = parse_json((folder / LOT).read_bytes())
        about["warnings"] += warnings
        write_json(folder / LOT, about)
    return warnings


def add_report_of(
    lots: Sequence[LotScores], folder: Path, root: LotRoot, progress: Progress = no_progress
) -> list[str]:
    """Write the report of lots into their results, which are being made; as ``add_report``.

    Their maps are at hand, and images are decoded in what their memory budget leaves.
    """
    budget = lots[0].run.plan.budget
    grids = {image.name: grid for lot in lots for image, grid in zip(lot.images, lot.maps, strict=True)}
    return add_report(folder, root, grids, None if budget is None else memory_left(budget), progress)


def _write(
    out: Path, target: Path, folder: LotRoot | None, grids: Grids | None, room: int | None, progress: Progress
) -> list[Path]:
    parts, lots = _content(out, grids)
    total, beside = sum(len(images) for _, images in lots), target.with_name(f"{target.stem}-files")
    page_folder = target.parent.resolve()
    with shelf_in(target.parent) as shelf:
        kept = []
        for part, (facts, images) in zip(parts, lots, strict=True):
            root = folder or find_root(facts["lot"], out, (image["name"] for image in images))
            facts["found"] = root is not None
            reading = Reading(int(part.lot.settings["bit_depth"]), int(part.lot.settings["max_pixels"]))
            root = root.resolve() if isinstance(root, Path) else root
            pictures = Pictures(root, reading, side(total), room, page_folder)
            kept.append(pictures.add(images, shelf, progress))
        if outside := shelf.size > INLINE:
            kept_in_order = [each for of_lot in kept for each in of_lot]
            _store(kept_in_order, shelf, beside, target.name)
        address = _file_names(beside.name) if outside else _inline(shelf)
        named = (
            (facts, _with_pictures(images, each, address))
            for (facts, images), each in zip(lots, kept, strict=True)
        )
        write_pieces(target, page(_head(), named))
    if outside:
        return [target, beside]
    if (beside / MARKER).is_file():  # of an earlier report, of more pictures
        remove_folder(beside)
    return [target]


def _content(out: Path, grids: Grids | None) -> tuple[list[Part], list[tuple[dict[str, Any], list[Image]]]]:
    lots = read_results(out)
    try:
        parts = parts_of(lots, out)
        return parts, [part_content(part, grids) for part in parts]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise LotError(f"the results in {out} are damaged: {error!r}. Score the lot again.") from error


def _head() -> dict[str, Any]:
    return {"format": "musc-edge report", "schema": 1, "version": __version__, "colours": colour_maps()}


def _with_pictures(images: list[Image], kept: list[Kept | None], address: Address) -> Iterator[Image]:
    """Yield what the page is told of each image, with the address of its thumbnail."""
    for image, thumbnail in zip(images, kept, strict=True):
        yield {**image, "picture": address(thumbnail)} if thumbnail else image


def _inline(shelf: Shelf) -> Address:
    """Addresses that are the thumbnails themselves."""

    def address(kept: Kept) -> str:
        content = base64.b64encode(shelf.get(kept.place)).decode("ascii")
        return f"data:image/{kept.form.lower()};base64,{content}"

    return address


def _file_names(folder: str) -> Address:
    """Addresses of thumbnails in a folder beside the page."""
    return lambda kept: f"{quote(os.fsencode(folder))}/{_file_name(kept)}"


def _file_name(kept: Kept) -> str:
    return f"{kept.place[0]:010d}{SUFFIXES[kept.form]}"


def _store(kept: list[Kept | None], shelf: Shelf, folder: Path, page_name: str) -> None:
    """Write the thumbnails as files of ``folder``, in place of those of an earlier report."""
    with new_folder(folder, True, MARKER) as staged:
        (staged / MARKER).write_text(_MARK.format(page_name), encoding="utf-8", errors="surrogateescape")
        for each in filter(None, kept):
            (staged / _file_name(each)).write_bytes(shelf.get(each.place))
