"""Shell patterns by which a user chooses images: ``--include`` and ``--exclude``.

A pattern without a slash is compared with every part of a name: of the file and of each folder that it is in.
One with a slash, other than at its end, is compared with the name from the lot on, part by part, where ``**``
stands for any number of parts; it also matches all that lies below a folder that it matches.  In a part ``*``
is any text, ``?`` any character, ``[ab]`` one of these and ``[!ab]`` none of them (fnmatch).  Case counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


class Patterns:
    """Patterns that remember which of them have matched a name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._parts = {pattern: _parts(pattern) for pattern in patterns}
        self._unused = set(self._parts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def match(self, name: str) -> bool:
        """Return whether any pattern matches ``name``, which is relative to the lot, with forward slashes."""
        parts = name.split("/")
        found = {pattern for pattern, wanted in self._parts.items() if wanted and _leads(wanted, parts)}
        self._unused -= found
        return bool(found)

    def unused(self) -> list[str]:
        """Patterns that have matched no name so far, in the order given."""
        return [pattern for pattern in self._parts if pattern in self._unused]


def _parts(pattern: str) -> list[str]:
    """Parts of a pattern from the lot on, ``**`` before one without a slash; an empty one matches nothing."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if parts and "/" not in pattern.rstrip("/"):
        parts = ["**", *parts]
    return [part for k, part in enumerate(parts) if part != "**" or parts[k - 1 : k] != ["**"]]


def _leads(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether a pattern matches the first of these parts, and so all that lies below."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_leads(pattern[1:], parts[k:]) for k in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _leads(pattern[1:], parts[1:])
