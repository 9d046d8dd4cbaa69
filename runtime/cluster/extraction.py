"""Let a cluster describe the images of a lot: shards of files are tasks, taken in the lot's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..._numbers import ceil_div
from ..errors import DeviceError
from ..images.survey import Survey, decoding_bytes
from ..images.tile_file import tile_bytes
from ..store.checkpoint import Checkpoint
from ..store.kept_entries import Batch as KeptBatch
from ..types import FeatureStore, LotImage, Progress, SkippedImage, Slot
from .engine import Cluster, Job
from .object_store import ObjectStore, Part, fetch
from .shards import Described, Shard, describe, seen, shard_file, shard_survey
from .tiles import TilePictures
from .worker_vit import WorkerVit

MOST_BATCHES, SHARDS_EACH = 4, 4
"""Batches of a shard, and how many shards each worker gets where a lot is small, about."""


_SHARED = "Put the lot into a folder that all machines share, under the same path."
_REMOTE = "Give all machines the same way to it (docs/urls.md): workers have the environment of ray start."


@dataclass
class _Lot:
    """A lot that is being described: its rows so far, and the files that failed."""

    store: FeatureStore
    read: list[LotImage]
    failed: list[SkippedImage]


def extract_on(
    vit: WorkerVit,
    survey: Survey,
    store: FeatureStore,
    progress: Progress,
    kept: Checkpoint | None = None,
    pictures: TilePictures | None = None,
) -> tuple[tuple[LotImage, ...], tuple[SkippedImage, ...]]:
    """Fill ``store`` with the features of a lot, as ``vit.extract.extract`` does on one machine.

    It is an ObjectStore, or with ``kept`` work the store on this machine's disk.  ``pictures`` has to do with
    tiles, if images are cut.

    Raises
    ------
    DeviceError
        If a worker cannot read what this machine can, has another bundle, or gives numbers that are not
        finite; or workers are lost again and again.
    """
    cluster, batch, files = vit.cluster, vit.job.batch, survey.images
    names = [image.name for image in files]
    by_batch = [names[first : first + batch] for first in range(0, len(names), batch)]
    by_name = {image.name: image for image in files}
    batches = kept.batches(store, progress, by_batch) if kept else []
    lot = _Lot(
        store,
        [by_name[name] for each in batches for name in each.read],
        [skipped for each in batches for skipped in each.failed],
    )
    first = len(batches) * batch
    progress("extract", first, len(files), "images")
    size = _batches_of(len(files), batch, vit.lanes) * batch
    together = cluster.holds(prod(store.shape) * store.dtype.itemsize)
    for at, receipt, references in cluster.in_order(_jobs(vit, survey, first, size, together, pictures)):
        shard = names[at * size + first : (at + 1) * size + first]
        _require_seen(survey, receipt)
        vit.made_by(receipt.version)
        rows = {name: row for row, name in enumerate(receipt.read)}
        numbers = {name: number for number, name in enumerate(shard)}
        if pictures and pictures.cut:
            positions = len(pictures.cut.positions)
            pictures.tiles.add([by_name[name] for name in shard], references[-positions:])
        for start in range(0, len(shard), batch):
            part = shard[start : start + batch]
            good = [name for name in part if name in rows]
            bad = [skipped for skipped in receipt.failed if skipped.name in part]
            found = [
                _in_shard(references, rows[name], vit.layers)
                if together
                else _by_itself(references, numbers[name], vit.layers)
                for name in good
            ]
            cls = receipt.cls[[rows[name] for name in good]]
            _keep(cluster, lot, [by_name[name] for name in good], bad, found, cls)
            if kept:
                stop = len(lot.read)
                number = (at * size + first + start) // batch
                kept.keep_batch(number, store, (stop - len(good), stop), KeptBatch(good, bad))
        progress("extract", min((at + 1) * size + first, len(files)), len(files), "images")
    return tuple(lot.read), tuple(lot.failed)


def _jobs(
    vit: WorkerVit, survey: Survey, first: int, size: int, together: bool, pictures: TilePictures | None
) -> Iterator[Job[int]]:
    layers, decoding = vit.layers, decoding_bytes(survey, vit.job.threads)
    cut = pictures.cut if pictures else None
    tiles = len(cut.positions) if cut else 0
    memory = decoding + (tile_bytes(cut, size, vit.bundle.manifest.preprocess) if cut else 0)
    for number, start in enumerate(range(first, len(survey.images), size)):
        part = shard_survey(survey, start, size)
        shard = Shard(vit.job, part, decoding, together, cut)
        at, objects = pictures.given(part.images) if pictures else ([], [])
        returns = 1 + (1 if together else layers * len(part.images)) + tiles
        yield number, vit.submit(describe, shard, at, *objects, returns=returns, memory=memory)


def _batches_of(files: int, batch: int, lanes: int) -> int:
    """How many batches a shard has: fewer where there would be too few shards for all workers."""
    return min(MOST_BATCHES, max(1, ceil_div(files, batch * lanes * SHARDS_EACH)))


def _in_shard(references: Sequence[Any], row: int, layers: int) -> list[Part]:
    """Return where the layers of an image are in the one object of a shard."""
    return [Part(references[0], layer, row) for layer in range(layers)]


def _by_itself(references: Sequence[Any], file: int, layers: int) -> list[Part]:
    """Return where the layers of a file are, each in an object of its own."""
    return [Part(each, 0, 0) for each in references[file * layers : (file + 1) * layers]]


def _keep(
    cluster: Cluster,
    lot: _Lot,
    images: Sequence[LotImage],
    failed: Sequence[SkippedImage],
    found: Sequence[Sequence[Part]],
    cls: Any,
) -> None:
    """Add a batch to the lot: where its tokens are, or in a store on this machine these."""
    rows = len(lot.read), len(lot.read) + len(images)
    lot.read += images
    lot.failed += failed
    if isinstance(lot.store, ObjectStore):
        lot.store.found.extend(found)
        lot.store.cls[slice(*rows)] = cls
    elif images:
        slot = lot.store.slot(*rows)
        assert isinstance(slot, Slot)
        slot.cls[:] = cls
        for layer, of_layer in enumerate(zip(*found, strict=True)):
            for image, tokens in enumerate(fetch(cluster, of_layer)):
                slot.tokens[layer][image] = tokens
        lot.store.put(*rows)


def _require_seen(survey: Survey, receipt: Described) -> None:
    """Raise DeviceError if a worker lacks files that this machine has; those that are gone are rows."""
    lost = [name for name in receipt.missing if seen(survey, name)]
    if lost:
        path = next(image.path for image in survey.images if image.name == lost[0])
        here = isinstance(path, Path)
        raise DeviceError(
            f"the worker on {receipt.node} cannot read {shard_file(path)} as it is here, nor {len(lost) - 1} "
            f"others of its shard. {_SHARED if here else _REMOTE}"
        )
