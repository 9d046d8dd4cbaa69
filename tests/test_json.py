"""Reading JSON that somebody else may have written: values of the declared kind, or a reason in words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from musc_edge._json import DEEPEST, from_json, parse_json, read_json, shortly


@dataclass(frozen=True)
class Inner:
    number: float
    texts: dict[str, str]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[int, int]
    many: tuple[Inner, ...]
    maybe: Inner | None
    rest: Any


INNER = {"number": 1, "texts": {"a": "b"}}
GOOD = {"inner": INNER, "pair": [1, 2], "many": [INNER, INNER], "maybe": None, "rest": [{"any": [0.5, None]}]}


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_what_is_good() -> None:
    inner = Inner(1.0, {"a": "b"})
    assert from_json(Outer, GOOD, "it") == Outer(inner, (1, 2), (inner, inner), None, [{"any": [0.5, None]}])
    assert from_json(Outer, {**GOOD, "maybe": INNER}, "it").maybe == inner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": 5}, "it.inner is 5, expected an object"),
        ({"inner": {"number": 1}}, "it.inner lacks texts"),
        ({"inner": {**INNER, "more": 1}}, "unknown .'more'."),
        ({"inner": {**INNER, "number": "1"}}, "it.inner.number is '1', expected float"),
        ({"inner": {**INNER, "number": True}}, "it.inner.number is True"),
        ({"inner": {**INNER, "number": 10**400}}, "it.inner.number is inf, expected a finite number"),
        ({"inner": {**INNER, "texts": {"a": 5}}}, "it.inner.texts.a is 5, expected str"),
        ({"inner": {**INNER, "texts": ["a"]}}, r"it.inner.texts is \['a'\], expected an object"),
        ({"pair": [1, 2, 3]}, "expected a list of 2"),
        ({"pair": [1, 2.0]}, r"it.pair\[1\] is 2.0, expected int"),
        ({"many": [INNER, None]}, r"it.many\[1\] is None"),
        ({"maybe": 5}, "it.maybe is 5, expected an object"),
        ({"rest": [{"any": float("nan")}]}, "it.rest is nan, expected a finite number"),
        ({"rest": float("-inf")}, "it.rest is -inf"),
    ],
)
def test_what_is_not(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Outer, {**GOOD, **change}, "it")


def test_messages_are_short_whatever_came() -> None:
    assert len(shortly("x" * 10**6)) == 60
    with pytest.raises(ValueError, match="it is 'xxx") as caught:
        from_json(int, "x" * 10**6, "it")
    assert len(str(caught.value)) < 100


def test_nesting_is_bounded() -> None:
    assert parse_json(nested(DEEPEST))
    for levels in (DEEPEST + 1, 900, 100_000):
        with pytest.raises(ValueError, match="nested deeper than 32"):
            parse_json(nested(levels))
    with pytest.raises(ValueError, match="nested deeper than 32"):
        parse_json(b'{"a":' * 40 + b"1" + b"}" * 40)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"'a'", b"{}{}"])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"char|decode"):
        parse_json(text)


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 2_000_001)
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "large", "folder", "zero", "none"):
        with pytest.raises(OSError, match=r"regular|larger than 2 MB|[Dd]irectory"):
            read_json(tmp_path / name, 2_000_000)
    (tmp_path / "good").write_bytes(b"[1]")
    (tmp_path / "link").symlink_to("good")
    assert read_json(tmp_path / "link", 2_000_000) == [1]
