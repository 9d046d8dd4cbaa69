"""What was found by fuzzing stays mended: every input that once failed is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fuzz_targets import SEEDS, TARGETS

LONGEST = 8192


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises_anything_but_the_error_of_its_reader(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    (tmp_path / "begin").mkdir()
    read = target.prepare(tmp_path)
    if name != "image":  # 1,700 of those are tests/runtime/images/test_matrix.py
        for content in target.begin(tmp_path / "begin"):
            read(content)
    for path in sorted((SEEDS / name).glob("*")):
        read(path.read_bytes())


def test_seeds_are_of_targets_and_small() -> None:
    paths = [path for path in SEEDS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in paths} <= set(TARGETS)
    assert max(path.stat().st_size for path in paths) <= LONGEST
