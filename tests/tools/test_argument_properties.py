"""Properties of every argument that is parsed: any text gives a value within its limits, or a usage error."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from musc_edge.runtime.settings import MAX_DEGREE
from musc_edge.runtime.tiling import Tiles
from musc_edge.tools import arguments
from musc_edge.tools.usage import UsageError

QUICK = settings(max_examples=100, deadline=None, database=None, derandomize=True)
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "0", "-0", "00", "1e400", "1e-400", "nan", "inf", "-inf", "٣", "²", "１", "1_000", "0x10"]
    ),
)
JOINED = st.lists(NUMBERS, min_size=1, max_size=5).flatmap(
    lambda parts: st.sampled_from(["x", ",", "X", " ", ", "]).map(lambda between: between.join(parts))
)
AMOUNTS = st.tuples(
    NUMBERS, st.sampled_from(["", " "]), st.sampled_from(["K", "MB", "GiB", "t", "Q", "mm", "%"])
)
TEXTS = st.one_of(NUMBERS, JOINED, AMOUNTS.map("".join), st.text(max_size=20))


def whole(value: Any, least: int, most: float = math.inf) -> bool:
    return type(value) is int and least <= value <= most


LIMITS: dict[Callable[[str], Any], Callable[[Any], bool]] = {
    arguments.integers: lambda found: all(type(each) is int for each in found),
    arguments.degrees: lambda found: (
        len(set(found)) == len(found) and all(whole(r, 1, MAX_DEGREE) and r % 2 for r in found)
    ),
    arguments.neighbors: lambda found: all(whole(each, 1) for each in found),
    arguments.interval: lambda found: 0 <= found[0] < found[1] <= 1,
    arguments.tiles: lambda found: isinstance(found, Tiles),
    arguments.overlap: lambda found: math.isfinite(found) and found >= 0,
    arguments.window: lambda found: whole(found, 0, MAX_DEGREE),
    arguments.positive: lambda found: whole(found, 1),
    arguments.share: lambda found: 0 < found < 1,
    arguments.share_or_auto: lambda found: found == "auto" or 0 <= found <= 1,
    arguments.seconds: lambda found: 0 < found <= 86400,
    arguments.threads: lambda found: whole(found, 1, arguments.MAX_THREADS),
    arguments.batch: lambda found: whole(found, 1, arguments.MAX_BATCH),
    arguments.top: lambda found: whole(found, 1),
    arguments.image_size: lambda found: len(found) == 2 and all(whole(side, 1) for side in found),
    arguments.triple: lambda found: all(math.isfinite(each) for each in found),
    arguments.spread: lambda found: all(0 < each < math.inf for each in found),
    arguments.memory: lambda found: whole(found, 100_000),
    arguments.memories: lambda found: all(whole(each, 100_000) for each in found),
    arguments.pixels: lambda found: whole(found, 1),
}


@pytest.mark.parametrize("parse", LIMITS, ids=lambda parse: parse.__name__)
def test_any_text_is_a_value_within_limits_or_a_usage_error(parse: Callable[[str], Any]) -> None:
    @QUICK
    @given(TEXTS)
    @example("9" * 5000)
    @example("9" * 5000 + ",1")
    @example("1x" + "9" * 5000)
    def holds(text: str) -> None:
        try:
            found = parse(text)
        except argparse.ArgumentTypeError:
            return
        assert LIMITS[parse](found), found

    holds()


@QUICK
@given(st.integers(1, 10**6), st.sampled_from([("K", 3), ("M", 6), ("G", 9), ("T", 12)]), st.booleans())
def test_amounts_are_what_they_say(count: int, unit: tuple[str, int], binary: bool) -> None:
    name, power = unit
    size = count * (1024 ** (power // 3) if binary else 10**power)
    text = f"{count}{name}{'iB' if binary else ''}"
    if size >= 100_000:
        assert arguments.memory(text) == arguments.memory(text.lower()) == size


@QUICK
@given(
    st.lists(st.integers(0, MAX_DEGREE // 2).map(lambda k: 2 * k + 1), min_size=1, unique=True, max_size=9)
)
def test_degrees_are_read_as_they_are_written(degrees: list[int]) -> None:
    assert arguments.degrees(",".join(map(str, degrees))) == tuple(degrees)


@QUICK
@given(st.integers(1, 20), st.integers(1, 20))
def test_tiles_are_read_as_they_are_written(rows: int, columns: int) -> None:
    text = f"{rows}x{columns}"
    try:
        assert arguments.tiles(text) == arguments.tiles(text.upper()) == Tiles(rows, columns)
    except argparse.ArgumentTypeError:
        assert rows * columns == 1 or rows * columns > 64


@QUICK
@given(TEXTS)
@example("\0")
@example("a" * 5000)
@example("/proc/self/mem")
def test_paths_and_regions_are_refused_in_words(text: str) -> None:
    for parse in (arguments.roi, arguments.images, arguments.lot_folder):
        try:
            found = parse(text)
        except (argparse.ArgumentTypeError, UsageError):
            continue
        if isinstance(found, Path):
            assert found.exists()
        else:
            assert min(found) >= 0 if isinstance(found, tuple) else whole(found, 1, arguments.MAX_IMAGES)
