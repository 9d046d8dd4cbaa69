"""What the kernel says of changes in folders (inotify).

Notices only say where to look, and may be missing: the queue overflows, a folder has come with files in it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EMFILE)
"""No more folders (``fs.inotify.max_user_watches``) or no more programs (``..._instances``) to watch."""


@dataclass(frozen=True)
class Notice:
    """Something has happened to ``name``, a file or folder relative to the watched one.

    ``closed`` says that whoever wrote the file has closed it, or moved it in; ``opened`` that somebody has
    just made it and may be writing.  ``search`` says that all below has to be searched.
    """

    name: str
    closed: bool = False
    opened: bool = False
    search: bool = False


class Notices:
    """Listens to folders below ``root``; a context manager.

    Raises
    ------
    OSError
        One of ``FULL`` if too many programs of this user listen.
    """

    def __init__(self, root: Path) -> None:
        from inotify_simple import INotify, flags

        self._root, self._flags = root, flags
        self._mask = (
            flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE | flags.DELETE_SELF | flags.MOVE_SELF
            | flags.ONLYDIR | flags.EXCL_UNLINK
        )  # fmt: skip
        self._names: dict[int, str] = {}
        self._inotify: Any = INotify()

    def close(self) -> None:
        """Stop listening."""
        self._inotify.close()

    def add(self, name: str) -> None:
        """Listen to the folder ``name`` itself, not to those below it; again if it is another folder now.

        Raises
        ------
        OSError
            If it is gone, cannot be read, or is one too many.
        """
        self._names[self._inotify.add_watch(self._root / name, self._mask)] = name

    def wait(self, seconds: float) -> Iterator[Notice]:
        """Yield what has happened; waits up to ``seconds`` if nothing has."""
        for watch, mask, _, base in self._inotify.read(timeout=max(0, round(seconds * 1000))):
            if mask & self._flags.Q_OVERFLOW:
                yield Notice("", search=True)
            elif mask & self._flags.IGNORED:  # the folder is gone
                self._names.pop(watch, None)
            elif watch in self._names:
                yield self._notice(self._names[watch], base, mask)

    def _notice(self, folder: str, base: str, mask: int) -> Notice:
        kinds = self._flags
        if not base:  # the folder itself: removed, moved or unmounted
            return Notice("", search=True)
        name = os.path.join(folder, base)  # noqa: PTH118
        if mask & kinds.ISDIR:
            return Notice(name, search=True)
        return Notice(name, bool(mask & (kinds.CLOSE_WRITE | kinds.MOVED_TO)), bool(mask & kinds.CREATE))
