"""On a worker: a bundle's ViT, opened once for each process, describes a shard of a lot's images.

A shard is some batches of files, so that batches hold the same images as on one machine.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..._version import __version__
from ..errors import DeviceError
from ..images.reading import file_stamp
from ..images.survey import Survey, decode_ahead
from ..images.tile_file import cut, tiles_ahead
from ..memory import release_memory
from ..store.features import HostStore
from ..tiling import Layout
from ..types import Array, Bundle, FeatureBackend, FilePath, FloatArray, LotImage, SkippedImage
from ..vit.bundle import open_bundle
from ..vit.choose import enter_backend
from ..vit.extract import Pictures, empty_slot, extract, seconds_per_image
from .object_store import Place, taken


@dataclass(frozen=True)
class VitJob:
    """Which ViT a worker opens, and how.  ``root`` is an absolute path, ``digest`` the bundle's."""

    root: Path
    digest: str
    backend: str
    threads: int
    batch: int
    version: str = __version__


@dataclass(frozen=True)
class Shard:
    """Files of a lot that a worker describes, which ``survey`` has alone.

    ``decoding_bytes`` is the memory for those that are decoded at once.  ``together`` makes one object of all
    tokens.  ``cut`` asks for the images' tiles too.
    """

    vit: VitJob
    survey: Survey
    decoding_bytes: int
    together: bool
    cut: Layout | None = None


class Described(NamedTuple):
    """The receipt of a shard: which of its files were read, which not, and what their features are like.

    ``missing`` are those that could not be opened, or differ from what the survey saw, on ``node``.
    """

    read: tuple[str, ...]
    failed: tuple[SkippedImage, ...]
    missing: tuple[str, ...]
    cls: FloatArray
    version: str
    node: str


class Met(NamedTuple):
    """What a worker says of its ViT: backend, version, seconds per image and notes."""

    backend: str
    version: str
    seconds_per_image: float
    notes: tuple[str, ...]


class _Open(NamedTuple):
    bundle: Bundle
    backend: FeatureBackend
    notes: tuple[str, ...]
    stack: ExitStack


_opened: dict[VitJob, _Open] = {}
"""The ViT that this process has open: one at most."""


def opened_vit(job: VitJob) -> _Open:
    """Open the ViT of a job, or return it if this process has it open.

    Raises
    ------
    DeviceError
        If this worker has another musc-edge, or another bundle at that path, or none.
    BundleError
        If the bundle cannot be used.
    """
    if job not in _opened:
        close_vit()
        _require_version(job)
        if not job.root.is_dir():
            raise DeviceError(
                f"the worker on {platform.node()} finds no bundle at {job.root}. Put the same bundle at the "
                "same path on every machine, or in a folder that all share."
            )
        bundle = open_bundle(job.root)
        if bundle.digest != job.digest:
            raise DeviceError(
                f"the worker on {platform.node()} has another bundle at {job.root}: digest "
                f"{bundle.digest[:12]}, expected {job.digest[:12]}. Copy the same bundle to every machine."
            )
        with ExitStack() as stack:
            backend, notes = enter_backend(stack, job.backend, bundle, job.threads, job.batch)
            _opened[job] = _Open(bundle, backend, notes, stack.pop_all())
    return _opened[job]


def close_vit() -> None:
    """Close the ViT that this process has open, if any, so that its memory is free for other tasks."""
    while _opened:
        _opened.popitem()[1].stack.close()
        release_memory()


def _require_version(job: VitJob) -> None:
    if job.version != __version__:
        raise DeviceError(
            f"the worker on {platform.node()} has musc-edge {__version__}, expected {job.version}: install "
            "the same version on every machine."
        )


def meet(job: VitJob) -> Met:
    """Open the ViT of a job and time it."""
    vit = opened_vit(job)
    return Met(
        vit.backend.name,
        vit.backend.version,
        seconds_per_image(vit.backend, vit.bundle, job.batch),
        vit.notes,
    )


def describe(shard: Shard, at: Sequence[Place] = (), *objects: Array) -> list[Any]:
    """Describe the images of a shard: the receipt, and objects of tokens (object_store.py).

    Together these are one (S,n,P,C), for the files that were read.  Otherwise they are (1,1,P,C) of each
    layer of each file, and None for a file that could not be read.  If images are cut, an object (1,n,H,W,3)
    of the tiles of all files follows for each position.

    Where objects are given, the shard's images are tiles, which lie ``at`` these places of them.
    """
    vit, survey = opened_vit(shard.vit), shard.survey
    count, width = len(survey.images), vit.bundle.manifest.cls_width
    spec, tiles = vit.bundle.manifest.preprocess, list[Array]()
    pictures: Pictures = decode_ahead
    number = {image.name: row for row, image in enumerate(survey.images)}
    if objects:
        pixels = taken(at, objects)
        pictures = partial(tiles_ahead, lambda tile: pixels[number[tile.name]])
    elif (layout := shard.cut) is not None:
        tiles = [np.zeros((1, count, *spec.size, 3), np.uint8) for _ in layout.positions]

        def keep(image: LotImage, picture: Image.Image) -> None:
            for kept, tile in zip(tiles, cut(picture, layout, spec), strict=True):
                kept[0, number[image.name]] = tile

        pictures = partial(decode_ahead, aside=keep)
    store = HostStore(empty_slot(vit.bundle, count).tokens, np.empty((count, width), np.float32))
    read, failed = extract(
        survey, vit.backend, spec, store, shard.vit.batch, shard.vit.threads,
        room=shard.decoding_bytes, pictures=pictures,
    )  # fmt: skip
    names = tuple(image.name for image in read)
    receipt = Described(
        names, failed, _missing(survey, failed), store.cls[: len(read)], vit.backend.version, platform.node()
    )
    if shard.together:
        return [receipt, store.tokens[:, : len(read)], *tiles]
    rows = {name: row for row, name in enumerate(names)}
    tokens: list[Array | None] = []
    for image in survey.images:
        row = rows.get(image.name)
        for layer in store.tokens:
            tokens.append(None if row is None else layer[None, row : row + 1])
    return [receipt, *tokens, *tiles]


def _missing(survey: Survey, failed: tuple[SkippedImage, ...]) -> tuple[str, ...]:
    """Return the names of files that failed and are not here as the survey saw them."""
    lost = {skipped.name for skipped in failed}
    return tuple(image.name for image in survey.images if image.name in lost and not seen(survey, image.name))


def seen(survey: Survey, name: str) -> bool:
    """Whether a file of a survey is here as it was seen: as large, and written to at the same time."""
    path = next(image.path for image in survey.images if image.name == name)
    try:
        return file_stamp(path) == survey.headers[name].stamp
    except OSError:
        return False


def shard_survey(survey: Survey, first: int, count: int) -> Survey:
    """Return the survey of ``count`` files from number ``first`` on, for another machine."""
    part = survey.images[first : first + count]
    images = tuple(replace(image, path=shard_file(image.path)) for image in part)
    headers = {image.name: survey.headers[image.name] for image in images}
    return Survey(images, headers, (), survey.bit_depth, survey.max_pixels)


def shard_file(path: FilePath) -> FilePath:
    """The file of an image as others find it: a path may be relative to this process's folder."""
    return path.absolute() if isinstance(path, Path) else path
