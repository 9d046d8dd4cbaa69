"""Judge results anew, in their folder: verdicts, lot.json and regions change, all at once or not at all.

A new folder is made beside the results, in which every other file is the same file under a second name (a
hard link; a copy where the file system has none), and takes the place of the old one when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LotError
from ..types import Array
from ..verdict.flagged import flagged_regions
from ..verdict.judge import Judgement, judge_lot
from ..verdict.kept import kept_min_region, kept_rule
from ..verdict.limits import as_written
from ..verdict.marks import Mark, Marks, marks_of
from ..verdict.regions import Region, SizedMap
from ..verdict.rules import Rule
from .output import new_folder, resolve
from .read_results import ScoredLot, read_about, read_results
from .region_files import COLUMNS as REGION_COLUMNS
from .region_files import REGIONS, region_rows
from .report.write import add_report
from .tables import read_table, write_table
from .write import LOT, NAMES, REPORT, REPORT_FILES, SCORES, write_json

_INSTEAD = "Give a folder that musc-edge infer wrote."
_JUDGED = ("verdict", "p")


@dataclass(frozen=True)
class Request:
    """How to judge: ``clear`` takes verdicts and marks away; what is None stays as it was."""

    rule: Rule | None = None
    marks: Marks | None = None
    min_region: int | None = None
    clear: bool = False


@dataclass(frozen=True)
class Rejudged:
    """A lot, or a group of it, with its verdicts; ``unlocated`` are flagged images of unknown size."""

    lot: ScoredLot
    judgement: Judgement | None
    regions: tuple[tuple[str, list[Region]], ...] = ()
    unlocated: tuple[str, ...] = ()


def judged_results(out: Path, request: Request, regions: bool = True) -> list[Rejudged]:
    """Read results and judge them, without writing anything; ``regions`` says whether to find these too.

    Raises
    ------
    LotError
        If there are no results, they are damaged, the marks are about others, or a rule has nothing to say of
        any of the lots.
    """
    lots = read_results(out)
    if request.marks:
        names = [image.name for lot in lots for image in lot.images]
        request.marks.require_about(lots[0].lot, lots[0].made_by.bundle, names)
    judged = [_judge(lot, request, regions) for lot in lots]
    refused = [each.judgement.limits.refused for each in judged if each.judgement]
    if request.rule and len(refused) == len(lots) and all(refused):
        raise LotError(f"{out}: {refused[0]}.")
    return judged


def rejudge(out: Path, request: Request) -> list[Rejudged]:
    """Judge results anew and write the verdicts into their folder.

    Raises
    ------
    LotError
        As ``judged_results``.
    OutputError
        If the folder holds something else, is in use, or cannot be written.  It is unchanged then.
    """
    judged_results(out, request, regions=False)  # what is wrong is said before anything is made
    target = resolve(out, _INSTEAD)
    with new_folder(out, True, LOT, NAMES, _INSTEAD) as folder:
        judged = judged_results(target, request)  # nobody else writes it from here on
        inner = [each.lot.folder.relative_to(target) for each in judged]
        changed = {name for place in (Path(), *inner) for name in _files(place)} | {REPORT, REPORT_FILES}
        _link(target, folder, changed)
        for each, place in zip(judged, inner, strict=True):
            _write(each, folder / place)
        if inner != [Path()]:
            _combine(target, folder, judged)
        if (target / REPORT).exists():  # it shows the verdicts
            add_report(folder)
    return judged


def _files(place: Path) -> tuple[str, ...]:
    return tuple(str(place / name) for name in (SCORES, LOT, REGIONS))


def _judge(lot: ScoredLot, request: Request, with_regions: bool) -> Rejudged:
    facts = lot.about.get("verdicts")
    if request.clear:
        return Rejudged(lot, None)
    marks: Mapping[str, Mark] = request.marks.marks if request.marks else marks_of(facts)
    rule = request.rule or kept_rule(facts, _column_p(lot))
    least = kept_min_region(facts) if request.min_region is None else request.min_region
    names = [image.name for image in lot.images]
    raw, scores = (np.array([getattr(image, by) for image in lot.images]) for by in ("raw_score", "score"))
    marked = {name: marks[name] for name in names if name in marks}
    if rule is None and not marked:
        return Rejudged(lot, None)
    judgement = judge_lot(names, raw, scores, rule, lot.made_by, marked, least, lot.judge_by)
    unlocated: list[str] = []
    regions = tuple(_regions(lot, judgement, as_written(raw), unlocated)) if with_regions else ()
    return Rejudged(lot, judgement, regions, tuple(unlocated))


def _regions(
    lot: ScoredLot, judgement: Judgement, raw: Array, unlocated: list[str]
) -> Iterator[tuple[str, list[Region]]]:
    def map_of(row: int) -> SizedMap | None:
        found = lot.sized_map(lot.images[row])
        if found is None and lot.images[row].map:
            unlocated.append(lot.images[row].name)
        return found

    yield from flagged_regions([image.name for image in lot.images], raw, judgement, map_of)


def _column_p(lot: ScoredLot) -> Array | None:
    values = [image.p for image in lot.images]
    return None if None in values else np.array(values)


def _link(source: Path, target: Path, changed: set[str]) -> None:
    """Give every file of a folder but those that change a second name in another; links stay links."""
    for place, folders, files in os.walk(source):
        relative = Path(place).relative_to(source)
        folders[:] = [name for name in folders if str(relative / name) not in changed]
        inner = [name for name in folders if not (Path(place) / name).is_symlink()]
        for name in inner:
            (target / relative / name).mkdir()
            shutil.copymode(Path(place) / name, target / relative / name)
        for name in {*files, *folders} - {*inner}:
            if str(relative / name) not in changed:
                _second_name(Path(place) / name, target / relative / name)


def _second_name(file: Path, name: Path) -> None:
    try:
        os.link(file, name, follow_symlinks=False)
    except OSError:  # exFAT and some shares have none, and the kernel may forbid it for files of others
        shutil.copy2(file, name, follow_symlinks=False)


def _write(each: Rejudged, folder: Path) -> None:
    """Write the three files of a lot, or of a group of it."""
    cells = _cells(each)
    form = each.lot.settings.get("csv", "plain")
    _write_scores(each.lot.folder, folder, cells, form)
    write_json(folder / LOT, {**each.lot.about, "verdicts": _facts(each)})
    if each.judgement and each.lot.has_maps:
        write_table(folder / REGIONS, region_rows(each.regions), form, REGION_COLUMNS)


def _combine(source: Path, folder: Path, judged: list[Rejudged]) -> None:
    """Write the files of a lot that was scored in groups."""
    form = judged[0].lot.settings.get("csv", "plain")
    cells = {name: cell for each in judged for name, cell in _cells(each).items()}
    _write_scores(source, folder, cells, form)
    about = read_about(source)
    for each in judged:
        about["groups"][str(each.lot.folder.relative_to(source))]["verdicts"] = _facts(each)
    write_json(folder / LOT, about)
    if any(each.judgement and each.lot.has_maps for each in judged):
        rows = [row for each in judged for row in region_rows(each.regions)]
        write_table(folder / REGIONS, rows, form, REGION_COLUMNS)


def _facts(each: Rejudged) -> dict[str, Any] | None:
    return each.judgement.facts() if each.judgement else None


def _cells(each: Rejudged) -> dict[str, tuple[str, str]]:
    if each.judgement is None:
        return {}
    names = [image.name for image in each.lot.images]
    return dict(zip(names, each.judgement.cells(), strict=True))


def _write_scores(source: Path, folder: Path, cells: Mapping[str, tuple[str, str]], form: str) -> None:
    """Write scores.csv with other verdicts; its other columns stay, those that a later version added too."""
    columns, rows = read_table(source / SCORES, form)
    columns += [name for name in _JUDGED if name not in columns]
    for row in rows:
        row.update(zip(_JUDGED, cells.get(row["image"], ("", "")), strict=True))
    write_table(folder / SCORES, [[row[name] for name in columns] for row in rows], form, columns)
