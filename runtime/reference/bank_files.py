"""Write the bank of a reference: whole images, or the patches that cover each image, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..scoring.aggregate import pooled_lengths
from ..scoring.row import describe, unit_vectors
from ..types import Array, FloatArray
from .choose import cover
from .files import read_array, read_inside, write_array
from .manifest import HOLLOW, INSIDE, LENGTHS, ReferenceManifest, layer_file
from .parts import Chosen


def write_bank(folder: Path, manifest: ReferenceManifest, chosen: Chosen, part: str = "") -> dict[str, str]:
    """Write the files of the bank that ``manifest`` describes into ``folder``; returns their hashes.

    ``part`` is how their names begin.

    Raises
    ------
    OSError
        If one cannot be written.
    ReferenceFolderError
        If the earlier reference is damaged.
    """
    files, measures = {}, []
    name, write = (LENGTHS, _write_whole) if manifest.whole else (HOLLOW, _write_patches)
    name = part + name
    for position, layer in enumerate(manifest.layers):
        file = part + layer_file(layer)
        files[file], measure = write(folder / file, manifest, chosen, position)
        measures.append(measure)
    files[name] = write_array(folder / name, *manifest.shapes()[name], measures)
    return files


def write_inside(folder: Path, manifest: ReferenceManifest, chosen: Chosen) -> str:
    """Write which patches of the bank's images take part; returns the hash.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    return write_array(folder / INSIDE, *manifest.shapes()[INSIDE], [_inside(chosen)])


def _inside(chosen: Chosen) -> Array:
    """Which patches (M,P) of the bank's images take part."""
    new = np.array([chosen.pool.inside(row) for row in chosen.rows], bool)
    before = read_inside(chosen.earlier.root, chosen.earlier.manifest) if chosen.earlier else None
    if before is None:
        return new
    return np.concatenate([before[chosen.old], new.reshape(-1, before.shape[1])])


def _write_whole(path: Path, manifest: ReferenceManifest, chosen: Chosen, position: int) -> tuple[str, Array]:
    """Write whole images of a layer (M,P,C); returns the hash, and the lengths (M,R,P) of the tokens."""
    patches = manifest.grid[0] * manifest.grid[1]
    lengths = np.empty((chosen.images, len(manifest.degrees), patches), np.float32)
    dtype, shape = manifest.shapes()[path.name]

    def stored() -> Iterator[Array]:
        for j, tokens in enumerate(_images(path, manifest, chosen, position)):
            rounded = tokens.astype(dtype)
            lengths[j] = pooled_lengths(rounded.astype(np.float32), manifest.grid, manifest.degrees)
            yield rounded

    return write_array(path, dtype, shape, stored()), lengths


def _images(path: Path, manifest: ReferenceManifest, chosen: Chosen, position: int) -> Iterator[Array]:
    """Yield the centred tokens (P,C) of each image of the bank."""
    if chosen.earlier:
        yield from read_array(chosen.earlier.root, chosen.earlier.manifest, path.name)[chosen.old]
    for row in chosen.rows:
        yield describe(chosen.pool.tokens(position, row), manifest.method).tokens


def _write_patches(
    path: Path, manifest: ReferenceManifest, chosen: Chosen, position: int
) -> tuple[str, Array]:
    """Write chosen patches of a layer (R,n,M,C); returns the hash, and what is hollow (M,R)."""
    dtype, shape = manifest.shapes()[path.name]
    units = np.empty(shape, dtype)
    hollow = np.empty((chosen.images, len(manifest.degrees)), np.uint8)
    first = len(chosen.old)
    if chosen.earlier:
        root, m = chosen.earlier.root, chosen.earlier.manifest
        units[:, :, :first] = read_array(root, m, path.name)[:, :, chosen.old]
        part = path.name.removesuffix(layer_file(m.layers[position]))
        hollow[:first] = read_array(root, m, part + HOLLOW)[position, chosen.old]
    for j, row in enumerate(chosen.rows, first):
        query = describe(chosen.pool.tokens(position, row), manifest.method)
        inside = chosen.pool.inside(row)
        hollow[j] = (query.inverse[:, inside] == 0).any(axis=1)
        for t in range(len(manifest.degrees)):
            units[t, :, j] = _covering(unit_vectors(query, manifest.method, t)[inside], manifest.patches)
    return write_array(path, dtype, shape, [units]), hollow


def _covering(vectors: FloatArray, count: int) -> FloatArray:
    """Choose ``count`` of an image's patches; where fewer take part, some are there twice."""
    picked = vectors[cover(vectors, count)]
    repeated: FloatArray = picked[np.arange(count) % len(picked)]
    return repeated
