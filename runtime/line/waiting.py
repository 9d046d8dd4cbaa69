"""Files that were found, and when each is due to be checked."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from itertools import count

from .seen_files import Stamp


@dataclass
class File:
    """A file that waits.

    Attributes
    ----------
    stamp : its time of modification and size when it was last looked at.
    since : since when it has had them, by our clock.
    due : when it is to be checked.
    pause : how long it must stay unchanged, in seconds, unless it is closed by who writes it.
    """

    stamp: Stamp
    since: float
    due: float
    pause: float


class Waiting:
    """Files by name, taken in the order in which they are due."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._order: list[tuple[float, int, str]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, name: str) -> File:
        return self._files[name]

    def see(self, name: str, stamp: Stamp, now: float, pause: float) -> None:
        """Take note of how a file looks; one that looks as before is due when it was due."""
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = File(stamp, now, math.inf, pause)
        elif file.stamp == stamp:
            return
        else:
            file.stamp, file.since = stamp, now
        self.postpone(name, now + file.pause)

    def close(self, name: str, stamp: Stamp, now: float, pause: float) -> None:
        """Take note that a file was closed by who wrote it: it is due now, and if not, after ``pause``."""
        self.see(name, stamp, now, pause)
        self._files[name].pause = pause
        self.postpone(name, now)

    def postpone(self, name: str, due: float) -> None:
        """Set when a file is due."""
        self._files[name].due = due
        heapq.heappush(self._order, (due, next(self._numbers), name))

    def drop(self, name: str) -> None:
        """Forget a file."""
        self._files.pop(name, None)

    def next(self) -> tuple[float, str] | None:
        """Return when the next file is due, and its name; None if there is none."""
        while self._order:
            due, _, name = self._order[0]
            if name in self._files and self._files[name].due == due:
                return due, name
            heapq.heappop(self._order)
        return None
