"""The batches of a lot: each is stacked, and brought to the GPU, while the ViT describes the last one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from inspect import GEN_RUNNING, getgeneratorstate
from itertools import islice, takewhile
from threading import Event

import numpy as np

from ..images.reading import ImageError
from ..images.survey import PATIENCE, Stream
from ..parallel import one_ahead
from ..timing import StageTimer
from ..types import FeatureBackend, FloatArray, LotImage, SkippedImage, Uploaded


@dataclass(frozen=True)
class Batch:
    """The next images of a lot: those that were read, with their ``pixels`` (B,3,H,W), and those that failed.

    ``pixels`` are where the backend reads them; None if no image could be read.
    """

    read: tuple[LotImage, ...]
    failed: tuple[SkippedImage, ...]
    pixels: FloatArray | Uploaded | None

    @property
    def files(self) -> int:
        """How many files it is, readable or not."""
        return len(self.read) + len(self.failed)


def batches_ahead(
    stream: Stream, size: int, backend: FeatureBackend, timer: StageTimer
) -> Generator[Batch, None, None]:
    """Yield the images of ``stream``, ``size`` at a time; the next batch is made in a thread meanwhile.

    At most one batch is ready beside the one that was yielded, which bounds memory.  Closing it closes the
    stream, unless a decoder is stuck: then both are abandoned (``parallel.has_abandoned``).
    """
    stop = Event()
    wanted = takewhile(lambda _: not stop.is_set(), stream)
    try:
        with closing(one_ahead(_batches(wanted, size, backend, timer, stop), stop, PATIENCE)) as batches:
            yield from batches
    finally:
        if getgeneratorstate(stream) != GEN_RUNNING:
            stream.close()


def _batches(
    stream: Iterator[tuple[LotImage, FloatArray | ImageError]],
    size: int,
    backend: FeatureBackend,
    timer: StageTimer,
    stop: Event,
) -> Iterator[Batch]:
    room: FloatArray | None = None
    while chunk := list(islice(stream, size)):
        if stop.is_set():
            return  # what was read until then is a part of a batch that nobody wants
        good = [(image, pixels) for image, pixels in chunk if not isinstance(pixels, ImageError)]
        bad = [(image, error) for image, error in chunk if isinstance(error, ImageError)]
        failed = tuple(SkippedImage(image.name, error.status, str(error)) for image, error in bad)
        ready = None
        if good:
            with timer.work("stack"):
                stacked = _stack([pixels for _, pixels in good], room)
                ready = backend.upload(stacked)
            # Memory whose pixels are on the GPU is used again: new memory takes longer than copying into it.
            room = None if ready is stacked else stacked
            del stacked
        batch = Batch(tuple(image for image, _ in good), failed, ready)
        del chunk, good, ready  # what a batch was made of does not stay while the next one is made
        yield batch
        del batch


def _stack(pixels: list[FloatArray], room: FloatArray | None) -> FloatArray:
    """Stack images (3,H,W), into ``room`` if they are as many as it has."""
    if room is None or len(room) != len(pixels):
        return np.stack(pixels)
    return np.stack(pixels, out=room)
