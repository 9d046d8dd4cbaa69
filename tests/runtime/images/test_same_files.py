"""Files of the same bytes, however they are named, and those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from musc_edge.runtime.images.same_files import same_files


def test_files_of_the_same_bytes_are_grouped(tmp_path: Path) -> None:
    contents = {"a": b"1" * 10, "b": b"2" * 10, "c": b"1" * 10, "d": b"3", "e": b"2" * 10, "f": b"1" * 10}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert same_files([tmp_path / name for name in contents]) == [(0, 2, 5), (1, 4)]


def test_large_files_that_differ_at_the_end_only(tmp_path: Path) -> None:
    content = bytes(3_000_000)
    for name, last in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content + last)
    assert same_files([tmp_path / name for name in "abc"]) == [(0, 2)]


def test_links_to_one_file_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "c")
    assert same_files([tmp_path / name for name in "abc"]) == [(0, 1, 2)]


def test_what_cannot_be_read_is_like_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "b").write_bytes(b"")
    names = ["a", "gone", "pipe", "b"]
    assert same_files([tmp_path / name for name in names]) == [(0, 3)]
