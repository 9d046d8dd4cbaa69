"""Shell patterns: what they match, written down case by case, and that they remember their use."""

from __future__ import annotations

import pytest

from musc_edge.runtime.images.patterns import Patterns


@pytest.mark.parametrize(
    ("pattern", "matched", "not_matched"),
    [
        ("1.png", ["1.png", "a/1.png", "1.png/x.jpg"], ["11.png", "a/1.PNG", "1.png.txt"]),
        ("*.png", ["1.png", "a/b/1.png", "a.png/1.jpg"], ["1.jpg", "png"]),
        ("masks", ["masks/1.png", "a/masks/b/1.png", "masks"], ["masks2/1.png", "mask/1.png"]),
        ("masks/", ["masks/1.png", "a/masks/1.png"], ["masks2/1.png"]),
        ("/masks", ["masks/1.png"], ["a/masks/1.png"]),
        ("./masks", ["masks/1.png"], ["a/masks/1.png"]),
        ("day1/*.png", ["day1/1.png"], ["day1/a/1.png", "a/day1/1.png", "day1/1.jpg"]),
        ("day1/*", ["day1/1.png", "day1/a/1.png"], ["day2/1.png", "day1"]),
        ("*/good", ["day1/good/1.png", "day2/good/a/1.png"], ["good/1.png", "a/b/good/1.png"]),
        ("**/good/*", ["good/1.png", "a/b/good/1.png"], ["good", "a/goods/1.png"]),
        ("a/**/z.png", ["a/z.png", "a/b/c/z.png"], ["z.png", "b/a/z.png", "a/zz.png"]),
        ("a/**/**/z.png", ["a/z.png", "a/b/z.png"], ["z.png"]),
        ("?.png", ["1.png"], ["10.png", ".png"]),
        ("[12].png", ["1.png", "2.png"], ["3.png"]),
        ("[!12].png", ["3.png"], ["1.png"]),
        ("[[]1].png", ["[1].png"], ["1.png"]),
        ("*", ["1.png", ".hidden"], []),
        ("", [], ["1.png", ""]),
        ("/", [], ["1.png"]),
    ],
)
def test_what_a_pattern_matches(pattern: str, matched: list[str], not_matched: list[str]) -> None:
    patterns = Patterns([pattern])
    assert {name: patterns.match(name) for name in [*matched, *not_matched]} == {
        **dict.fromkeys(matched, True),
        **dict.fromkeys(not_matched, False),
    }


def test_patterns_remember_which_of_them_were_of_use() -> None:
    patterns = Patterns(["*.png", "a/*", "b"])
    assert patterns.unused() == ["*.png", "a/*", "b"]
    assert patterns.match("a/1.png")
    assert not patterns.match("c/1.jpg")
    assert patterns.unused() == ["b"]


def test_no_patterns_match_nothing() -> None:
    assert not Patterns([])
    assert not Patterns([]).match("1.png")


def test_many_stars_in_a_deep_name_end() -> None:
    assert not Patterns(["**/a/**/a/**/b"]).match("/".join("a" * 60))
