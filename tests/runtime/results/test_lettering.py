"""Names of any script in pictures: which font, in which order, and what is said where there is none."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from musc_edge.runtime.results.fonts import OWN, SAMPLES, font_with
from musc_edge.runtime.results.lettering import (
    _directions,
    _parts,
    draw_text,
    font_note,
    shorten,
    shown,
    text_width,
)
from support.lots import Array
from support.tiny_fonts import forget, only_fonts_of, write_font

ASCII = string.printable[:95]


@pytest.fixture
def fonts(tmp_path: Path) -> Iterator[Path]:
    """The folder that alone has fonts."""
    with only_fonts_of(tmp_path) as folder:
        yield folder


def drawn(text: str, size: int = 24) -> Array:
    canvas = Image.new("RGB", (900, 60), "white")
    draw_text(ImageDraw.Draw(canvas), (5, 5), text, (0, 0, 0), size)
    return np.asarray(canvas)


def fonts_of(text: str) -> list[tuple[str, str]]:
    return [(Path(part.font).stem, part.text) for part in _parts(text)]


# ---- which font ------------------------------------------------------------------------------


def test_ascii_needs_no_font_of_the_system(fonts: Path) -> None:
    write_font(fonts / "DejaVuSans.ttf", ASCII + "äö")
    assert fonts_of("plain_01.png") == [("", "plain_01.png")]


def test_a_text_is_in_one_font_if_one_has_it_all(fonts: Path) -> None:
    write_font(fonts / "A-Regular.ttf", "öü")
    whole = write_font(fonts / "deep" / "er" / "B-Regular.ttf", ASCII + "öü")
    assert fonts_of("größe"[:3] + "ö.png") == [(whole.stem, "größe"[:3] + "ö.png")]


def test_else_each_part_is_in_the_first_font_that_has_it(fonts: Path) -> None:
    write_font(fonts / "NotoSansThai-Regular.ttf", "ชน")
    write_font(fonts / "NotoSansCJK-Regular.ttc", "零件" + ASCII)
    assert fonts_of("a_零件_ชน.png") == [
        ("", "a_"),
        ("NotoSansCJK-Regular", "零件_"),
        ("NotoSansThai-Regular", "ชน"),
        ("", ".png"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        [
            "DejaVuSans",
            "NotoSans-Regular",
            "AnySans-Regular",
            "Any-Regular",
            "AnySans-Bold",
            "AnySerif-Italic",
        ],
        ["NotoSansCJK-Regular", "UnknownSans", "Unknown", "DejaVuSansMono"],
    ],
)
def test_upright_sans_comes_first(fonts: Path, names: list[str]) -> None:
    for name in reversed(names):
        write_font(fonts / f"{name}.ttf", "ж")
    for name in names:
        found = font_with("ж")
        assert found is not None
        assert Path(found).stem == name
        Path(found).unlink()  # one that is gone since is passed over
        forget()


def test_what_is_no_font_is_passed_over(fonts: Path) -> None:
    fonts.mkdir(parents=True)
    (fonts / "DejaVuSans.ttf").write_bytes(b"not a font")
    (fonts / "Empty.otf").touch()
    (fonts / "Folder.ttf").mkdir()
    good = write_font(fonts / "Z.ttf", "ж")
    assert font_with("ж") == str(good)


def test_the_users_own_fonts_count(fonts: Path, tmp_path: Path) -> None:
    own = write_font(tmp_path / "home" / "fonts" / "Mine.otf", "ж")
    assert font_with("ж") == str(own)
    assert fonts.exists() is False


# ---- letters that no font has ----------------------------------------------------------------


def test_letters_without_a_font_are_numbers_and_said_once(fonts: Path) -> None:
    assert fonts_of("Öl_😀.png") == [("", "<U+00D6>l_<U+1F600>.png")]
    note = font_note(["Öl.png", "Öl2.png", "plain.png"])
    assert note.startswith("no font here has 1 letter of the images' names (Ö <U+00D6>): pictures show")
    assert "fonts-noto-core" in note
    assert font_note(["plain.png", "a b.png"]) == ""
    many = font_note(["абвгдежзийклмн.png"])
    assert "has 14 letters" in many
    assert many.count("<U+") == 8
    write_font(fonts / "A.ttf", "Ö")
    assert "Ö" in font_note(["Öl.png", "ü.png"])  # fonts are looked for once in a process


def test_numbers_are_drawn_and_no_box(fonts: Path) -> None:
    assert np.array_equal(drawn("ж"), drawn("<U+0436>"))
    assert np.any(drawn("ж") != drawn("э"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\u202egnp.png", "a<U+202E>gnp.png"),  # would turn what follows round
        ("a\nb\t.png", "a<U+000A>b<U+0009>.png"),
        ("caf\udce9.png", "caf\\xe9.png"),
        ("u\u0308.png", "ü.png"),  # as macOS stores it
        ("a\u200db", "a\u200db"),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_what_cannot_be_seen_is_a_number(name: str, text: str) -> None:
    assert shown(name) == text


# ---- order -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain_01.png", [("ltr", "plain_01.png")]),
        ("شيء.png", [("rtl", "شيء"), ("ltr", ".png")]),
        ("شيء_حق_01.png", [("rtl", "شيء_حق_01"), ("ltr", ".png")]),
        ("01_شيء.png", [("ltr", "01_"), ("rtl", "شيء"), ("ltr", ".png")]),
        ("lot שלום 2 עולם", [("ltr", "lot "), ("rtl", "שלום 2 עולם")]),
        ("שֶׁ.png", [("rtl", "שֶׁ"), ("ltr", ".png")]),
        ("שלום-", [("rtl", "שלום"), ("ltr", "-")]),
        ("...", [("ltr", "...")]),
        ("", []),
    ],
)
def test_directions(text: str, pieces: list[tuple[str, str]]) -> None:
    assert _directions(text) == pieces


def test_parts_from_right_to_left_are_in_that_order(fonts: Path) -> None:
    """The first letter stands at the right, whatever its font; the suffix stays at the end."""
    write_font(fonts / "Hebrew.ttf", "שלום")
    write_font(fonts / "Arabic.ttf", "قطعة")
    assert fonts_of("קשלום"[1:] + "_" + "قطعة" + ".png") == [
        ("Arabic", "قطعة"),
        ("", "_"),
        ("Hebrew", "שלום"),
        ("", ".png"),
    ]


def test_letters_are_drawn_from_right_to_left(fonts: Path) -> None:
    write_font(fonts / "Hebrew.ttf", "שלום")
    there, back = drawn("של"), drawn("לש")
    assert np.any(there != back)
    dark = [np.argwhere(picture.min(axis=2) < 128) for picture in (there, back)]
    widths = [int(np.ptp(found[:, 1])) for found in dark]
    assert widths[0] == widths[1]


def test_a_mark_stays_with_its_letter(fonts: Path) -> None:
    write_font(fonts / "A.ttf", "काख")
    write_font(fonts / "B.ttf", "का" + "x")
    assert [text for _, text in fonts_of("xकाख")] == ["x", "काख"]


# ---- width -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["plain.png", "ж" * 40 + ".png", "שלום" * 20, "W" * 251])
def test_the_end_of_a_long_text_is_kept(fonts: Path, text: str) -> None:
    write_font(fonts / "A.ttf", "שלום")
    short = shorten(text, 200, 12)
    assert text_width(short, 12) <= 200
    assert short == text or (short.startswith("...") and text.endswith(short[3:]))


def test_no_width_at_all_is_no_endless_loop() -> None:
    assert shorten("name.png", 0, 12) == "..."


# ---- as the machine has them -----------------------------------------------------------------


@pytest.mark.parametrize("language", SAMPLES)
def test_a_script_is_drawn_with_a_font_or_as_numbers(language: str) -> None:
    letters = SAMPLES[language]
    parts = _parts(letters)
    if font_with(letters) is None:
        assert "<U+" in "".join(part.text for part in parts)
    else:
        assert {part.text for part in parts} == {letters}
        assert parts[0].font != OWN
        assert np.any(drawn(letters) != drawn("\U0010fffd"))
