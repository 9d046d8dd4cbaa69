"""What a person said of images: good or bad, with a remark, from a file that the report exports, or a table.

As JSON the file says which lot and bundle it is about; as CSV (image, mark, remark) it is taken for any.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._files import read_regular, shown
from ..._json import from_json, parse_json, shortly
from ..errors import LotError
from ..settings import JUDGED
from .limits import FARTHEST

GOOD, BAD = "good", "bad"
FORMAT, SCHEMA = "musc-edge marks", 1
_MARKS = (GOOD, BAD, "")
_LARGEST = 64_000_000  # bytes
_LONGEST = 10_000  # characters of a remark
_NAMED = 3


@dataclass(frozen=True)
class Mark:
    """``good``, ``bad`` or empty, and a remark in free text."""

    mark: str
    remark: str = ""

    def facts(self) -> dict[str, str]:
        """Return the mark as lot.json has it."""
        return {"mark": self.mark, "remark": self.remark}


@dataclass(frozen=True)
class Marks:
    """The content of a file of marks, by the image's name.

    ``lot`` and ``bundle`` are those of the results that it is about, None in a table; ``threshold`` and
    ``review_from``, below it, are the limits that the person proposes, on the column ``judged_by``.
    """

    path: Path
    marks: Mapping[str, Mark]
    lot: str | None = None
    bundle: str | None = None
    threshold: float | None = None
    judged_by: str | None = None
    review_from: float | None = None

    def require_about(self, lot: str, bundle: str, names: Iterable[str]) -> None:
        """Raise LotError unless the marks are about this lot, bundle and images."""
        for what, given, expected in (("lot", self.lot, lot), ("bundle", self.bundle, bundle)):
            if given is not None and given != expected:
                raise LotError(
                    f"{self.path} is about the {what} {shown(shortly(given))}, these results about "
                    f"{shown(shortly(expected))}. Give marks of these results, or a table with the "
                    "columns image, mark, remark, which is taken for any."
                )
        unknown = sorted(set(self.marks) - set(names))
        if unknown:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            raise LotError(
                f"{self.path} marks {', '.join(map(shown, unknown[:_NAMED]))}{more}, for which these results "
                "have no score. Names are those of scores.csv."
            )


def read_marks(path: Path) -> Marks:
    """Read a file of marks, as JSON or CSV.

    Raises
    ------
    LotError
        If it cannot be read, is larger than 64 MB, or is not such a file.
    """
    try:
        content = read_regular(path, _LARGEST)
        return _from_json(path, content) if content.lstrip()[:1] == b"{" else _from_csv(path, content)
    except OSError as error:
        raise LotError(f"the marks {path} cannot be read: {error.strerror}.") from error
    except (ValueError, csv.Error) as error:
        raise LotError(f"{path} is no file of marks: {error}. Export it from the report again.") from error


def marks_of(facts: Any) -> dict[str, Mark]:
    """Return the marks that lot.json has, by image; empty where there are none.

    Raises
    ------
    LotError
        If they are damaged.
    """
    if not isinstance(facts, dict) or not facts.get("marks"):
        return {}
    try:
        return from_json(dict[str, Mark], facts["marks"], "marks")  # type: ignore[no-any-return]
    except ValueError as error:
        raise LotError(f"the marks in lot.json are damaged: {error}. Give them again by --marks.") from error


def _from_json(path: Path, content: bytes) -> Marks:
    value = parse_json(content)
    if value.get("format") != FORMAT or value.get("schema") != SCHEMA:
        raise ValueError(
            f"format {shortly(value.get('format'))} of schema {shortly(value.get('schema'))}, expected "
            f"{FORMAT!r} of schema {SCHEMA}"
        )
    threshold, review_from, judged_by = map(value.get, ("threshold", "review_from", "judged_by"))
    _require_limits(threshold, review_from)
    if judged_by not in JUDGED:
        raise ValueError(f"judged_by {shortly(judged_by)}, expected {' or '.join(JUDGED)}")
    lot, bundle = (from_json(str, value.get(name), name) for name in ("lot", "bundle"))
    rows = value.get("marks")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("its marks are no list of objects")
    marks = _marks((row.get("image"), row.get("mark"), row.get("remark", "")) for row in rows)
    return Marks(path, marks, lot, bundle, threshold, judged_by, review_from)


def _require_limits(threshold: Any, review_from: Any) -> None:
    for name, limit in (("threshold", threshold), ("review_from", review_from)):
        if limit is not None and not (_is_number(limit) and 0 <= limit <= FARTHEST):
            raise ValueError(f"{name} {shortly(limit)}, expected null or a distance from 0 to {FARTHEST:g}")
    if review_from is not None and (threshold is None or review_from >= threshold):
        raise ValueError(f"review_from {shortly(review_from)}, expected null or less than the threshold")


def _from_csv(path: Path, content: bytes) -> Marks:
    text = content.decode("utf-8-sig", "surrogateescape")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    head = rows.fieldnames or []
    if not {"image", "mark"} <= set(head):
        raise ValueError(f"its first line is {shortly(','.join(head))}, expected image,mark,remark")
    return Marks(path, _marks((row["image"], row["mark"], row.get("remark") or "") for row in rows))


def _marks(rows: Iterable[tuple[Any, Any, Any]]) -> dict[str, Mark]:
    """Check marks row by row, and leave out those that say nothing."""
    marks: dict[str, Mark] = {}
    for number, (image, mark, remark) in enumerate(rows, 1):
        where = f"mark {number} ({shortly(image)})"
        if not isinstance(image, str) or not image:
            raise ValueError(f"{where} names no image")
        if image in marks:
            raise ValueError(f"{where} is the second of its image")
        if mark not in _MARKS:
            raise ValueError(f"{where} is {shortly(mark)}, expected good, bad or nothing")
        if not isinstance(remark, str) or len(remark) > _LONGEST:
            raise ValueError(f"{where}: its remark is no text of at most {_LONGEST:,} characters")
        marks[image] = Mark(mark, remark)
    return {image: each for image, each in marks.items() if each != Mark("")}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
