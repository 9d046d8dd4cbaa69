"""Tell which of some files have the same bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from ..._files import open_regular
from ..remote import RemoteFile
from ..types import FilePath
from .reading import file_stamp

_CHUNK = 1 << 20


def same_files(paths: Sequence[FilePath]) -> list[tuple[int, ...]]:
    """Return groups of positions whose files have the same bytes; one that cannot be read has no equal.

    Only files of one size are read, and no further than they agree with the first of their group.
    """
    groups: list[list[int]] = []
    sizes: dict[int, list[list[int]]] = {}
    for position, path in enumerate(paths):
        try:
            alike = sizes.setdefault(file_stamp(path)[1], [])
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


def _equal(a: FilePath, b: FilePath) -> bool:
    try:
        with _open(a) as first, _open(b) as second:
            return _same_content(first, second)
    except OSError:
        return False


def _open(path: FilePath) -> BinaryIO:
    return os.fdopen(path.fetch()[0], "rb") if isinstance(path, RemoteFile) else open_regular(path)


def _same_content(a: BinaryIO, b: BinaryIO) -> bool:
    while True:
        chunk, other = a.read(_CHUNK), b.read(_CHUNK)
        if chunk != other:
            return False
        if not chunk:
            return True
