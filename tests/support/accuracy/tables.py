"""Tables of docs/accuracy.md from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .measured import Row

Key = Callable[[Row], str]
Column = tuple[str, Key]
"""A title, and what stands below it for a row."""


def mean_and_spread(values: Sequence[float]) -> str:
    """Such as "0.912 ± 0.013", mean and standard deviation; a single value alone, none as a dash."""
    defined = [value for value in values if not np.isnan(value)]
    if not defined:
        return "–"
    if len(defined) == 1:
        return f"{defined[0]:.3f}"
    return f"{np.mean(defined):.3f} ± {np.std(defined, ddof=1):.3f}"


def table(rows: Iterable[Row], down: Sequence[Column], across: Key) -> list[str]:
    """Make a Markdown table: a line for each different ``down``, a column for each ``across``.

    Parameters
    ----------
    down : the first columns, each with its title and what stands in it.
    across : the title of the column that a row's value belongs to.
    """
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        line = tuple(of(row) for _, of in down)
        columns[across(row)] = None
        cells.setdefault(line, {}).setdefault(across(row), []).append(row.value)
    titles = [title for title, _ in down] + list(columns)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for line, of_line in cells.items():
        values = [mean_and_spread(of_line.get(column, [])) for column in columns]
        lines.append(f"| {' | '.join([*line, *values])} |")
    return lines


def pairs(rows: Iterable[Row]) -> list[str]:
    """Lines of a table: of each case, size and degrees every lot's "raw → rescored", and the mean change."""
    lots: dict[tuple[str, int, str], dict[int, dict[str, float]]] = {}
    for row in rows:
        of_case = lots.setdefault((row.case, row.images, row.degrees), {})
        of_case.setdefault(row.draw, {})[row.how] = row.value
    lines = ["| lots | images | degrees | each lot, raw → rescored | mean change |", "|---|---|---|---|---|"]
    for (case, images, degrees), draws in lots.items():
        each = ", ".join(f"{lot['raw']:.3f} → {lot['rescored']:.3f}" for lot in draws.values())
        change = np.mean([lot["rescored"] - lot["raw"] for lot in draws.values()])
        lines.append(f"| {case} | {images} | {degrees} | {each} | {change:+.3f} |")
    return lines
