"""The bank of a reference by residual: what is common in its images, for each layer and degree.

    layer_<l>.npy   (R,C+1,C) float32: the mean, then the directions outside of what is common, then zeros
    counts.npy      (S,R,2): how many directions there are, and of how many patches
    moments.npy     (S,R,C+1,C) float64: the sums of the patches, and of their products; to add more images

The directions are those of ``infer`` for the same images, bit for bit; they are kept since finding them anew
could draw the line elsewhere on another machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ReferenceFolderError
from ..run import Run
from ..scoring.blas import one_thread_per_product
from ..scoring.judges import everyone
from ..scoring.residual import SHARE, Layer
from ..scoring.residual_row import ResidualRow
from ..scoring.subspace import Moments, Subspace, subspaces
from ..settings import ANYTHING, Resources
from ..types import Array
from .files import ReferenceFolder, read_array, require_room, write_array
from .manifest import AGAIN, COUNTS, MOMENTS, ReferenceManifest, layer_file
from .parts import Chosen


@dataclass(frozen=True)
class _Rows:
    """The tokens of some ``rows`` of a part, as a store has them."""

    chosen: Chosen

    @property
    def shape(self) -> tuple[int, int, int, int]:
        layers, _, patches, width = self.chosen.pool.features.store.shape
        return layers, len(self.chosen.rows), patches, width

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Return the tokens (n,P,C) of some of the rows."""
        return np.stack([self.chosen.pool.tokens(layer, row) for row in self.chosen.rows[i0:i1]])


def write_common(
    folder: Path, manifest: ReferenceManifest, chosen: Chosen, run: Run, part: str = ""
) -> dict[str, str]:
    """Write what is common in the accepted images into ``folder``; returns the hashes of the files.

    ``part`` is how their names begin.

    Raises
    ------
    OSError
        If one cannot be written.
    LotError
        If tokens are not finite.
    ReferenceFolderError
        If the earlier reference is damaged.
    """
    shapes, files = manifest.shapes(), dict[str, str]()
    counts = np.empty(shapes[part + COUNTS][1], np.int64)
    before = _earlier(chosen, part)

    def moments() -> Iterator[Array]:
        for position, layer in enumerate(manifest.layers):
            found = _moments(chosen, position, run, before)
            common = subspaces(found, SHARE)
            name = part + layer_file(layer)
            files[name] = write_array(folder / name, *shapes[name], [_table(each) for each in common])
            counts[position] = [(each.outside.shape[1], found.count) for each in common]
            yield np.concatenate([found.sums[:, None], found.products], axis=1)

    with one_thread_per_product(run.resources.workers), run.watch.timer.stage("common"):
        name = part + MOMENTS
        files[name] = write_array(folder / name, *shapes[name], moments())
    name = part + COUNTS
    files[name] = write_array(folder / name, *shapes[name], [counts])
    return files


def _moments(chosen: Chosen, position: int, run: Run, before: list[Moments] | None) -> Moments:
    """Return the moments of the patches of all images in a layer, those of an earlier reference first."""
    features, rows = chosen.pool.features, chosen.rows
    whole = before[position] if before else Moments.none(len(run.method.degrees), features.store.shape[3])
    if len(rows):
        inside = None if features.inside is None else features.inside[chosen.pool.start + rows]
        judges = everyone(len(rows))
        store = _Rows(chosen)
        done = position * len(rows)

        def tick(count: int) -> None:
            nonlocal done
            done += count
            run.watch.progress("score", done, len(rows) * store.shape[0], "images")

        timer = run.watch.timer
        work = Layer(run.method, SHARE, store, position, features.plan, judges, tick, timer, inside)
        whole.add(work.whole_moments())
    return whole


def _table(common: Subspace) -> Array:
    """The mean and the directions (C+1,C) of what is common, with zeros behind."""
    width, outside = common.outside.shape
    table = np.zeros((width + 1, width), np.float32)
    table[0], table[1 : outside + 1] = common.mean, common.outside.T
    return table


def _earlier(chosen: Chosen, part: str) -> list[Moments] | None:
    """Return the moments of each layer of the reference that is added to."""
    if chosen.earlier is None:
        return None
    root, m = chosen.earlier.root, chosen.earlier.manifest
    counts, moments = _counts(chosen.earlier, part), read_array(root, m, part + MOMENTS)
    return [
        Moments(int(count[0, 1]), each[:, 0], each[:, 1:])
        for count, each in zip(counts, moments, strict=True)
    ]


def _counts(reference: ReferenceFolder, part: str) -> Array:
    """Read how many directions there are, and of how many patches; ReferenceFolderError if it cannot be."""
    m = reference.manifest
    counts = read_array(reference.root, m, part + COUNTS)
    if not ((counts >= 1).all() and (counts[..., 0] <= m.token_width).all()):
        raise ReferenceFolderError(f"{reference.root / (part + COUNTS)} has counts that cannot be. {AGAIN}")
    return counts


def open_common(reference: ReferenceFolder, resources: Resources = ANYTHING, part: str = "") -> ResidualRow:
    """Read what is common in the images of a reference by residual, or in a part of it, into memory.

    Raises
    ------
    ReferenceFolderError
        If a file is missing, damaged or changed.
    LotError
        If it is larger than the memory budget.
    """
    m = reference.manifest
    require_room(reference, resources, 1)
    common = []
    for layer, counts in zip(m.layers, _counts(reference, part), strict=True):
        tables = read_array(reference.root, m, part + layer_file(layer))
        common.append(
            [_subspace(table, int(outside)) for table, outside in zip(tables, counts[:, 0], strict=True)]
        )
    return ResidualRow(m.method, common, resources.workers)


def _subspace(table: Array, outside: int) -> Subspace:
    return Subspace(np.ascontiguousarray(table[0]), np.ascontiguousarray(table[1 : outside + 1].T))
