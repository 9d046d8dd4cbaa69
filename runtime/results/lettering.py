"""Draw a line of text of any script, such as a file's name, each letter with a font that has it.

A text is drawn with the first font that has all its letters or, if none has, part by part with the first that
has those.  What no font has is drawn as its number, such as <U+0939>, never as a box.

Parts from right to left (Arabic, Hebrew) stand as the Unicode bidirectional algorithm (UAX 9) has them on a
line from left to right, so that a name's suffix is at its end.  Raqm, which is in Pillow's wheels, joins
letters.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from PIL import ImageDraw, ImageFont

from ..._numbers import counted
from .fonts import INSTALL, OWN, font_of, font_with, has, open_font
from .text import NO_BYTE

LTR, RTL = "ltr", "rtl"
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # cannot be seen, and change the letters beside them
_NAMED = 8  # letters that a note names


@dataclass(frozen=True)
class _Part:
    """Letters of one font that follow each other in one direction."""

    font: str
    text: str
    direction: str

    def how(self, size: int) -> tuple[str, ImageFont.FreeTypeFont, str | None]:
        """The text as Pillow wants it, the font, and the direction if it knows of any."""
        font = open_font(self.font, size)
        text = "".join(c for c in self.text if c not in _JOINERS or has(self.font, c))
        if font.layout_engine == ImageFont.Layout.RAQM:
            return text, font, self.direction
        return text[::-1] if self.direction == RTL else text, font, None


def draw_text(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    fill: tuple[int, int, int] | str,
    size: int,
) -> None:
    """Draw one line of text, ``size`` pixels high, with its upper left corner at ``corner``."""
    x, y = corner
    for part in _parts(text):
        letters, font, direction = part.how(size)
        draw.text((x, y + size), letters, fill, font, anchor="ls", direction=direction)
        x += font.getlength(letters, direction=direction)


def text_width(text: str, size: int) -> float:
    """Width of a line of text in pixels."""
    width = 0.0
    for part in _parts(text):
        letters, font, direction = part.how(size)
        width += font.getlength(letters, direction=direction)
    return width


def shorten(text: str, width: float, size: int) -> str:
    """Cut ``text`` at the start, so that its end fits into ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    cut = bisect_left(range(len(text)), True, key=lambda k: text_width("..." + text[k:], size) <= width)
    while cut < len(text) and (text[cut] in _JOINERS or _is_mark(text[cut])):
        cut += 1
    return "..." + text[cut:]


def shown(name: str) -> str:
    """A file's name as it is drawn: bytes that are no UTF-8, and what cannot be seen, as numbers."""
    text = NO_BYTE.sub("\ufffd", name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() or c in _JOINERS else _number(c) for c in unicodedata.normalize("NFC", text)
    )


def font_note(names: Iterable[str]) -> str:
    """A note on the letters of names that no font here has; empty if there are none."""
    letters = {c for name in names for c in shown(name)} - set(_JOINERS)
    lacking = sorted(c for c in letters if font_of(c) is None)
    if not lacking:
        return ""
    examples = ", ".join(f"{c} {_number(c)}" for c in lacking[:_NAMED])
    if len(lacking) > _NAMED:
        examples += ", ..."
    return (
        f"no font here has {counted(len(lacking), 'letter')} of the images' names ({examples}): "
        f"pictures show their numbers; {INSTALL}"
    )


# ---- parts -----------------------------------------------------------------------------------


@lru_cache(1024)
def _parts(text: str) -> tuple[_Part, ...]:
    """Cut a text into parts, in the order in which they stand from left to right."""
    text = "".join(c if c in _JOINERS or font_of(c) is not None else _number(c) for c in text)
    whole = font_with("".join(set(text) - set(_JOINERS)))
    parts: list[_Part] = []
    for direction, piece in _directions(text):
        pieces = _by_font(piece) if whole is None else [(whole, piece)]
        cut = [_Part(font, letters, direction) for font, letters in pieces]
        parts += cut if direction == LTR else cut[::-1]
    return tuple(parts)


def _by_font(text: str) -> Iterator[tuple[str, str]]:
    """Cut a text into pieces, each with its font, which changes only where it lacks a letter."""
    font, piece = OWN, ""
    for cluster in _clusters(text):
        letters = [c for c in cluster if c not in _JOINERS]
        if piece and not all(has(font, c) for c in letters):
            yield font, piece
            piece = ""
        if not piece:
            font = font_with("".join(letters)) or OWN
        piece += cluster
    if piece:
        yield font, piece


def _clusters(text: str) -> Iterator[str]:
    """Cut a text into letters, each with its marks, as far as a font has them together."""
    cluster = ""
    for c in text:
        together = cluster and (
            c in _JOINERS
            or (_is_mark(c) and font_with("".join(set(cluster + c) - set(_JOINERS))) is not None)
        )
        if cluster and not together:
            yield cluster
            cluster = ""
        cluster += c
    if cluster:
        yield cluster


def _directions(text: str) -> list[tuple[str, str]]:
    """Cut a text into pieces of one direction.

    Numbers have that of the letters before them, and what is neutral is from right to left only between two
    that are.
    """
    kinds = [unicodedata.bidirectional(c) for c in text]
    before, last = [], LTR
    for kind in kinds:
        if kind in ("L", "R", "AL"):
            last = LTR if kind == "L" else RTL
        before.append(last)
    found, behind = list(before), LTR
    for i in reversed(range(len(text))):
        if kinds[i] not in ("L", "R", "AL", "EN", "AN", "NSM", "BN"):
            found[i] = RTL if before[i] == behind == RTL else LTR
        behind = found[i]
    pairs = groupby(zip(found, text, strict=True), key=lambda pair: pair[0])
    return [(direction, "".join(c for _, c in members)) for direction, members in pairs]


def _is_mark(c: str) -> bool:
    return unicodedata.category(c).startswith("M")


def _number(c: str) -> str:
    return f"<U+{ord(c):04X}>"
