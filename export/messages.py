"""Progress messages of an export, line by line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

Say = Callable[[str], None]

_QUIET = 20.0
"""Seconds without a message after which a user wonders whether anything happens."""


def silent(text: str) -> None:
    """Discard the message: a ``Say`` for callers that want none."""


def batches(images: int, size: int, say: Say) -> Iterator[slice]:
    """Yield batches of at most ``size`` images; if they take long, report now and then how many are done."""
    start = said = time.perf_counter()
    for done in range(0, images, size):
        now = time.perf_counter()
        if now - said > _QUIET:
            said = now
            say(f"  {done} of {images} images after {now - start:.0f} s")
        yield slice(done, min(done + size, images))
