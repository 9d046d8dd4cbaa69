"""Scores as lines of text, for the command line and for ``print(result)``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..settings import RAW_SCORE, SCORE

NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters, as JSON can hold, that stand for no byte of a file's name."""


def ranking(
    rows: Sequence[tuple[str, float, float]], verdicts: Sequence[str] = (), judge_by: str = SCORE
) -> list[str]:
    """A table of images with score and raw score, numbered in the order given; its first line is the head.

    ``verdicts``, where there are any, are of the same images; the column ``judge_by`` comes first.
    """
    head = "   score     raw"
    if judge_by == RAW_SCORE:
        head, rows = "     raw   score", [(name, raw, score) for name, score, raw in rows]
    names = [printable(name) for name, _, _ in rows]
    width = max((columns(name) for name in names), default=0)
    words = [f"  {word}" for word in verdicts] or [""] * len(rows)
    return [f"   # {'image':<{width}}{head}{'  verdict' if verdicts else ''}"] + [
        f"{rank:>4} {name}{' ' * (width - columns(name))}  {first:6.4f}  {second:6.4f}{word}"
        for rank, (name, (_, first, second), word) in enumerate(zip(names, rows, words, strict=True), 1)
    ]


def columns(text: str) -> int:
    """Return a text's columns on a terminal: two for each letter of Chinese, Japanese or Korean."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def printable(name: str) -> str:
    """A file name on one line, whatever bytes are in it."""
    text = NO_BYTE.sub("\ufffd", name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
