"""The work on a lot that outlives an interrupted run, so that the same command can go on from it.

A folder holds
    about.json        what the work is of: images, bundle, settings, versions
    tokens.bin        tokens, a row for each layer and image
    batches.journal   per batch of images: its rows, CLS embeddings, failed files, the tokens' checksum
    minima.bin        the cosines of the layer that is being compared
    cells.journal     per cell of image pairs the cosines' checksum, per finished layer that of its scores
    layer_<l>.npy     mutual scores of a finished layer

What a journal says is on the disk, and what it does not say is done again (journal.py).  Checksums are
verified before anything is used.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import zlib
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import OutputError
from .journal import Journal
from .judges import Cell
from .rows import FileRows, checksum, writing
from .types import Array, FeatureStore, Progress, SkippedImage

_ABOUT = "about.json"
_OF_SCORING = ("minima.bin", "cells.journal", "layer_*.npy")


class Batch(NamedTuple):
    """A finished batch of images: names by row, and files that could not be read."""

    read: list[str]
    failed: list[SkippedImage]


class Checkpoint:
    """Kept work in ``folder``, which is made, or emptied of what is of other work.

    Parameters
    ----------
    features : what the features depend on, JSON values by name.
    scoring : what else the scores depend on.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path, features: dict[str, Any], scoring: dict[str, Any]) -> None:
        self.notes: list[str] = []
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._discard_other_work({"features": features, "scoring": scoring})
            self._batches = Journal(folder / "batches.journal")
            self._cells = Journal(folder / "cells.journal")
        except OSError as error:
            raise OutputError(f"work cannot be kept in {folder}: {error.strerror}.") from error

    def _discard_other_work(self, about: dict[str, dict[str, Any]]) -> None:
        """Remove what was kept of other images or settings, and note why."""
        about = json.loads(json.dumps(about))
        try:
            before = json.loads((self._folder / _ABOUT).read_bytes())
        except (OSError, ValueError):
            before = {}
        features, scoring = (_changed(before.get(part, {}), about[part]) for part in ("features", "scoring"))
        for pattern in ("*",) if features else _OF_SCORING if scoring else ():
            for old in self._folder.glob(pattern):
                old.unlink()
        if before and features:
            self.notes.append(f"an earlier run was of other {', '.join(features)}: nothing of it is used")
        elif before and scoring:
            self.notes.append(f"an earlier run was of other {', '.join(scoring)}: only its features are used")
        _write_whole(self._folder / _ABOUT, json.dumps(about).encode("ascii"))

    # ---- features

    def open_tokens(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> FileRows:
        """The file of tokens, (rows, items)."""
        rows = FileRows(shape, dtype, path=self._folder / "tokens.bin")
        self._batches.speak_of(rows)
        return rows

    def batches(self, store: FeatureStore, progress: Progress) -> list[Batch]:
        """Finished batches from the first on, up to one that is missing or damaged; fills ``store.cls``."""
        latest = self._latest_batches()
        found: list[Batch] = []
        while entry := latest.get(len(found)):
            start, stop = entry["rows"]
            if _checksum(store, start, stop) != entry["checksum"]:
                self.notes.append(f"kept features of images {start} to {stop} were damaged: made again")
                break
            cls = np.frombuffer(base64.b64decode(entry["cls"]), np.float32)
            store.cls[start:stop] = cls.reshape(stop - start, store.cls.shape[1])
            found.append(Batch(entry["read"], [SkippedImage(**skipped) for skipped in entry["failed"]]))
            progress("check", len(found), len(latest), "batches")
        if found:
            images = sum(len(batch.read) for batch in found)
            self.notes.append(f"features of {images} images are of an earlier, interrupted run")
        return found

    def _latest_batches(self) -> dict[int, dict[str, Any]]:
        """What the journal says last of each batch, by number."""
        return {entry["batch"]: entry for entry in self._batches.entries}

    def keep_batch(self, number: int, store: FeatureStore, rows: tuple[int, int], batch: Batch) -> None:
        """Note that a batch of images is in ``store``."""
        self._batches.add(
            {
                "batch": number,
                "rows": rows,
                "read": batch.read,
                "failed": [asdict(skipped) for skipped in batch.failed],
                "cls": base64.b64encode(store.cls[slice(*rows)].tobytes()).decode("ascii"),
                "checksum": _checksum(store, *rows),
            }
        )

    # ---- scoring

    def open_minima(self, shape: tuple[int, int]) -> FileRows:
        """The file of cosines, (images, items)."""
        self._batches.commit()
        made_of = {"made_of": _digest([(e["read"], e["checksum"]) for e in self._latest_batches().values()])}
        rows = FileRows(shape, np.float32, path=self._folder / "minima.bin")
        self._cells.speak_of(rows)
        if self._cells.entries[:1] != [made_of]:
            self._cells.restart()
            self._cells.add(made_of)
        return rows

    def cells(self, layer: int) -> dict[Cell, int]:
        """Finished cells of a layer, each with the checksum of its cosines."""
        mine = (entry for entry in self._cells.entries if entry.get("layer") == layer and "cell" in entry)
        return {(entry["cell"][0], entry["cell"][1]): entry["checksum"] for entry in mine}

    def keep_cell(self, layer: int, cell: Cell, checksum: int) -> None:
        """Note a cell whose cosines have been written."""
        self._cells.add({"layer": layer, "cell": cell, "checksum": checksum})

    def scores(self, layer: int) -> Array | None:
        """Mutual scores (N,P) float64 of a finished layer, or None."""
        path = self._scores_path(layer)
        expected = {e["scores"] for e in self._cells.entries if e.get("layer") == layer and "scores" in e}
        content = path.read_bytes() if expected and path.exists() else b""
        return np.load(io.BytesIO(content)) if zlib.crc32(content) in expected else None

    def keep_scores(self, layer: int, scores: Array) -> None:
        """Keep the mutual scores of a layer."""
        content = io.BytesIO()
        np.save(content, scores)
        _write_whole(self._scores_path(layer), content.getvalue())
        self._cells.add({"layer": layer, "scores": zlib.crc32(content.getvalue())})
        self._cells.commit()

    def _scores_path(self, layer: int) -> Path:
        return self._folder / f"layer_{layer}.npy"

    # ---- end

    def close(self) -> None:
        """Keep what was done up to now."""
        with closing(self._batches), closing(self._cells):
            self._batches.commit()
            self._cells.commit()


def _checksum(store: FeatureStore, start: int, stop: int) -> int:
    """Checksum of the tokens of images start..stop, as the store gives them back."""
    value = 0
    for layer in range(store.shape[0]):
        value = checksum(store.block(layer, start, stop), value)
    return value


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, also after a loss of power."""
    partial = path.with_suffix(".partial")
    with writing(path):
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
