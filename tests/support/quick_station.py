"""A station without a ViT, which takes a part for rejected that is bright somewhere, and what it watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from musc_edge.runtime.images.reading import ImageError, read_image
from musc_edge.runtime.line.folder_watch import FolderWatch, WatchOptions
from musc_edge.runtime.line.pictures import Pictures
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.line.station import Station
from musc_edge.runtime.reference.checker import Check

NEVER = 1e6
MANIFEST: Any = SimpleNamespace(scale=(0.1, 0.4), bit_depth=8, max_pixels=10**6)
PROMPT = WatchOptions(settle=0.05, patience=0.2)
"""Files settle at once, and what is damaged is soon given up."""
PATIENT = WatchOptions(settle=NEVER, patience=NEVER)
"""A file is taken only when it is closed or moved in, and nothing is ever given up."""


class QuickChecker:
    """Stands in for a ``Checker``; ``names`` has every image that it was given, and how often."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def check(self, image: Path, name: str) -> Check:
        self.names.append(name)
        try:
            picture = np.asarray(read_image(Path(image)))
        except ImageError as error:
            return Check(name, error.status, error=str(error))
        rejected = int(picture.max()) == 255
        grid = np.full((4, 4), 0.4 if rejected else 0.2, np.float32)
        verdict = "reject" if rejected else "not flagged"
        return Check(
            name, "ok", float(grid.max()), 0.01 if rejected else 0.5, verdict, grid, (), 0.1, 0.5, 0.1
        )


class Watched:
    """``watch`` with its ``log``, ``checker`` and what it has ``said``."""

    def __init__(self, folder: Path, out: Path, options: WatchOptions, stack: ExitStack) -> None:
        self.said: list[str] = []
        self.checker = QuickChecker()
        self.log = stack.enter_context(ResultLog(out))
        pictures = Pictures(self.log, MANIFEST)
        station = Station("ref", cast(Any, self.checker), self.log, (pictures,))
        self.watch = stack.enter_context(FolderWatch(folder, station, options, self.said.append))

    def until(self, state: Callable[[], bool]) -> None:
        """Watch until ``state`` holds."""
        end = time.monotonic() + 120
        while not state():
            assert time.monotonic() < end, (self.names, self.said)
            self.watch.turn()

    def until_recorded(self, *names: str) -> None:
        """Watch until all of these have been recorded."""
        self.until(lambda: set(names) <= set(self.names))

    @property
    def names(self) -> list[str]:
        """Names of the images that were recorded."""
        return [entry.facts["image"] for entry in self.log.after(0, 10**6)]

    def facts(self, name: str) -> Any:
        """What was recorded last of an image."""
        return next(e.facts for e in self.log.last(10**6) if e.facts["image"] == name)


@contextmanager
def watched(folder: Path, out: Path, options: WatchOptions = PROMPT) -> Iterator[Watched]:
    """Watch ``folder``."""
    with ExitStack() as stack:
        yield Watched(folder, out, options, stack)


def move_in(path: Path, content: bytes) -> None:
    """Let a file appear at once."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(content)
    partial.replace(path)
