"""A file below a URL that is looked at, not decoded: some blocks of it are asked for, not the whole."""

from __future__ import annotations

import io
import os
from typing import Any

from ..remote import RemoteFile

BLOCK, MOST_BLOCKS = 1 << 16, 16
"""Bytes of a block, and how many are read of a file before it is fetched whole."""


class Blocks(io.RawIOBase):
    """A remote file that is looked at: read block by block, or fetched whole once these are many."""

    def __init__(self, file: RemoteFile, size: int) -> None:
        super().__init__()
        self._file, self._size, self._at = file, size, 0
        self._blocks: dict[int, bytes] = {}
        self._whole: io.FileIO | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset from the beginning, from here, or from the end."""
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        """Read what the block has from here on."""
        view = memoryview(buffer).cast("B")
        if self._at >= self._size or not len(view):
            return 0
        content = self._content(len(view))
        view[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        """Close it, and the file that was fetched."""
        if self._whole:
            self._whole.close()
        super().close()

    def _content(self, most: int) -> bytes:
        number = self._at // BLOCK
        if self._whole is None and number not in self._blocks:
            start = number * BLOCK
            part = None
            if len(self._blocks) < MOST_BLOCKS:
                part = self._file.part(start, min(start + BLOCK, self._size))
            if part is None:
                self._whole = io.FileIO(self._file.fetch()[0], "rb")
            else:
                self._blocks[number] = part
        if self._whole:
            return os.pread(self._whole.fileno(), most, self._at)
        return self._blocks[number][self._at % BLOCK :][:most]
