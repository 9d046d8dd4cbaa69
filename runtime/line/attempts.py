"""Which image is being checked, kept in a file, so that one that ends the program every time is known."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from ..._files import open_own, read_regular

CHECKING = "checking.json"
MOST = 5
"""How often the program may end while it checks an image before that is put down to the image."""


class Attempts:
    """The file in ``folder``.

    It is not brought to the disk: a loss of power is not the image's doing.
    """

    def __init__(self, folder: Path) -> None:
        self._last, self._times = "", 0
        with suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(read_regular(folder / CHECKING, follow=False))
            self._last, self._times = str(content["key"]), int(content["times"])
        self._file = open_own(folder / CHECKING)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def begin(self, name: str, key: bytes) -> int:
        """Note that an image is about to be checked; returns how often the program ended while it was."""
        ended = self._times if self._last == key.hex() else 0
        self._last, self._times = key.hex(), ended + 1
        self._write({"image": name, "key": self._last, "times": self._times})
        return ended

    def end(self) -> None:
        """Note that the program has not ended."""
        self._last, self._times = "", 0
        self._write({})

    def _write(self, content: dict[str, object]) -> None:
        text = json.dumps(content).encode() + b"\n"
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))
