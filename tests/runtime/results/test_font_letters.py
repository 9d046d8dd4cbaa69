"""Which letters a font has, against fontTools; and files that are no fonts."""

from __future__ import annotations

import random
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from musc_edge.runtime.results.font_letters import read_letters
from support.tiny_fonts import write_font

matplotlib: Any = import_module("matplotlib")
FONTS = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))


def of_fonttools(path: Path) -> set[int]:
    with import_module("fontTools.ttLib").TTFont(path, lazy=True) as font:
        return set(font.getBestCmap())


def of_ours(path: Path) -> set[int]:
    letters = read_letters(str(path))
    return {code for code in range(0x20000) if chr(code) in letters}


@pytest.mark.parametrize("path", FONTS[::6], ids=lambda path: path.stem)
def test_fonts_as_there_are(path: Path) -> None:
    """matplotlib's: DejaVu, Computer Modern, STIX."""
    assert of_ours(path) == of_fonttools(path)


@pytest.mark.parametrize(
    "letters", ["a", "azäж", "零件缺陷", "😀a🔥零", "".join(map(chr, range(0x400, 0x500, 3)))]
)
def test_fonts_of_a_few_letters(tmp_path: Path, letters: str) -> None:
    path = write_font(tmp_path / "font.ttf", letters)
    assert of_ours(path) == set(map(ord, letters)) == of_fonttools(path)


def test_first_font_of_a_collection(tmp_path: Path) -> None:
    font = write_font(tmp_path / "font.ttf", "件").read_bytes()
    head = b"ttcf" + struct.pack(">HHII", 1, 0, 1, 16)
    tables = bytearray(font)
    for i in range(struct.unpack_from(">H", font, 4)[0]):
        at = 12 + 16 * i + 8
        struct.pack_into(">I", tables, at, struct.unpack_from(">I", font, at)[0] + 16)
    (tmp_path / "font.ttc").write_bytes(head + bytes(tables))
    assert of_ours(tmp_path / "font.ttc") == {ord("件")}


@pytest.mark.parametrize("content", [b"", b"ttcf", b"not a font at all", b"\0\1\0\0\xff\xff" + bytes(50)])
def test_what_is_no_font_has_no_letters(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "font.ttf").write_bytes(content)
    assert "a" not in read_letters(str(tmp_path / "font.ttf"))
    assert "a" not in read_letters(str(tmp_path / "nowhere.ttf"))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_fonts_raise_nothing(tmp_path: Path, seed: int) -> None:
    content = bytearray(write_font(tmp_path / "font.ttf", "azäж零😀").read_bytes())
    dice = random.Random(seed)
    for _ in range(8):
        content[dice.randrange(min(len(content), 600))] = dice.randrange(256)
    (tmp_path / "bad.ttf").write_bytes(content[: dice.randrange(len(content))])
    letters = read_letters(str(tmp_path / "bad.ttf"))
    assert len([c for c in map(chr, range(0x20000)) if c in letters]) < 0x20000
