"""A pool: images of one product that are compared once, pair by pair, so that any lot of them costs little.

Mutual scoring is one function of the distances from each patch of an image to the nearest patch of every
other image.  These depend on two images alone.  So they are kept for all pairs of the pool, by layer and
degree, and the scores of a lot are the interval averages over its own images: what `musc-edge infer` gives
for these files.

    pool.json   names and kinds of the images, grid, how many rows are done
    cls.npy     CLS embeddings (N,D)
    near.npy    distances (N,N,S,R,P) float32; what lies on the diagonal has no meaning
    tokens.npy  patch tokens (S,N,P,C), until all is done, or as long as they are of use
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import local
from typing import Any

import numpy as np

from musc_edge.runtime.images.survey import ReadOptions, survey_lot
from musc_edge.runtime.scoring.aggregate import centre, inverse_lengths, pooled_lengths, rescale
from musc_edge.runtime.scoring.blas import one_thread_per_product
from musc_edge.runtime.scoring.image_pairs import Comparer, best_filter, distance, load_filter
from musc_edge.runtime.scoring.nearest import hollow
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array, Bundle, FloatArray, LotImage
from musc_edge.runtime.vit.extract import extract, store_shape
from musc_edge.runtime.vit.onnx_backend import OnnxBackend

from .products import Sample

DEGREES = (1, 3, 5)
_ROWS = 8  # images whose comparisons are noted as done at once


@dataclass(frozen=True)
class Pool:
    """A pool that is done.

    Attributes
    ----------
    samples : its N images.
    size : (H,W) of the ViT's input.
    grid : (Gh,Gw).
    cls : CLS embeddings (N,D).
    near : distances (N,N,S,R,P) from the patches of the first image to the nearest one of the second.
    tokens : patch tokens (S,N,P,C), if they were kept.
    """

    product: str
    samples: tuple[Sample, ...]
    size: tuple[int, int]
    grid: tuple[int, int]
    cls: FloatArray
    near: Array
    tokens: Array | None = None

    def of(self, *kinds: str) -> Array:
        """Return the rows of the images of some kinds."""
        return np.array([i for i, sample in enumerate(self.samples) if sample.kind in kinds], np.int64)


def features(bundle: Bundle, samples: Sequence[Sample], threads: int) -> HostStore:
    """Tokens (S,N,P,C) and CLS embeddings of images, as the product reads and computes them."""
    survey = survey_lot(
        [LotImage(str(i), sample.path) for i, sample in enumerate(samples)], ReadOptions(), threads=threads
    )
    m = bundle.manifest
    tokens = np.empty(store_shape(len(samples), bundle), m.tokens[0].dtype)
    store = HostStore(tokens, np.empty((len(samples), m.cls_width), np.float32))
    with OnnxBackend(bundle, threads) as backend:
        images, _ = extract(survey, backend, m.preprocess, store, threads=threads)
    # Listed by name, so that rows must be brought back into the order of the samples.
    order = np.argsort([int(image.name) for image in images])
    return HostStore(tokens[:, order], store.cls[order])


def open_pool(
    folder: Path,
    product: str,
    samples: Sequence[Sample],
    bundle: Bundle,
    threads: int = 2,
    keep_tokens: bool = False,
) -> Pool:
    """Open the pool kept in ``folder``; what of it is not done yet is done first, and kept row by row.

    With ``keep_tokens`` the patch tokens stay there and come with the pool.
    """
    m = bundle.manifest
    shape = (len(samples),) * 2 + (len(m.layers), len(DEGREES), m.patches)
    about: dict[str, Any] = {
        "product": product, "bundle": bundle.digest, "degrees": list(DEGREES), "grid": list(m.grid),
        "samples": [[sample.path.name, sample.kind] for sample in samples],
    }  # fmt: skip
    kept = _kept(folder)
    if {**kept, "rows": 0} != {**about, "rows": 0}:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokens.npy").unlink(missing_ok=True)
        near = np.lib.format.open_memmap(folder / "near.npy", "w+", np.float32, shape)
        kept = {**about, "rows": 0}
        _note(folder, kept)
    near = np.lib.format.open_memmap(folder / "near.npy", "r+")
    if kept["rows"] < len(samples):
        compare = PairDistances(_kept_features(folder, bundle, samples, threads), m.grid)
        _compare_all(folder, kept, compare, near, threads)
        if not keep_tokens:
            (folder / "tokens.npy").unlink()
    cls: FloatArray = np.load(folder / "cls.npy")
    tokens = _kept_features(folder, bundle, samples, threads).tokens if keep_tokens else None
    return Pool(product, tuple(samples), m.preprocess.size, m.grid, cls, near, tokens)


def _kept_features(folder: Path, bundle: Bundle, samples: Sequence[Sample], threads: int) -> HostStore:
    """The features of a pool's images, from its folder if an earlier run has left them there."""
    tokens = folder / "tokens.npy"
    if not tokens.exists():
        store = features(bundle, samples, threads)
        np.save(folder / "cls.npy", store.cls)
        np.save(folder / "new.npy", store.tokens)
        (folder / "new.npy").replace(tokens)
    return HostStore(np.load(tokens, mmap_mode="r"), np.load(folder / "cls.npy"))


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / "pool.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _note(folder: Path, about: dict[str, Any]) -> None:
    new = folder / "pool.json.new"
    new.write_text(json.dumps(about), encoding="utf-8")
    new.replace(folder / "pool.json")


def _compare_all(
    folder: Path, about: dict[str, Any], compare: PairDistances, near: Any, threads: int
) -> None:
    """Compare the pairs of rows that are not done yet."""
    count = len(near)
    with one_thread_per_product(threads), ThreadPoolExecutor(threads) as workers:
        for first in range(about["rows"], count, _ROWS):
            last = min(first + _ROWS, count)
            pairs = [(a, b) for a in range(first, last) for b in range(a + 1, count)]
            for (a, b), (there, back) in zip(pairs, workers.map(compare, pairs), strict=True):
                near[a, b], near[b, a] = there, back
            near.flush()
            about["rows"] = last
            _note(folder, about)
            print(f"{folder.name}: {last} of {count} rows", file=sys.stderr, flush=True)


def within(folder: Path, pool: Pool, window: int, threads: int = 1) -> Pool:
    """Open a pool compared anew, patches at most ``window`` rows and columns apart; it has kept its tokens.

    What of it ``folder`` does not keep yet is done first, and kept row by row.
    """
    assert pool.tokens is not None
    about: dict[str, Any] = {
        "window": window,
        "samples": [[sample.path.name, sample.kind] for sample in pool.samples],
    }
    kept = _kept(folder)
    if {**kept, "rows": 0} != {**about, "rows": 0}:
        folder.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(folder / "near.npy", "w+", np.float32, pool.near.shape)
        kept = {**about, "rows": 0}
        _note(folder, kept)
    near = np.lib.format.open_memmap(folder / "near.npy", "r+")
    if kept["rows"] < len(pool.samples):
        compare = PairDistances(HostStore(pool.tokens, pool.cls), pool.grid, window)
        _compare_all(folder, kept, compare, near, threads)
    return replace(pool, near=near)


class PairDistances:
    """Distances (S,R,P) of a pair of images, both ways, by the product's own functions.

    With a ``window`` only patches at most so many rows and columns apart are compared.
    """

    def __init__(self, store: HostStore, grid: tuple[int, int], window: int | None = None) -> None:
        layers, count, patches, _ = store.shape
        self._filter, self._grid, self._window = load_filter(best_filter("auto")[0]), grid, window
        self._tokens = np.empty(store.shape, np.float32)
        lengths = np.empty((layers, count, len(DEGREES), patches), np.float32)
        for layer in range(layers):
            for image in range(count):
                tokens = rescale(centre(store.block(layer, image, image + 1))[0])
                self._tokens[layer, image] = tokens
                lengths[layer, image] = pooled_lengths(tokens, grid, DEGREES)
        self._inverse = inverse_lengths(lengths)
        self._own = local()

    def __call__(self, pair: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Return the distances from a's patches to b, and from b's to a."""
        found = [self._of_layer(layer, *pair) for layer in range(len(self._tokens))]
        return np.stack([there for there, _ in found]), np.stack([back for _, back in found])

    def _of_layer(self, layer: int, a: int, b: int) -> tuple[FloatArray, FloatArray]:
        tokens, inverse = self._tokens[layer], self._inverse[layer]
        cosines = self._comparer().compare(tokens[a], tokens[b], inverse[a], inverse[b])
        empty = hollow(inverse[[b, a]], None, self._grid, self._window)
        there, back = (
            distance(best[None], inverse[own] > 0, judge[None])[0]
            for own, judge, best in zip((a, b), empty, cosines, strict=True)
        )
        return there, back

    def _comparer(self) -> Comparer:
        if not hasattr(self._own, "comparer"):
            patches = self._tokens.shape[2]
            gram_filter = self._filter(self._grid, DEGREES, self._window)
            self._own.comparer = Comparer(gram_filter, patches, len(DEGREES))
        comparer: Comparer = self._own.comparer
        return comparer
