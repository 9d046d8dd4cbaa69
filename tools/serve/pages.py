"""The pages for people: what is here, and the last images."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

_PARTS = Path(__file__).parent / "page"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}

FILES = ("page.css", "recent.js", "icon.svg")
"""What the pages load."""


def part(name: str) -> tuple[bytes, str]:
    """Return a file of the pages, and its type."""
    return (_PARTS / name).read_bytes(), f"{_TYPES[Path(name).suffix]}; charset=utf-8"


def index(references: Iterable[dict[str, Any]], address: str, with_token: bool) -> str:
    """Return the page on what is here: the references, and how to ask."""
    rows = "".join(_row(each) for each in references)
    token = "-H 'Authorization: Bearer TOKEN' " if with_token else ""
    names = [str(each["name"]) for each in references]
    return (
        (_PARTS / "index.html")
        .read_text(encoding="utf-8")
        .replace("@ROWS@", rows)
        .replace("@TOKEN@", escape(token))
        .replace("@ADDRESS@", escape(address))
        .replace("@NAME@", escape(names[0]))
    )


def _row(about: dict[str, Any]) -> str:
    limit = about["reject_above"]
    above = "no image can be rejected" if limit is None else f"{limit:.3f}"
    cells = [
        f"<th scope='row'>{escape(str(about['name']))}</th>",
        f"<td class='number'>{about['images']}</td>",
        f"<td class='number'>{about['calibration']}</td>",
        f"<td class='number'>{100 * about['alpha']:g} %</td>",
        f"<td class='number'>{above}</td>",
    ]
    notes = "".join(f"<p>{escape(text)}</p>" for text in (about["promise"], *about["cautions"]))
    return f"<tr>{''.join(cells)}</tr><tr class='notes'><td colspan='5'>{notes}</td></tr>"
