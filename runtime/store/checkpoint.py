"""The work on a lot that is kept when a run is interrupted, so that the same command can go on from it.

A folder holds
    .musc-edge        the mark of a folder that is ours and may be emptied
    about.json        what the work depends on: images, bundle, settings, versions
    tokens.bin        tokens, a row for each layer and image
    batches.journal   per batch of images: its rows, CLS embeddings, failed files, the tokens' checksum
    cosines.bin       the cosines of the layer that is being compared
    cells.journal     per cell of image pairs the cosines' checksum, per finished layer that of its scores
    layer_<l>.npy     mutual scores of a finished layer

What a journal lists is on the disk, and what it does not list is done again (journal.py).  Checksums are
verified before anything is used.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import weakref
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._files import make_folders, read_regular, write_whole
from ..._numbers import counted
from ..errors import OutputError
from ..types import Array, Cell, FeatureStore, Progress, SkippedImage
from .journal import Journal
from .kept_folder import ABOUT, BATCHES, CELLS, ELSEWHERE, MARK, NAMES, PATTERNS, lock, remove, require_ours
from .tables import COSINES, TOKENS, FileRows, checksum, writing

_OF_SCORING = (COSINES, CELLS, "layer_*.npy")
_LARGEST = 1 << 30  # bytes of about.json, which names every image, and of a layer's scores


class Batch(NamedTuple):
    """A finished batch of images: the names by row, and the files that could not be read."""

    read: list[str]
    failed: list[SkippedImage]


class Checkpoint:
    """Kept work in ``folder``, which is made if missing, and emptied of what belongs to other work.

    Parameters
    ----------
    features : all that the features depend on, JSON values by name.
    scoring : all else that the scores depend on.
    void_other : remove work with other features, and note it, instead of refusing to go on.

    Raises
    ------
    OutputError
        If the folder cannot be written, is in use, holds other files, or work with other features.
    """

    def __init__(
        self, folder: Path, features: dict[str, Any], scoring: dict[str, Any], *, void_other: bool = False
    ) -> None:
        self.notes: list[str] = []
        self._folder, self._void_other = folder, void_other
        try:
            make_folders(folder.parent)
            with suppress(FileExistsError):
                folder.mkdir(0o700)
            # Locked before anything is looked at: no other run of ours can change it from here on.
            self._unlock = weakref.finalize(self, os.close, lock(folder))
            require_ours(folder)
            self._discard_other_work({"features": features, "scoring": scoring})
            self._batches = Journal(folder / BATCHES)
            self._cells = Journal(folder / CELLS)
        except OSError as error:
            raise OutputError(f"work cannot be kept in {folder}: {error.strerror}. {ELSEWHERE}") from error

    def _discard_other_work(self, about: dict[str, dict[str, Any]]) -> None:
        """Refuse to go on from other features; remove the work of other scoring, and note why."""
        about = json.loads(json.dumps(about))
        before = _read_about(self._folder / ABOUT)
        if before is None:
            if {path.name for path in self._folder.iterdir()} - {MARK}:
                self.notes.append(
                    "the description of an earlier run cannot be read: none of its work is used"
                )
                remove(self._folder, *(set(NAMES) - {MARK}), *PATTERNS)
        elif changes := _changes(before["features"], about["features"]):
            if not self._void_other:
                raise OutputError(
                    f"the work kept in {self._folder} was made with other {'; '.join(changes)}. Use "
                    f"those again, or begin anew: rm -r {self._folder}"
                )
            self.notes.append(f"an earlier run had other {'; '.join(changes)}: none of its work is used")
            remove(self._folder, *(set(NAMES) - {MARK}), *PATTERNS)
        elif changes := _changes(before["scoring"], about["scoring"]):
            self.notes.append(f"an earlier run used other {'; '.join(changes)}: only its features are used")
            remove(self._folder, *_OF_SCORING)
        # Last, after everything of other work is gone: a run that ends in between must not leave a new
        # description beside old scores.
        self._write(ABOUT, json.dumps(about).encode("ascii"))

    def _write(self, name: str, content: bytes) -> None:
        with writing(self._folder / name):
            write_whole(self._folder / name, content)

    # ---- features

    def open_tokens(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> FileRows:
        """Open the file of tokens, (rows, items)."""
        rows = FileRows(shape, dtype, path=self._folder / TOKENS)
        self._batches.describe(rows)
        return rows

    def batches(self, store: FeatureStore, progress: Progress) -> list[Batch]:
        """Return the finished batches up to the first that is missing or damaged; fills ``store.cls``."""
        latest = self._latest_batches()
        found: list[Batch] = []
        row = 0
        # A batch begins at the row where the one before ends, so nothing after a gap can be used.
        while entry := latest.get(len(found)):
            batch, stop = _read_batch(entry, store, row)
            if batch is None:
                self.notes.append(
                    f"kept features of images {row} to {stop} were damaged: made again from there on"
                )
                break
            found.append(batch)
            row = stop
            progress("check", len(found), len(latest), "batches")
        if found:
            images = sum(len(batch.read) for batch in found)
            self.notes.append(f"features of {counted(images, 'image')} come from an earlier, interrupted run")
        return found

    def _latest_batches(self) -> dict[int, dict[str, Any]]:
        """Return the last entry of each batch, by number."""
        # A batch that was damaged and made again has an entry from each run; the last one wins.
        return {
            entry["batch"]: entry for entry in self._batches.entries if isinstance(entry.get("batch"), int)
        }

    def keep_batch(self, number: int, store: FeatureStore, rows: tuple[int, int], batch: Batch) -> None:
        """Note that a batch of images has been written to ``store``."""
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

    def begin_scoring(self, copies: Sequence[Sequence[int]] = ()) -> None:
        """Forget scores and cosines that were made of other features than those that are kept now.

        So too where other images were ``copies`` that do not judge each other: which they are depends on
        files that may have vanished since.
        """
        # First the features: no entry about scores may be on the disk without the features they are made of.
        self._batches.commit()
        batches = self._latest_batches().values()
        content: list[Any] = [(e.get("read"), e.get("checksum")) for e in batches]
        made_of = {"made_of": _digest([*content, *map(list, copies)])}
        # The first entry names the features.  Features that were damaged and made again differ in checksum if
        # their bytes differ, and then all that was made of the earlier ones is void.
        if self._cells.entries[:1] != [made_of]:
            self._cells.restart()
            self._cells.add(made_of)

    def open_cosines(self, shape: tuple[int, int]) -> FileRows:
        """Open the file of cosines, (images, items)."""
        rows = FileRows(shape, np.float32, path=self._folder / COSINES)
        self._cells.describe(rows)
        return rows

    def cells(self, layer: int) -> dict[Cell, int]:
        """Return the finished cells of a layer, each with the checksum of its cosines."""
        mine = (entry for entry in self._cells.entries if entry.get("layer") == layer and "cell" in entry)
        return {(entry["cell"][0], entry["cell"][1]): entry["checksum"] for entry in mine}

    def keep_cell(self, layer: int, cell: Cell, checksum: int) -> None:
        """Note a cell whose cosines have been written."""
        self._cells.add({"layer": layer, "cell": cell, "checksum": checksum})

    def scores(self, layer: int) -> Array | None:
        """Return the mutual scores, float64, of a finished layer, or None."""
        path = self._scores_path(layer)
        expected = {e["scores"] for e in self._cells.entries if e.get("layer") == layer and "scores" in e}
        try:
            content = read_regular(path, _LARGEST, follow=False) if expected else b""
        except OSError:
            return None
        return np.load(io.BytesIO(content)) if zlib.crc32(content) in expected else None

    def keep_scores(self, layer: int, scores: Array) -> None:
        """Keep the mutual scores of a layer."""
        content = io.BytesIO()
        np.save(content, scores)
        self._write(self._scores_path(layer).name, content.getvalue())
        # At once, not with the next commit: the next layer overwrites the cosines, and from then on only this
        # entry says that the layer is done.  The file itself is on the disk already (``write_whole``).
        self._cells.add({"layer": layer, "scores": zlib.crc32(content.getvalue())})
        self._cells.commit()

    def _scores_path(self, layer: int) -> Path:
        return self._folder / f"layer_{layer}.npy"

    # ---- end

    def close(self) -> None:
        """Commit all that was done up to now and give up the folder."""
        with closing(self._batches), closing(self._cells):
            self._batches.commit()
            self._cells.commit()
        self._unlock()


def _read_batch(entry: dict[str, Any], store: FeatureStore, row: int) -> tuple[Batch | None, int]:
    """Return the batch of an entry, None if it is damaged, and the row where it ends; fills ``store.cls``."""
    try:
        start, stop = entry["rows"]
        if start != row or not start <= stop <= len(store.cls) or len(entry["read"]) != stop - start:
            return None, row
        if _checksum(store, start, stop) != entry["checksum"]:
            return None, stop
        cls = np.frombuffer(base64.b64decode(entry["cls"]), np.float32)
        store.cls[start:stop] = cls.reshape(stop - start, store.cls.shape[1])
        return Batch(entry["read"], [SkippedImage(**skipped) for skipped in entry["failed"]]), stop
    except (KeyError, TypeError, ValueError):
        return None, row


def _checksum(store: FeatureStore, start: int, stop: int) -> int:
    """Return the checksum of the tokens of images start..stop, as the store gives them back."""
    value = 0
    for layer in range(store.shape[0]):
        value = checksum(store.block(layer, start, stop), value)
    return value


def _read_about(path: Path) -> dict[str, dict[str, Any]] | None:
    """Read what kept work depends on; None if the file is missing or damaged."""
    try:
        about = json.loads(read_regular(path, _LARGEST, follow=False))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(about, dict) and all(isinstance(about.get(p), dict) for p in ("features", "scoring"))
    return about if whole else None


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names whose values differ, with the two values where they are short."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [f"{name}{_values(before.get(name), now.get(name))}" for name in names]


def _values(before: Any, now: Any) -> str:
    """Format two values, ' (2, now 1)', or the first files that differ; empty if that is too long."""
    if all(isinstance(value, list) and value and isinstance(value[0], list) for value in (before, now)):
        names = sorted({str(entry[0]) for entry in set(map(tuple, before)) ^ set(map(tuple, now))})
        return f" ({len(names)} came, went or changed: {', '.join(names[:3])}{', ...' if names[3:] else ''})"
    text = f" ({before}, now {now})"
    return text if len(text) < 120 else ""


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
