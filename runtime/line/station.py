"""A station of a line: it checks an image and records what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from PIL import Image

from ..images.reading import ImageError
from ..reference.check_facts import check_facts
from ..reference.checker import Check, Checker
from .result_log import Entry

Source: TypeAlias = str | os.PathLike[str] | Image.Image
"""A file, or a picture in 8-bit RGB."""


class Witness(Protocol):
    """Whatever looks at each checked image, and adds to what is recorded of it."""

    def see(self, check: Check, image: Source, key: bytes | None) -> Mapping[str, Any]:
        """Return facts to record with the result; they must not have the names that ``check_facts`` uses.

        Comes before the result is recorded, so it may be called again for an image after the program was
        killed.
        """


class Log(Protocol):
    """Where results are recorded: ``ResultLog``, or what stands in for it."""

    def add(self, facts: Mapping[str, Any], reference: str = "", key: bytes | None = None) -> Entry:
        """Record a result; KeyError if ``key`` was recorded before."""
        ...


@dataclass(frozen=True)
class Station:
    """Checks images against one reference and records each result once; used from any thread.

    Attributes
    ----------
    name : str
        Name of the reference in the log.
    checker : Checker
        What checks the images.
    log : Log
        Where the results are recorded.
    witnesses : tuple of Witness
        What looks at each image beside the checker: keeps pictures, watches for drift.
    """

    name: str
    checker: Checker
    log: Log
    witnesses: tuple[Witness, ...] = ()

    def check(
        self, image: Source, name: str = "", key: bytes | None = None, more: Mapping[str, Any] | None = None
    ) -> tuple[Check, Entry]:
        """Check one image and record the result.

        Parameters
        ----------
        image, name
            As for ``Checker.check``.
        key : bytes, optional
            What tells the image from all others: with a key it is recorded only once.
        more : mapping, optional
            Facts to record beside those of the check and of the witnesses.

        Raises
        ------
        KeyError
            If ``key`` is in the log.
        DeviceError, OutputError
            If the backend or the disk fails.
        """
        begun = time.monotonic()
        check = self.checker.check(image, name)
        return check, self.record(check, image, key, begun, more)

    def record(
        self,
        check: Check,
        image: Source,
        key: bytes | None,
        begun: float,
        more: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Record what ``checker.check`` said of an image, for which work began at this ``time.monotonic()``.

        Raises
        ------
        KeyError, OutputError
            As ``check``.
        """
        facts: dict[str, Any] = dict(more or {})
        for witness in self.witnesses:
            facts |= witness.see(check, image, key)
        facts = {**check_facts(check), **facts, "seconds": round(time.monotonic() - begun, 4)}
        return self.log.add(facts, self.name, key)

    def refuse(
        self, name: str, error: ImageError, key: bytes | None = None, more: Mapping[str, Any] | None = None
    ) -> Entry:
        """Record an image that cannot be checked for the reason that ``error`` has; ``more`` as for check."""
        facts = check_facts(Check(name, error.status, error=str(error)))
        return self.log.add({**facts, **(more or {})}, self.name, key)
