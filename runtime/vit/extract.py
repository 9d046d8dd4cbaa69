"""Run the ViT over a lot: batches are made ahead of it (batches.py), and its tokens fill a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError
from ..images.survey import Stream, Survey, decode_ahead
from ..settings import ANYTHING
from ..store.checkpoint import Checkpoint
from ..store.features import LARGEST, FileStore, HostStore
from ..store.kept_entries import Batch as KeptBatch
from ..store.tables import FileRows
from ..timing import UNTIMED, StageTimer
from ..types import (
    Array,
    Bundle,
    FeatureBackend,
    FeatureStore,
    FloatArray,
    LotImage,
    Plan,
    PreprocessSpec,
    Progress,
    SkippedImage,
    Slot,
    no_progress,
)
from .batches import batches_ahead

_SLOW = 1.0  # seconds

Pictures = Callable[[Survey, PreprocessSpec, int, int, int, StageTimer, int | None], Stream]
"""Yields the graph's input for each image of a lot, as ``decode_ahead`` does for whole images."""


def store_shape(images: int, bundle: Bundle) -> tuple[int, int, int, int]:
    """Return the shape (S, N, P, C) of the features of a lot."""
    m = bundle.manifest
    return len(m.layers), images, m.patches, m.token_width


def allocate(
    shape: tuple[int, int, int, int],
    dtype: npt.DTypeLike,
    cls: FloatArray,
    plan: Plan,
    scratch: Path | None = None,
    kept: Checkpoint | None = None,
) -> FeatureStore:
    """Make an empty store on the host for tokens of ``shape`` (S,N,P,C), in memory or in a file as planned.

    ``cls`` (N,D) receives the CLS embeddings.
    """
    layers, images, patches, width = shape
    if not plan.tokens_on_disk:
        return HostStore(np.empty(shape, dtype), cls)
    rows = layers * images, patches * width
    file = kept.open_tokens(rows, dtype) if kept else FileRows(rows, dtype, scratch)
    return FileStore(file, shape, dtype, cls, room=images)


def extract(
    survey: Survey,
    backend: FeatureBackend,
    spec: PreprocessSpec,
    store: FeatureStore,
    batch: int = ANYTHING.batch,
    threads: int = 1,
    timer: StageTimer = UNTIMED,
    progress: Progress = no_progress,
    kept: Checkpoint | None = None,
    room: int | None = None,
    pictures: Pictures = decode_ahead,
) -> tuple[tuple[LotImage, ...], tuple[SkippedImage, ...]]:
    """Decode a lot's images ahead of the ViT, and fill ``store`` with the features of the readable ones.

    ``room`` is the memory in bytes for images that are decoded at once; None for without limit.
    ``pictures`` makes the ViT's inputs of them.
    Batches in ``kept`` work are taken from there, and new ones are added to it.  Returns the images in the
    order of their rows in the store, and those that failed.

    Raises
    ------
    DeviceError
        If the backend fails, or gives numbers that are not finite or beyond any sense.
    """
    by_name = {image.name: image for image in survey.images}
    with timer.stage("check"):
        batches = kept.batches(store, progress, _names(survey, batch)) if kept else []
    read = [by_name[name] for part in batches for name in part.read]
    failed = [skipped for part in batches for skipped in part.failed]
    # A batch is so many files, readable or not: the next one begins at a multiple of its size.
    total, first = len(survey.images), len(batches) * batch
    progress("extract", min(first, total), total, "images")
    stream = pictures(survey, spec, threads, 2 * batch, first, timer, room)
    with closing(batches_ahead(stream, batch, backend, timer)) as ahead:
        for done in range(first, total, batch):
            with timer.stage("wait for images"):
                chunk = next(ahead)
            # Rows follow on from those before: images that cannot be read leave no gaps in the store.
            rows = len(read), len(read) + len(chunk.read)
            if chunk.pixels is not None:
                with timer.stage("extract"):
                    backend.extract_into(chunk.pixels, store.slot(*rows))
                    _require_finite(store.finite(*rows), chunk.read)
                    store.put(*rows)
            if kept:
                names = [image.name for image in chunk.read]
                kept.keep_batch(done // batch, store, rows, KeptBatch(names, list(chunk.failed)))
            read += chunk.read
            failed += chunk.failed
            progress("extract", done + chunk.files, total, "images")
            del chunk  # its pixels need not live until the next one is there
    return tuple(read), tuple(failed)


def _names(survey: Survey, batch: int) -> list[list[str]]:
    """Return the names of a lot's images by batch."""
    names = [image.name for image in survey.images]
    return [names[first : first + batch] for first in range(0, len(names), batch)]


def running_bytes(bundle: Bundle, batch: int) -> int:
    """Estimate the bytes that a ViT needs to run a batch, with the images decoded ahead and its tokens."""
    m = bundle.manifest
    pixels = 3 * m.preprocess.size[0] * m.preprocess.size[1]
    tokens = m.patches * m.token_width
    heads = max(1, m.token_width // 64)
    # Of pixels: two batches that are decoded ahead, one that is stacked, the next one, and the one that runs.
    # About a dozen arrays of the tokens' size at once, and attention's weights before and after the softmax,
    # for heads of width 64.
    activations = 12 * tokens + 2 * heads * m.patches**2
    return 4 * batch * (5 * pixels + activations + len(m.layers) * tokens)


def empty_slot(bundle: Bundle, images: int) -> Slot:
    """Make room for the features of some images, outside of any store."""
    m = bundle.manifest
    return Slot(
        np.empty(store_shape(images, bundle), m.tokens[0].dtype), np.empty((images, m.cls_width), np.float32)
    )


def warm_up(backend: FeatureBackend, bundle: Bundle, batch: int) -> float:
    """Run a batch of zeros, after which the backend holds all memory it needs; returns the seconds."""
    pixels = np.zeros((batch, 3, *bundle.manifest.preprocess.size), np.float32)
    slot = empty_slot(bundle, batch)
    first, _next = backend.upload(pixels), backend.upload(pixels)  # as one runs, the next is there already
    start = time.perf_counter()
    backend.extract_into(first, slot)
    return time.perf_counter() - start


def seconds_per_image(backend: FeatureBackend, bundle: Bundle, batch: int) -> float:
    """Measure the seconds of the ViT per image: of one image on the CPU, where that may take long already."""
    images = 1 if backend.name == "cpu" else batch
    first = warm_up(backend, bundle, images)
    # What the first run takes besides is nothing beside a ViT that takes as long as that.
    return (first if first > _SLOW else warm_up(backend, bundle, images)) / images


def _require_finite(finite: Array, images: Sequence[LotImage]) -> None:
    """Raise DeviceError with the images' names if the backend gave numbers for them that none can be."""
    if not np.all(finite):
        names = ", ".join(images[int(i)].name for i in np.flatnonzero(~finite))
        raise DeviceError(
            f"the ViT gave values that are not finite, or beyond {LARGEST:g}, for {names}. "
            "Try a bundle in fp32."
        )
