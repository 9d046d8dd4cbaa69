"""The probe: twelve free photographs with the source model's numbers, stored in every bundle.

With it any backend can be compared with the source model later, offline, on the device.

probe.npz holds   images (n,H,W,3) uint8 at model size, resized as every image is
                  token_index (K,) int64, the patches whose tokens are kept
                  tokens (S,n,K,C) float32, minus each image's mean
                  cls (n,D) float32, L2-normalised
                  raw_scores (n,) float64, of the images as a lot with the default settings
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..runtime.anomaly_map import raw_scores
from ..runtime.errors import BundleError
from ..runtime.images import normalise, read_image, resize
from ..runtime.mutual import mutual_scores
from ..runtime.store import HostStore
from ..runtime.types import Array, FeatureBackend, FloatArray, Manifest, PreprocessSpec
from .say import Say, batches, silent

KEPT_TOKENS = 64
_BATCH = 2  # images of 518 pixels take half a gigabyte each


@dataclass(frozen=True)
class Numbers:
    """What is compared: tokens (S,n,K,C), cls (n,D) and raw scores (n,) of the probe images."""

    tokens: FloatArray
    cls: FloatArray
    raw_scores: Array

    def at(self, patches: Array) -> Numbers:
        """The same numbers with only some patches' tokens."""
        return Numbers(np.ascontiguousarray(self.tokens[:, :, patches]), self.cls, self.raw_scores)


@dataclass(frozen=True)
class Probe:
    """The content of probe.npz."""

    images: Array
    token_index: Array
    numbers: Numbers


@contextmanager
def probe_files() -> Iterator[list[Path]]:
    """The image files of the probe, in the order of the probe's arrays, for as long as the block runs."""
    folder = resources.files(__package__) / "probe_images"
    entries = sorted((e for e in folder.iterdir() if e.name.endswith(".jpg")), key=lambda entry: entry.name)
    with ExitStack() as stack:
        yield [stack.enter_context(resources.as_file(entry)) for entry in entries]


def probe_images(spec: PreprocessSpec) -> Array:
    """The probe images (n,H,W,3) uint8 at model size, through the runtime's own preprocessing."""
    with probe_files() as files:
        return np.stack([np.asarray(resize(read_image(path), spec)) for path in files])


def measure(
    backend: FeatureBackend, images: Array, manifest: Manifest, batch: int | None = None, say: Say = silent
) -> Numbers:
    """Numbers of all patches of ``images`` (n,H,W,3) from an entered backend, ``batch`` at once if given."""
    count = len(images)
    dtype = manifest.tokens[0].dtype
    tokens = np.empty((len(manifest.layers), count, manifest.patches, manifest.token_width), dtype)
    store = HostStore(tokens, np.empty((count, manifest.cls_width), np.float32))
    for part in batches(count, batch or _BATCH, say):
        slot = store.slot(part.start, part.stop)
        backend.extract_into(normalise(images[part], manifest.preprocess), slot)
    return numbers_of(tokens.astype(np.float32), store.cls, manifest)


def numbers_of(tokens: FloatArray, cls: FloatArray, manifest: Manifest) -> Numbers:
    """Numbers of given tokens (S,n,P,C) and CLS embeddings (n,D), with their raw scores as a lot.

    Tokens that are not finite have no scores: they are NaN, which no tolerance accepts.
    """
    if not np.isfinite(tokens).all():
        return Numbers(tokens, cls, np.full(len(cls), np.nan))
    maps = mutual_scores(tokens, manifest.grid).reshape(-1, *manifest.grid)
    return Numbers(tokens, cls, raw_scores(maps, manifest.preprocess.size))


def kept_tokens(patches: int) -> Array:
    """Indices of the patches whose tokens are stored, spread over the image."""
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


def load_probe(path: Path) -> Probe:
    """Read probe.npz; BundleError if it is not one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            numbers = Numbers(data["tokens"], data["cls"], data["raw_scores"])
            return Probe(data["images"], data["token_index"], numbers)
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, zlib.error) as error:
        raise BundleError(
            f"{path} is not a probe that can be read: {error}. Export the bundle again."
        ) from error
