"""Tables as CSV, plain or as spreadsheets open them well."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..._files import read_regular

CSV_FORMS = ("plain", "excel")
_TEXTS = {"image", "map", "error"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula, or hides one behind it; the last four are =, +, - and @ as East Asian keyboards type
them."""
_LARGEST = 1 << 28  # bytes


def write_table(path: Path, rows: list[list[str]], form: str, columns: Sequence[str]) -> None:
    """Write rows of ``columns`` as CSV in one of CSV_FORMS.

    plain: UTF-8, in which names that are not UTF-8 keep their bytes.  excel: with a byte order mark, by which
    spreadsheets know UTF-8, and no cell that they would run as a formula.
    """
    excel = form == "excel"
    encoding, errors = ("utf-8-sig", "backslashreplace") if excel else ("utf-8", "surrogateescape")
    with path.open("w", encoding=encoding, errors=errors, newline="") as file:
        file.write(csv_line(columns))
        for row in rows:
            cells = [_neutral(*pair) for pair in zip(columns, row, strict=True)] if excel else row
            file.write(csv_line(cells))


def csv_line(cells: Sequence[str]) -> str:
    """Return a line of CSV, with a line feed at its end."""
    # The csv module leaves a carriage return in a name unquoted.
    all_quoted = any("\r" in cell for cell in cells)
    line = io.StringIO(newline="")
    csv.writer(
        line, lineterminator="\n", quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    ).writerow(cells)
    return line.getvalue()


def _neutral(column: str, cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe."""
    return f"'{cell}" if column in _TEXTS and cell.startswith(_FORMULA) else cell


def read_table(path: Path, form: str = "plain") -> tuple[list[str], list[dict[str, str]]]:
    """Read a table that ``write_table`` wrote: its columns, and each row by column.

    Raises
    ------
    OSError
        If it cannot be read, or is larger than 256 MB.
    ValueError, csv.Error
        If it is damaged.
    """
    text = read_regular(path, _LARGEST).decode("utf-8-sig", "surrogateescape")
    table = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(table.fieldnames or ())
    rows = list(table)
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row has more or fewer cells than the first line")
    if form == "excel":
        rows = [{column: _plain(column, cell) for column, cell in row.items()} for row in rows]
    return columns, rows


def _plain(column: str, cell: str) -> str:
    """A cell without the apostrophe that ``_neutral`` put before it."""
    return cell[1:] if column in _TEXTS and cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
