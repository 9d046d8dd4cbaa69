"""The fonts of this machine, and which of them has a letter.

They are looked for where the XDG base directory specification has them: ~/.local/share/fonts,
/usr/local/share/fonts, /usr/share/fonts.  A font is named by its file; OWN is Pillow's own, which has ASCII
alone.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import cast

from PIL import ImageFont, features

OWN = ""
SAMPLES = {
    "German": "äß",
    "Greek": "λ",
    "Russian": "щ",
    "Hebrew": "א",
    "Arabic": "ع",
    "Hindi": "हि",
    "Thai": "ช",
    "Chinese": "检",
    "Japanese": "ひ",
    "Korean": "한",
}
"""Letters of some scripts, each of a language by which people know it."""
INSTALL = "install one, such as Debian's fonts-noto-core, or fonts-noto-cjk for Chinese, Japanese and Korean"
_SUFFIXES = {".ttf", ".ttc", ".otf"}
_FIRST = ("DejaVuSans", "NotoSans-Regular", "LiberationSans-Regular", "NotoSansCJK-Regular")
_STYLED = re.compile("bold|italic|oblique|light|thin|black|condensed|narrow|medium|mono|serif", re.IGNORECASE)
_NOBODYS = (
    "\U0010fffd"  # for private use: what a font draws in its place stands for every letter that it lacks
)
_SIZE = 16  # pixels, of the letters that are tried
_BASIC, _JOINING = ImageFont.Layout.BASIC, ImageFont.Layout.RAQM


@lru_cache(64)
def open_font(font: str, size: int) -> ImageFont.FreeTypeFont:
    """Open a font in a size in pixels, with letters that join if this Pillow can join them."""
    if font == OWN:
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
    return ImageFont.truetype(font, size, layout_engine=_JOINING if features.check("raqm") else _BASIC)


def font_with(letters: str) -> str | None:
    """Return the first font that has all these letters; None if none has."""
    return next((font for font in (OWN, *_fonts(_folders())) if all(has(font, c) for c in letters)), None)


@lru_cache(1 << 16)
def font_of(letter: str) -> str | None:
    """Return the first font that has a letter; None if none has."""
    return font_with(letter)


@lru_cache(1 << 18)
def has(font: str, letter: str) -> bool:
    """Whether a font has a letter."""
    if letter.isascii() and font == OWN:
        return True
    drawn = _drawn(font, letter)
    return drawn is not None and (letter.isspace() or drawn != _drawn(font, _NOBODYS))


def _drawn(font: str, letter: str) -> bytes | None:
    """A letter's size and pixels; None if the file is no font that can be used."""
    try:
        mask = _opened_plain(font).getmask(letter)
    except (OSError, ValueError):
        return None
    return bytes(f"{mask.size} ", "ascii") + bytes(mask)


@lru_cache(512)
def _opened_plain(font: str) -> ImageFont.FreeTypeFont:
    if font == OWN:
        return open_font(OWN, _SIZE)
    return ImageFont.truetype(font, _SIZE, layout_engine=_BASIC)


# ---- files -----------------------------------------------------------------------------------


def _folders() -> tuple[str, ...]:
    """The folders of fonts, the user's own first."""
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111 - raises nothing without a home
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return tuple(f"{base}/fonts" for base in (home, *shared.split(":")) if base.startswith("/"))


@lru_cache(8)
def _fonts(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The files of fonts, each name once, the best for plain text first."""
    found: dict[str, str] = {}
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                if Path(name).suffix.lower() in _SUFFIXES:
                    found.setdefault(name, f"{parent}/{name}")
    return tuple(sorted(found.values(), key=_preference))


def _preference(font: str) -> tuple[int, str]:
    """Sort key: the known ones, then upright sans, then upright, then any."""
    name = Path(font).stem
    if name in _FIRST:
        return _FIRST.index(name), name
    styled = _STYLED.search(name) is not None
    return len(_FIRST) + 2 * styled + ("sans" not in name.lower()), name
