"""The probe: twelve free photographs with the source model's numbers, stored in every bundle.

With it any backend can be compared with the source model later, offline, on the device.

probe.npz holds   images (n,H,W,3) uint8 at model size, resized as every image is
                  token_index (K,) int64, the patches whose tokens are kept
                  tokens (S,n,K,C) float32, minus each image's mean
                  cls (n,D) float32, L2-normalised
                  raw_scores (n,) float64, of the images as a lot with the default settings

and nothing else.  A bundle may be a stranger's, so each array's header is compared with what the manifest
implies before the array is unpacked.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from .._files import open_regular
from .._json import shortly
from ..runtime.errors import BundleError
from ..runtime.images.reading import normalise, read_image, resize
from ..runtime.scoring.anomaly_map import raw_scores
from ..runtime.scoring.mutual import mutual_scores
from ..runtime.store.features import HostStore
from ..runtime.store.npy import read_data, read_header
from ..runtime.types import Array, FeatureBackend, FloatArray, Manifest, PreprocessSpec
from .messages import Say, batches, silent

KEPT_TOKENS = 64
_BATCH = 2  # images of 518 pixels take half a gigabyte each
_TYPES = {"images": "u1", "token_index": "<i8", "tokens": "<f4", "cls": "<f4", "raw_scores": "<f8"}
_MOST_IMAGES = 64
_LARGEST = 1 << 30
"""Bytes: limit of all arrays together; ViT-L at 518 pixels has 1 << 25."""
_MOST_MEMBERS = 16
_ZIP_END = struct.Struct("<4s4H2LH")
"""Signature, two disk numbers, two member counts, size and offset of the directory, comment length."""
_ZIP64_END = struct.Struct("<4sLQL")
"""The locator of ZIP64 that may come before it; where it is present, the fields above do not count."""

T = TypeVar("T")


@dataclass(frozen=True)
class Numbers:
    """The numbers that are compared: tokens (S,n,K,C), cls (n,D) and raw scores (n,) of the probe images."""

    tokens: FloatArray
    cls: FloatArray
    raw_scores: Array

    def at(self, patches: Array) -> Numbers:
        """Return the same numbers with the tokens of ``patches`` only."""
        return Numbers(np.ascontiguousarray(self.tokens[:, :, patches]), self.cls, self.raw_scores)


@dataclass(frozen=True)
class Probe:
    """The content of probe.npz."""

    images: Array
    token_index: Array
    numbers: Numbers


@contextmanager
def probe_files() -> Iterator[list[Path]]:
    """Yield the image files of the probe, in the order of its arrays; they exist while the block runs."""
    folder = resources.files(__package__) / "probe_images"
    entries = sorted((e for e in folder.iterdir() if e.name.endswith(".jpg")), key=lambda entry: entry.name)
    with ExitStack() as stack:
        yield [stack.enter_context(resources.as_file(entry)) for entry in entries]


def probe_images(spec: PreprocessSpec) -> Array:
    """Read the probe images (n,H,W,3) uint8 at model size, through the runtime's own preprocessing."""
    with probe_files() as files:
        return np.stack([np.asarray(resize(read_image(path), spec)) for path in files])


def measure(
    backend: FeatureBackend, images: Array, manifest: Manifest, batch: int | None = None, say: Say = silent
) -> Numbers:
    """Run ``images`` (n,H,W,3) through an entered backend, ``batch`` at once; numbers of all patches."""
    count = len(images)
    dtype = manifest.tokens[0].dtype
    tokens = np.empty((len(manifest.layers), count, manifest.patches, manifest.token_width), dtype)
    store = HostStore(tokens, np.empty((count, manifest.cls_width), np.float32))
    for part in batches(count, batch or _BATCH, say):
        slot = store.slot(part.start, part.stop)
        backend.extract_into(normalise(images[part], manifest.preprocess), slot)
    return numbers_of(tokens.astype(np.float32), store.cls, manifest)


def numbers_of(tokens: FloatArray, cls: FloatArray, manifest: Manifest) -> Numbers:
    """Put tokens (S,n,P,C) and CLS embeddings (n,D) together with their raw scores as a lot.

    If tokens are not finite, the scores are NaN, which no tolerance accepts.
    """
    if not np.isfinite(tokens).all():
        return Numbers(tokens, cls, np.full(len(cls), np.nan))
    maps = mutual_scores(tokens, manifest.grid).reshape(-1, *manifest.grid)
    return Numbers(tokens, cls, raw_scores(maps, manifest.preprocess.size))


def kept_tokens(patches: int) -> Array:
    """Return the indices of the patches whose tokens are stored, spread over the image."""
    return np.unique(np.linspace(0, patches - 1, KEPT_TOKENS).round().astype(np.int64))


def save_probe(path: Path, probe: Probe) -> None:
    """Write probe.npz."""
    numbers = probe.numbers
    np.savez_compressed(
        path,
        images=probe.images,
        token_index=probe.token_index,
        tokens=numbers.tokens,
        cls=numbers.cls,
        raw_scores=numbers.raw_scores,
    )


# ---- reading ---------------------------------------------------------------------------------


def load_probe(path: Path, manifest: Manifest | None = None) -> Probe:
    """Read probe.npz.

    Parameters
    ----------
    manifest : of the bundle it is in; None for whatever fits into ``_LARGEST`` bytes.

    Raises
    ------
    BundleError
        If it is not a probe, or does not belong to a bundle with this manifest.
    """
    try:
        with open_regular(path) as file:
            _check_directory(file)
            with ZipFile(file) as archive:
                return _unpack(archive, path, manifest)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, struct.error, RuntimeError) as error:
        raise BundleError(
            f"{path} is not a probe that can be read: {error}. Export the bundle again."
        ) from error


def _check_directory(file: BinaryIO) -> None:
    """Raise ValueError unless a zip file ends as numpy's do, with a directory of a few members."""
    # ``ZipFile`` makes an object for each member, however many a file claims: so the directory's size is read
    # here first, from the record at the end of the file.
    file.seek(0, os.SEEK_END)
    size = min(file.tell(), _ZIP_END.size + _ZIP64_END.size)
    file.seek(-size, os.SEEK_END)
    tail = file.read(size).rjust(_ZIP_END.size + _ZIP64_END.size)
    mark, *_, members, directory, _, comment = _ZIP_END.unpack(tail[-_ZIP_END.size :])
    if mark != b"PK\5\6" or comment or tail.startswith(b"PK\6\7"):
        raise ValueError("it is not the end of a zip file that numpy wrote")
    if members > _MOST_MEMBERS or directory > _MOST_MEMBERS * 1000:
        raise ValueError(f"it holds {members} members, expected {len(_TYPES)}")


def _unpack(archive: ZipFile, path: Path, manifest: Manifest | None) -> Probe:
    members = archive.infolist()
    found, expected = sorted(m.filename for m in members), sorted(f"{name}.npy" for name in _TYPES)
    if found != expected:
        raise ValueError(f"it holds {shortly(found, 300)}, expected {expected}")
    if any(m.flag_bits & 1 or m.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for m in members):
        raise ValueError("its members are encrypted, or compressed in a way that numpy does not use")
    with ExitStack() as stack:
        files = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in _TYPES}
        headers = {name: _named(name, read_header, files[name], dtype) for name, dtype in _TYPES.items()}
        shapes = {name: header.shape for name, header in headers.items()}
        _check_shapes(shapes, path, manifest)
        arrays = {n: _named(n, read_data, files[n], headers[n], shapes[n]) for n in _TYPES}
    numbers = Numbers(arrays["tokens"], arrays["cls"], arrays["raw_scores"])
    return Probe(arrays["images"], arrays["token_index"], numbers)


def _named(name: str, read: Callable[..., T], *arguments: Any) -> T:
    """Call ``read``; its ValueError gets the name of the array."""
    try:
        return read(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], path: Path, manifest: Manifest | None) -> None:
    """Raise BundleError unless ``manifest`` implies these shapes, ValueError if they are too large."""
    if manifest:
        count = min(shapes["images"][0], _MOST_IMAGES) if shapes["images"] else 0
        kept = min(shapes["token_index"][0], manifest.patches) if shapes["token_index"] else 0
        expected = {
            "images": (count, *manifest.preprocess.size, 3),
            "token_index": (kept,),
            "tokens": (len(manifest.layers), count, kept, manifest.token_width),
            "cls": (count, manifest.cls_width),
            "raw_scores": (count,),
        }
        wrong = [
            f"{n} {shortly(shapes[n])}, expected {expected[n]}" for n in _TYPES if shapes[n] != expected[n]
        ]
        if wrong:
            raise BundleError(f"{path} does not fit the manifest: {'; '.join(wrong)}. Export it again.")
    size = sum(math.prod(shapes[name]) * np.dtype(dtype).itemsize for name, dtype in _TYPES.items())
    if size > _LARGEST:
        raise ValueError(f"it unpacks to {size:,} bytes, expected at most {_LARGEST:,}")
