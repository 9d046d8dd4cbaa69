"""The entries of kept work's journals, and which of what is read there can be one of them.

A checksum tells damage from what was written, not by whom: an entry of any other content is passed over, and
what it is about is made again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..._json import from_json
from ..types import Cell, FloatArray, SkippedImage


class Batch(NamedTuple):
    """A finished batch of images: the names by row, and the files that could not be read."""

    read: list[str]
    failed: list[SkippedImage]

    def is_of(self, names: Sequence[str]) -> bool:
        """Return whether it is of these images alone, each of them once and in their order."""
        failed = [skipped.name for skipped in self.failed]
        lost = set(failed)
        return (self.read, failed) == ([n for n in names if n not in lost], [n for n in names if n in lost])


@dataclass(frozen=True)
class BatchEntry:
    """What is noted of a finished batch: ``cls`` is the base64 of its CLS embeddings."""

    batch: int
    rows: tuple[int, int]
    read: tuple[str, ...]
    failed: tuple[SkippedImage, ...]
    cls: str
    checksum: int

    def embeddings(self, width: int) -> FloatArray:
        """Return the CLS embeddings (B,``width``); ValueError if there are more, or fewer."""
        values = np.frombuffer(base64.b64decode(self.cls), np.float32)
        embeddings: FloatArray = values.reshape(len(self.read), width)
        return embeddings


def batch_entries(entries: Iterable[dict[str, Any]]) -> dict[int, BatchEntry]:
    """Return the last entry of each batch, by number."""
    # A batch that was damaged and made again has an entry from each run; the last one wins.
    found = {}
    for entry in entries:
        try:
            batch: BatchEntry = from_json(BatchEntry, entry, "batch")
        except ValueError:
            continue
        found[batch.batch] = batch
    return found


def cell_checksums(entries: Iterable[dict[str, Any]], layer: int) -> dict[Cell, int]:
    """Return the checksum of each finished cell of a layer."""
    mine = (entry for entry in entries if entry.get("layer") == layer and _is_of_cell(entry))
    return {(entry["cell"][0], entry["cell"][1]): entry["checksum"] for entry in mine}


def score_checksums(entries: Iterable[dict[str, Any]], layer: int) -> set[int]:
    """Return the checksums that the scores of a layer may have."""
    return {e["scores"] for e in entries if e.get("layer") == layer and type(e.get("scores")) is int}


def _is_of_cell(entry: dict[str, Any]) -> bool:
    """Return whether an entry has a checksum and the numbers of two blocks, in their order."""
    # By hand: a lot of 10,000 images has a million cells.
    cell = entry.get("cell")
    numbers = [*cell, entry.get("checksum")] if isinstance(cell, list) else []
    return len(numbers) == 3 and all(type(n) is int for n in numbers) and 0 <= numbers[0] <= numbers[1]
