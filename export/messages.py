"""What an export says while it works, line by line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

Say = Callable[[str], None]

_QUIET = 20.0
"""Seconds after which a user wonders whether anything happens."""


def silent(text: str) -> None:
    """Say nothing."""


def batches(images: int, size: int, say: Say) -> Iterator[slice]:
    """Batches of at most ``size`` images; says now and then how many are done, if they take long."""
    start = said = time.perf_counter()
    for done in range(0, images, size):
        now = time.perf_counter()
        if now - said > _QUIET:
            said = now
            say(f"  {done} of {images} images after {now - start:.0f} s")
        yield slice(done, min(done + size, images))
