"""What a listing leaves out of a lot, so that it can be said: nothing in the folder goes without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from ..._files import shown
from ..._numbers import counted
from .kinds import suffix

OTHER, HIDDEN, SIDE, RESULTS = "not an image", "hidden", "of other programs", "results"
ASKED, UNFINISHED, MASTER, LINK = "as asked", "backup or unfinished", "beside its image", "link"
ODD = "no name of a file"
_WORDS = {
    HIDDEN: "hidden",
    SIDE: "thumbnails, bins, snapshots and caches of other programs",
    RESULTS: "results of earlier runs",
    ASKED: "by --include or --exclude",
    UNFINISHED: "backups, or not copied to the end",
    ODD: "keys with a part that is empty, . or .., which no folder has",
    MASTER: "raw and working files beside an image of the same name",
}
MOST_NAMED, MOST_LETTERS = 10_000, 4_000_000
"""Limits of the names in lot.json, in all; the rest is counted there."""

_KINDS = 5  # endings that a note names


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder below the lot of which nothing is scored.

    Attributes
    ----------
    name : path relative to the lot, with forward slashes; that of a folder ends in one.
    why : one of this module's words.
    files : number of files: 1, or all below a folder; None if the folder cannot be read.
    images : how many of these have an image's ending.
    """

    name: str
    why: str
    files: int | None = 1
    images: int = 0


def notes_on(left_out: Sequence[LeftOut]) -> list[str]:
    """A line for each reason with counts and the first name; hidden files are named if they are images."""
    notes = []
    others = [entry for entry in left_out if entry.why == OTHER]
    if others:
        notes.append(f"not images, left out: {_kinds(others)} (first: {shown(others[0].name)})")
    for why, words in _WORDS.items():
        entries = [entry for entry in left_out if entry.why == why]
        if why in (HIDDEN, SIDE):
            entries = [entry for entry in entries if entry.images]
        if entries:
            notes.append(f"left out, {words}: {_counts(entries)} (first: {shown(entries[0].name)})")
    return notes


def facts_on(left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """What was left out, as JSON: counts, and the entries themselves up to a limit."""
    ends = accumulate(len(entry.name) for entry in left_out[:MOST_NAMED])
    named = sum(end <= MOST_LETTERS for end in ends)
    by_reason: dict[str, int] = {}
    for entry in left_out:
        by_reason[entry.why] = by_reason.get(entry.why, 0) + (entry.files or 0)
    return {
        "files": sum(by_reason.values()),
        "by_reason": by_reason,
        "entries": [asdict(entry) for entry in left_out[:named]],
        "entries_not_named": len(left_out) - named,
    }


def _kinds(others: Iterable[LeftOut]) -> str:
    """Text such as '3 .txt, 1 .xml, 2 without an ending'."""
    found = Counter(shown(suffix(entry.name)) or "without an ending" for entry in others).most_common()
    rest = sum(count for _, count in found[_KINDS:])
    return ", ".join([f"{count} {kind}" for kind, count in found[:_KINDS]] + [f"{rest} others"] * (rest > 0))


def _counts(entries: Sequence[LeftOut]) -> str:
    """Text such as '2 folders with 72 files, 48 of them images, and 1 file'."""
    folders = [entry for entry in entries if entry.name.endswith("/")]
    inside, images = sum(e.files or 0 for e in folders), sum(e.images for e in folders)
    unread = sum(entry.files is None for entry in folders)
    texts = []
    if folders:
        of_them = f", {images} of them images" if images else ""
        text = f"{counted(len(folders), 'folder')} with {counted(inside, 'file')}{of_them}"
        texts.append(f"{text} ({unread} could not be read)" if unread else text)
    if len(entries) > len(folders):
        texts.append(counted(len(entries) - len(folders), "file"))
    return " and ".join(texts)
