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
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._files import make_folders, read_regular, write_whole
from ..._json import parse_json
from ..._numbers import counted
from ..errors import OutputError
from ..types import Array, Cell, FeatureStore, Progress
from .journal import Journal
from .kept_entries import Batch, BatchEntry, batch_entries, cell_checksums, score_checksums
from .kept_folder import ABOUT, BATCHES, CELLS, ELSEWHERE, MARK, NAMES, PATTERNS, lock, remove, require_ours
from .npy import read_npy
from .tables import COSINES, TOKENS, FileRows, checksum, writing

_OF_SCORING = (COSINES, CELLS, "layer_*.npy")
_LARGEST = 1 << 30  # bytes of about.json, which names every image, and of a layer's scores


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

    def batches(self, store: FeatureStore, progress: Progress, names: Sequence[Sequence[str]]) -> list[Batch]:
        """Return the finished batches up to the first that is missing or damaged; fills ``store.cls``.

        ``names`` are those of the lot's images, by batch: one of other images, or in another order, is none.
        """
        latest = batch_entries(self._batches.entries)
        found: list[Batch] = []
        row = 0
        # A batch begins at the row where the one before ends, so nothing after a gap can be used.
        while len(found) < len(names) and (entry := latest.get(len(found))):
            batch, stop = _read_batch(entry, store, row)
            if batch is None or not batch.is_of(names[len(found)]):
                self.notes.append(
                    f"kept features of images {row} to {stop} were damaged: made again from there on"
                )
                break
            found.append(batch)
            row = stop
            progress("check", len(found), len(latest), "batches")
        if found:
            count = sum(len(batch.read) for batch in found)
            self.notes.append(f"features of {counted(count, 'image')} come from an earlier, interrupted run")
        return found

    def keep_batch(self, number: int, store: FeatureStore, rows: tuple[int, int], batch: Batch) -> None:
        """Note that a batch of images has been written to ``store``."""
        self._batches.add(
            {
                "batch": number,
                "rows": list(rows),
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
        batches = batch_entries(self._batches.entries).values()
        content: list[Any] = [(batch.read, batch.checksum) for batch in batches]
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
        return cell_checksums(self._cells.entries, layer)

    def keep_cell(self, layer: int, cell: Cell, checksum: int) -> None:
        """Note a cell whose cosines have been written."""
        self._cells.add({"layer": layer, "cell": list(cell), "checksum": checksum})

    def scores(self, layer: int, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> Array | None:
        """Return the scores of a finished layer, of ``shape`` and ``dtype``, or None."""
        expected = score_checksums(self._cells.entries, layer)
        if not expected:
            return None
        try:
            content = read_regular(self._scores_path(layer), _LARGEST, follow=False)
            return read_npy(content, dtype, shape) if zlib.crc32(content) in expected else None
        except (OSError, ValueError):
            return None

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


def _read_batch(entry: BatchEntry, store: FeatureStore, row: int) -> tuple[Batch | None, int]:
    """Return the batch of an entry, None if it is damaged, and the row where it ends; fills ``store.cls``."""
    start, stop = entry.rows
    if start != row or not start <= stop <= len(store.cls) or len(entry.read) != stop - start:
        return None, row
    if _checksum(store, start, stop) != entry.checksum:
        return None, stop
    try:
        store.cls[start:stop] = entry.embeddings(store.cls.shape[1])
    except ValueError:
        return None, row
    return Batch(list(entry.read), list(entry.failed)), stop


def _checksum(store: FeatureStore, start: int, stop: int) -> int:
    """Return the checksum of the tokens of images start..stop, as the store gives them back."""
    value = 0
    for layer in range(store.shape[0]):
        value = checksum(store.block(layer, start, stop), value)
    return value


def _read_about(path: Path) -> dict[str, dict[str, Any]] | None:
    """Read what kept work depends on; None if the file is missing or damaged."""
    try:
        about = parse_json(read_regular(path, _LARGEST, follow=False))
    except (OSError, ValueError):
        return None
    whole = isinstance(about, dict) and all(isinstance(about.get(p), dict) for p in ("features", "scoring"))
    return about if whole else None


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names whose values differ, with the two values where they are short."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [f"{name}{_values(before.get(name), now.get(name))}" for name in names]


def _values(before: Any, now: Any) -> str:
    """Format two values, ' (2, now 1)', or the first files that differ; empty if that is too long."""
    if _are_files(before) and _are_files(now):
        names = sorted({str(entry[0]) for entry in set(map(tuple, before)) ^ set(map(tuple, now))})
        return f" ({len(names)} came, went or changed: {', '.join(names[:3])}{', ...' if names[3:] else ''})"
    text = f" ({before}, now {now})"
    return text if len(text) < 120 else ""


def _are_files(value: Any) -> bool:
    """Return whether a value lists files: of each its name, and what tells whether it was changed."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(each, list) and each and not any(isinstance(part, list | dict) for part in each)
            for each in value
        )
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
