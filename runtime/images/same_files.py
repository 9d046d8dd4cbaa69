"""Tell which of some files have the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ..._files import open_regular

_CHUNK = 1 << 20


def same_files(paths: Sequence[Path]) -> list[tuple[int, ...]]:
    """Return groups of positions whose files have the same bytes; one that cannot be read has no equal.

    Only files of one size are read, and no further than they agree with the first of their group.
    """
    groups: list[list[int]] = []
    sizes: dict[int, list[list[int]]] = {}
    for position, path in enumerate(paths):
        try:
            alike = sizes.setdefault(path.stat().st_size, [])
        except OSError:
            continue
        for group in alike:
            if _equal(paths[group[0]], path):
                group.append(position)
                break
        else:
            alike.append([position])
            groups.append(alike[-1])
    return [tuple(group) for group in groups if len(group) > 1]


def _equal(a: Path, b: Path) -> bool:
    try:
        with open_regular(a) as first, open_regular(b) as second:
            return _same_content(first, second)
    except OSError:
        return False


def _same_content(a: BinaryIO, b: BinaryIO) -> bool:
    while True:
        chunk, other = a.read(_CHUNK), b.read(_CHUNK)
        if chunk != other:
            return False
        if not chunk:
            return True
