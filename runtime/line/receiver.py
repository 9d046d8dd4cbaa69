"""What tells one receiver of results, and how it says that a result did not arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from threading import Event
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from ..errors import ReceiverError
from .result_log import Entry

LARGEST = 64_000
"""Bytes of a result that is told, at most."""

BAD = "bad"
"""In place of a verdict: the image could not be checked."""


class UnreachableError(Exception):
    """Nothing arrives there now, whatever it is; ``after`` are the seconds to wait, if it asked for some."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class RefusedError(Exception):
    """The receiver will not take this result."""


class Receiver(Protocol):
    """Whoever is told of results; used by one thread.

    ``destination`` is the name under which the log keeps how far it was told, ``address`` what messages call
    it, without secrets.
    """

    destination: str
    address: str

    def open(self, state: Mapping[str, Any]) -> bool:
        """Connect and say that this program is alive; returns whether anybody answered.

        Raises UnreachableError.
        """

    def tell(self, entry: Entry) -> None:
        """Send a result; returns when it is acknowledged.

        Raises
        ------
        UnreachableError
            If it was not acknowledged; the receiver may have it all the same.
        RefusedError
            If it was refused for what it holds.
        """

    def beat(self, state: Mapping[str, Any]) -> None:
        """Say that this program is still alive; raises as ``tell`` does."""

    def wait(self, stop: Event, seconds: float) -> None:
        """Keep the connection alive for so long, or until ``stop``; UnreachableError if it was lost."""

    def close(self, state: Mapping[str, Any] | None = None) -> None:
        """Disconnect; with a ``state``, say it before, if that is possible."""


def split_address(url: str, whose: str, expected: str) -> SplitResult:
    """Take an address apart; ReceiverError, without the address itself, if it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ReceiverError(f"the {whose}'s address cannot be used ({error}): {expected}.") from error
    return parts


def kind(entry: Entry) -> str:
    """Return the verdict, with an underscore for a space, or ``BAD``."""
    return str(entry.facts.get("verdict") or BAD).replace(" ", "_")


def has_changed(entry: Entry) -> bool:
    """Return whether the line had changed by then, as far as it is watched for drift."""
    return (entry.facts.get("drift") or {}).get("state") == "changed"


def payload(entry: Entry, most: float = LARGEST) -> bytes:
    """Return a result as JSON in ASCII.

    Of one that is too large the largest facts are left out; ``left_out`` names them.
    """
    content = entry.content()
    sizes = {name: len(json.dumps(content[name])) for name in entry.facts}
    left_out: list[str] = []
    while len(text := json.dumps(content)) > most and sizes:
        name = max(sizes, key=lambda each: sizes[each])
        del content[name], sizes[name]
        left_out.append(name)
        content["left_out"] = left_out
    return text.encode()
