"""Fonts of a few letters, each drawn as a bar of its own height, and a box for every other one.

fontTools comes with matplotlib, of the extra bench.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from musc_edge.runtime.results.fonts import _fonts, _letters, _opens, font_of, open_font
from musc_edge.runtime.results.lettering import _parts

EM = 1000


def write_font(path: Path, letters: str) -> Path:
    """A TrueType font with ``letters``; every other letter is a hollow box."""
    builder: Any = import_module("fontTools.fontBuilder").FontBuilder(EM)
    names = {ord(c): f"u{ord(c):04X}" for c in dict.fromkeys(letters)}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    bars = {name: _bar(300 + 400 * (code % 97) // 97) for code, name in names.items()}
    builder.setupGlyf({".notdef": _bar(800, hollow=True), **bars})
    builder.setupHorizontalMetrics(dict.fromkeys(builder.font.getGlyphOrder(), (600, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path


@contextmanager
def only_fonts_of(place: Path) -> Iterator[Path]:
    """Yield the folder below ``place`` in which alone fonts are looked for."""
    folder = place / "share" / "fonts"
    elsewhere = {"XDG_DATA_HOME": f"{place}/home", "XDG_DATA_DIRS": f"{place}/nowhere:{folder.parent}"}
    with mock.patch.dict(os.environ, elsewhere):
        forget()
        yield folder
    forget()


def forget() -> None:
    """Forget what is kept of fonts for the length of a process."""
    for kept in (_parts, font_of, open_font, _letters, _opens, _fonts):
        kept.cache_clear()


def _bar(height: int, *, hollow: bool = False) -> Any:
    pen = import_module("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    corners = [[(50, 0), (50, height), (500, height), (500, 0)]]
    if hollow:
        corners.append([(150, 100), (400, 100), (400, height - 100), (150, height - 100)])
    for first, *others in corners:
        pen.moveTo(first)
        for corner in others:
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()
