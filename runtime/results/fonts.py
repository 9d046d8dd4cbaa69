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

from .font_letters import Letters, read_letters

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
_BASIC, _JOINING = ImageFont.Layout.BASIC, ImageFont.Layout.RAQM


@lru_cache(64)
def open_font(font: str, size: int) -> ImageFont.FreeTypeFont:
    """Open a font in a size in pixels, with letters that join if this Pillow can join them."""
    if font == OWN:
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
    return ImageFont.truetype(font, size, layout_engine=_JOINING if features.check("raqm") else _BASIC)


def font_with(letters: str) -> str | None:
    """Return the first font that has all these letters; None if none has."""
    if all(has(OWN, c) for c in letters):
        return OWN  # without looking for others
    return next((font for font in _fonts(_folders()) if all(has(font, c) for c in letters)), None)


@lru_cache(1 << 16)
def font_of(letter: str) -> str | None:
    """Return the first font that has a letter; None if none has."""
    return font_with(letter)


def has(font: str, letter: str) -> bool:
    """Whether a font has a letter."""
    return letter.isascii() if font == OWN else letter in _letters(font) and _opens(font)


@lru_cache(1 << 14)
def _letters(font: str) -> Letters:
    return read_letters(font)


@lru_cache(1 << 10)
def _opens(font: str) -> bool:
    try:
        open_font(font, 12)
    except (OSError, ValueError):
        return False
    return True


# ---- files -----------------------------------------------------------------------------------


def _folders() -> tuple[str, ...]:
    """The folders of fonts, the user's own first."""
    # Unlike Path's, this expanduser raises nothing where there is no home.
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111
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
