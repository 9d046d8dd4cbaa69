"""MSM on a cluster: cells of two arcs are compared, and rows averaged as soon as all their cells are.

One layer after the other: its tokens are prepared arc by arc, its cells compared, its rows averaged.  What
tasks give each other stays with the cluster; this process has the scores, and with kept work the cosines of
the cells, which it writes as one machine does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..scoring.image_pairs import best_filter
from ..scoring.judges import Judges, by_image, require_finite
from ..scoring.layer_scores import Report
from ..scoring.method import Method
from ..scoring.mutual import CpuScorer
from ..scoring.plan import UNLIMITED, HostNeeds
from ..scoring.protocols import Groups, KeptCells
from ..store.tables import Rows as Table
from ..store.tables import checksum as checksum_of
from ..timing import UNTIMED, StageTimer
from ..types import Array, Cell, FeatureStore, FloatArray, Plan, Progress, no_progress
from .arcs import cluster_plan, cut_circle
from .engine import Cluster, Job
from .object_store import arguments_for
from .pairs import Circle, Piece, Rows, average, compare, prepare

Pieces = dict[Rows, list[tuple[Piece, Any]]]
"""References to pieces, by the places whose cosines they hold."""


@dataclass(frozen=True)
class Settled:
    """The filter that a worker chose, its version, and a note on it."""

    kind: str
    version: str
    note: str


def settle(scorer: str, method: Method) -> Settled:
    """Return, on a worker, what compares images there."""
    name, note = best_filter(scorer)
    return Settled(name, CpuScorer(method, name).version, note)


def time_pairs(method: Method, scorer: str, shape: tuple[int, int, int, int]) -> float:
    """Return, on a worker, the seconds that comparing a lot of ``shape`` (S,N,P,C) takes one processor."""
    compares = CpuScorer(method, scorer)
    return compares.seconds(shape, compares.plan(shape, 4, UNLIMITED))


@dataclass(frozen=True)
class ClusterScorer:
    """Mutual scores by ``method`` on a cluster, whose workers compare by the filter ``kind``."""

    method: Method
    cluster: Cluster
    kind: str
    version: str
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, method: Method, cluster: Cluster, scorer: str) -> ClusterScorer:
        """Make the scorer, for which a worker settles the filter; DeviceError if it does not work there."""
        found = cluster.ask_all(settle, scorer, method)
        notes = [found.note] if found.note else []
        return cls(method, cluster, found.kind, found.version, notes)

    def judges(self, images: int) -> Judges:
        """Choose who judges whom among ``images``, as every scorer does."""
        return self.method.judges(images)

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """Make the plan: what this process holds, and what lies with the cluster."""
        return cluster_plan(self.method.lot_size(shape, itemsize), needs, self.cluster)

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> None:
        """Return None: tokens lie with the cluster (object_store.py), or in files here."""

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, from a short measurement by a worker."""
        one = self.cluster.get(self.cluster.submit(time_pairs, self.method, self.kind, shape)[0])
        return float(one) / self.cluster.cpus

    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = no_progress,
        kept: KeptCells | None = None,
        timer: StageTimer = UNTIMED,
        later: FloatArray | None = None,
        copies: Groups = (),
        inside: Array | None = None,
    ) -> FloatArray:
        """Return the mutual scores (N,P) of the images in ``store``, averaged over layers and degrees."""
        layers, images, patches, _ = store.shape
        judges = self.method.judges(images, copies)
        if kept:
            kept.begin_scoring(copies)
        by_place = None if inside is None else inside[judges.order]
        cut = cut_circle(self.method.lot_size(store.shape, store.dtype.itemsize))
        circle = Circle(self.method, judges, self.kind, cut.arc, cut.rows, by_place)
        items = judges.count * len(self.method.degrees) * patches
        table = kept.open_cosines((images, items)) if kept else None
        report = Report(progress, layers * judges.pairs)
        shared = self.cluster.ray.put(circle)
        memory = plan.cluster.worker_bytes if plan.cluster else 0
        total = np.zeros((self.method.results, images, patches), np.float64)
        # In their order, kept or new, as on one machine, so that sums are the same.
        for layer in range(layers):
            one = LayerOnCluster(self.cluster, circle, shared, store, layer, memory, table, kept, report)
            total += one.finished() if (scores := one.kept_scores()) is None else scores
        report.note_earlier(kept)
        return by_image(total / layers, judges, later)


@dataclass(frozen=True)
class LayerOnCluster:
    """The work on one layer.

    ``shared`` refers to the circle, ``memory`` is what a worker takes in bytes, ``table`` holds the cosines
    of kept work.
    """

    cluster: Cluster
    circle: Circle
    shared: Any
    store: FeatureStore
    layer: int
    memory: int
    table: Table | None
    kept: KeptCells | None
    report: Report

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.circle.method.results, self.circle.judges.images, self.store.shape[2]

    def kept_scores(self) -> Array | None:
        """Return the scores that an earlier run has kept of this layer, or None."""
        scores = self.kept.scores(self.layer, self._shape) if self.kept else None
        if scores is not None:
            self.report.from_earlier(self.circle.judges.pairs)
        return scores

    def finished(self) -> Array:
        """Return what the method measures of each patch (1 or 2,N,P), by place, averaged over degrees."""
        tokens, inverse, hollow = self._prepared()
        empty = self.cluster.ray.put(hollow)
        scores = np.empty(self._shape, np.float64)
        for key, receipt, references in self.cluster.finished(self._jobs(tokens, inverse, empty)):
            if isinstance(key, tuple):
                self._note(key, receipt, references)
            else:
                scores[:, key.start : key.stop] = receipt
        if self.kept:
            self.kept.keep_scores(self.layer, scores)
        return scores

    def _prepared(self) -> tuple[list[Any], list[Any], Array]:
        """Prepare all arcs: references to their tokens and inverse lengths, and ``hollow`` (N,R,1 or P)."""
        circle = self.circle
        tokens, inverse = [None] * circle.arcs, [None] * circle.arcs
        found: list[Any] = [None] * circle.arcs
        for arc, receipt, references in self.cluster.finished(self._prepare()):
            found[arc], (tokens[arc], inverse[arc]) = receipt, references
        finite = np.concatenate([each.finite for each in found])
        require_finite(self.layer, circle.judges, np.where(finite, 0.0, np.nan))
        return tokens, inverse, np.concatenate([each.hollow for each in found])

    def _prepare(self) -> Iterator[Job[int]]:
        for arc in range(self.circle.arcs):
            images = self.circle.judges.order[self.circle.places(arc).start : self.circle.places(arc).stop]
            at, objects = arguments_for(self.cluster, self.store, self.layer, images.tolist())
            yield (
                arc,
                self.cluster.submit(prepare, self.shared, arc, at, *objects, returns=3, memory=self.memory),
            )

    def _jobs(self, tokens: Sequence[Any], inverse: Sequence[Any], empty: Any) -> Iterator[Job[Cell | Rows]]:
        """Compare cell after cell, and average an arc as soon as all of its cells have been submitted."""
        circle = self.circle
        cells = [cell for group in circle.judges.groups(circle.arc, circle.arcs) for cell in group]
        last = {arc: number for number, cell in enumerate(cells) for arc in cell}
        pieces: Pieces = {}
        known = self.kept.cells(self.layer) if self.kept else {}
        for number, cell in enumerate(cells):
            i, j = cell
            if earlier := self._kept_pieces(cell, known.get(cell)):
                for piece, found in earlier.items():
                    pieces.setdefault(piece.rows, []).append((piece, self.cluster.ray.put(found)))
            else:
                job = self.cluster.submit(
                    compare, self.shared, cell, tokens[i], inverse[i], tokens[j], inverse[j],
                    returns=1 + len(circle.pieces(cell)), memory=self.memory,
                )  # fmt: skip
                for piece, reference in zip(circle.pieces(cell), job[1:], strict=True):
                    pieces.setdefault(piece.rows, []).append((piece, reference))
                yield cell, job
                del job
            for arc in {i, j}:
                if last[arc] == number:
                    yield from self._average(arc, pieces, inverse[arc], empty)

    def _average(self, arc: int, pieces: Pieces, inverse: Any, empty: Any) -> Iterator[Job[Rows]]:
        """Average the rows of an arc, of which all pieces are known; forgets them."""
        for rows in self.circle.rows_of(arc):
            named, found = zip(*pieces.pop(rows), strict=True)
            yield (
                rows,
                self.cluster.submit(
                    average, self.shared, rows, named, empty, inverse, *found, memory=self.memory
                ),
            )

    def _note(self, cell: Cell, pairs: int, references: Sequence[Any]) -> None:
        """Count the pairs of a cell that was compared, and keep their cosines."""
        if self.kept and self.table:
            found = dict(zip(self.circle.pieces(cell), self.cluster.get(list(references)), strict=True))
            items = len(self.circle.method.degrees) * self.store.shape[2]
            for piece, cosines in found.items():
                for (place, index), values in zip(self.circle.entries(piece), cosines, strict=True):
                    self.table.write(place, index * items, values)
            self.kept.keep_cell(self.layer, cell, _checksum(found.values()))
        self.report(pairs)

    def _kept_pieces(self, cell: Cell, checksum: int | None) -> dict[Piece, FloatArray]:
        """Read the pieces of a cell that an earlier run has kept; none if they are not as it wrote them."""
        if checksum is None:
            return {}
        assert self.table
        shape = len(self.circle.method.degrees), self.store.shape[2]
        items = shape[0] * shape[1]
        found = {}
        for piece in self.circle.pieces(cell):
            read = [
                self.table.read(place, index * items, items) for place, index in self.circle.entries(piece)
            ]
            found[piece] = np.array(read, np.float32).reshape(-1, *shape)
        if _checksum(found.values()) != checksum:
            return {}
        self.report.from_earlier(sum(1 for _ in self.circle.pairs(cell)))
        return found


def _checksum(pieces: Any) -> int:
    value = 0
    for piece in pieces:
        value = checksum_of(piece, value)
    return value
