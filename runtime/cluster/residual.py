"""Scores by residual on a cluster: tasks do for some blocks of images what one machine does for all.

One layer after the other.  Tasks make the moments of blocks, where the tokens lie; a chain of short tasks
adds them in the order of the blocks, so that sums have the bytes of one machine (scoring/residual.py).  From
machine to machine go the moments of the lot so far.  This process finds what is common, and has the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._numbers import ceil_div
from ..scoring.blas import one_thread_per_product
from ..scoring.judges import Judges, require_finite
from ..scoring.method import Method
from ..scoring.plan import UNLIMITED, HostNeeds, LotSize
from ..scoring.protocols import Groups, KeptCells
from ..scoring.residual import READS, Layer, ResidualScorer, Span, Tick, averaged, lane_bytes
from ..scoring.subspace import Moments, Subspace, subspaces
from ..settings import RESIDUAL
from ..store.features import HostStore
from ..timing import UNTIMED, StageTimer
from ..types import Array, ClusterPlan, FeatureStore, FloatArray, Plan, Progress, no_progress
from .arcs import head_plan
from .engine import WORKER_BYTES, Cluster, Job
from .object_store import Place, arguments_for, taken
from .pairs import settle_down

MOMENTS_BYTES = 64_000_000
"""Bytes of the moments that a task makes, at most, if it has more than one block of images."""
TASKS_EACH = 4
"""How many tasks each processor gets in a layer where a lot is small, about."""


def settle(scorer: ResidualScorer) -> str:
    """Return, on a worker, the software and kind of CPU that the last bits depend on there."""
    settle_down()
    return scorer.version


def time_residual(scorer: ResidualScorer, shape: tuple[int, int, int, int]) -> float:
    """Return, on a worker, the seconds that a lot of ``shape`` (S,N,P,C) takes one processor."""
    return scorer.seconds(shape, scorer.plan(shape, 4, UNLIMITED))


@dataclass(frozen=True)
class Blocks:
    """What a task is told of its images: how they are measured, in which blocks, which patches take part."""

    scorer: ResidualScorer
    plan: Plan
    at: Sequence[Place]
    inside: Array | None

    def spans(self) -> list[Span]:
        """Return the first image of each block, and that behind its last."""
        images, block = len(self.at), self.plan.block
        return [(start, min(start + block, images)) for start in range(0, images, block)]

    def layer(self, objects: Sequence[Array]) -> Layer:
        """Return the work on the images, whose tokens lie in some ``objects``."""
        settle_down()
        tokens = np.stack(taken(self.at, objects))
        store = HostStore(tokens[None], np.empty((len(tokens), 0), np.float32))
        layer: Layer = self.scorer.layer_of(self.plan)(store, 0)
        return replace(layer, inside=self.inside)


def moments(blocks: Blocks, *objects: Array) -> tuple[FloatArray, list[Moments]]:
    """Return, on a worker, the longest token (n,) of each image, and the moments of each block."""
    layer = blocks.layer(objects)
    found, longest = zip(*[layer.moments(span) for span in blocks.spans()], strict=True)
    return np.concatenate(longest), list(found)


def add(before: Moments | None, found: Sequence[Moments]) -> tuple[None, Moments]:
    """Return, on a worker, the moments of the images ``before`` and of the blocks behind them."""
    # What comes from the cluster cannot be written to.
    whole = Moments.none(*found[0].sums.shape)
    if before:
        whole = Moments(before.count, before.sums.copy(), before.products.copy())
    for each in found:
        whole.add(each)
    return None, whole


def residuals(blocks: Blocks, common: Sequence[Subspace], *objects: Array) -> Array:
    """Return, on a worker, the residuals (n,P) of images, averaged over degrees."""
    layer = blocks.layer(objects)
    return np.concatenate([layer.residuals(span, common) for span in blocks.spans()])


@dataclass(frozen=True)
class ClusterResidual:
    """Scores by ``method`` without comparing pairs, on a cluster: a twin of ResidualScorer."""

    method: Method
    cluster: Cluster
    version: str
    notes: list[str] = field(default_factory=list)

    kind = RESIDUAL

    @classmethod
    def of(cls, method: Method, cluster: Cluster) -> ClusterResidual:
        """Make the scorer; workers say what the last bits depend on."""
        # All are asked, so that all have imported what they need when the work comes.
        asked = [cluster.submit(settle, ResidualScorer(method))[0] for _ in range(cluster.cpus)]
        return cls(method, cluster, cluster.get(asked[0]), [f"computed by {cluster}"])

    @property
    def _here(self) -> ResidualScorer:
        return ResidualScorer(self.method)

    def judges(self, images: int) -> Judges:
        """Return that all images score each other; LotError if they are too few."""
        return self.method.judges(images)

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """Make the plan: what this process holds, and what lies with the cluster."""
        size = self.method.lot_size(shape, itemsize)
        one = self._here.plan(shape, itemsize)  # of a lane: its blocks are those of one machine
        return replace(residual_plan(size, needs, self.cluster, one.block), block=one.block)

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> None:
        """Return None: tokens lie with the cluster (object_store.py), or in files here."""

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, from a short measurement by a worker."""
        one = self.cluster.get(self.cluster.submit(time_residual, self._here, shape)[0])
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
        """Return the residuals (N,P) of the images in ``store``, averaged over layers and degrees."""
        judges = self.judges(store.shape[1])

        def scores_of(layer: int, tick: Tick) -> Array:
            work = _LayerOnCluster(self.cluster, self._here, store, layer, plan, judges, tick, inside)
            return work.scores()

        return averaged(store.shape, scores_of, progress, kept)


@dataclass(frozen=True)
class _LayerOnCluster:
    """The work on one layer; ``tick`` is told how many images have been read."""

    cluster: Cluster
    scorer: ResidualScorer
    store: FeatureStore
    layer: int
    plan: Plan
    judges: Judges
    tick: Tick
    inside: Array | None

    def scores(self) -> Array:
        """Return the residuals (N,P), averaged over degrees."""
        common = self.cluster.ray.put(self._common())
        scores = np.empty((self.judges.images, self.store.shape[2]), np.float64)
        for images, found, _ in self.cluster.finished(self._residuals(common)):
            scores[images.start : images.stop] = found
            self.tick(len(images))
        return scores

    def _common(self) -> list[Subspace]:
        """Find what is common in the lot, for each degree; LotError if tokens are not finite."""
        lengths = np.empty(self.judges.images, np.float32)
        whole: list[Any] = [None]
        for images, longest, _ in self.cluster.finished(self._moments(whole)):
            if images:
                lengths[images.start : images.stop] = longest
                self.tick(len(images))
        require_finite(self.layer, self.judges, lengths)
        with one_thread_per_product(1):
            return subspaces(self.cluster.get(whole[0]), self.scorer.share)

    def _moments(self, whole: list[Any]) -> Iterator[Job[range]]:
        """Make the moments of the lot, to which ``whole[0]`` refers in the end."""
        for images, blocks, objects in self._tasks():
            receipt, found = self._submit(moments, blocks, *objects, returns=2)
            yield images, [receipt]
            done, whole[0] = self._submit(add, whole[0], found, returns=2)
            yield range(0), [done]

    def _residuals(self, common: Any) -> Iterator[Job[range]]:
        for images, blocks, objects in self._tasks():
            yield images, self._submit(residuals, blocks, common, *objects)

    def _tasks(self) -> Iterator[tuple[range, Blocks, list[Any]]]:
        """Yield the images of each task, what it is told of them, and where their tokens are."""
        assert self.plan.cluster
        count = self.judges.images
        for start in range(0, count, self.plan.cluster.arc):
            images = range(start, min(start + self.plan.cluster.arc, count))
            at, objects = arguments_for(self.cluster, self.store, self.layer, images)
            inside = None if self.inside is None else self.inside[images.start : images.stop]
            yield images, Blocks(self.scorer, self.plan, at, inside), objects

    def _submit(self, function: Any, *given: Any, returns: int = 1) -> list[Any]:
        assert self.plan.cluster
        return self.cluster.submit(function, *given, returns=returns, memory=self.plan.cluster.worker_bytes)


def residual_plan(size: LotSize, needs: HostNeeds, cluster: Cluster, block: int) -> Plan:
    """Make the plan of a lot whose tasks take whole blocks, as many as keep all processors busy.

    Raises
    ------
    LotError
        If the budget, a machine's memory or that for objects is too small.
    """
    of_block = 8 * size.degree_count * size.width**2
    several = ceil_div(size.images, block * cluster.cpus * TASKS_EACH)
    blocks = max(1, min(MOMENTS_BYTES // of_block, several))
    images = blocks * block
    token = size.patches * size.width * size.itemsize
    worker = WORKER_BYTES + images * token + (blocks + 1) * of_block + lane_bytes(size, block)
    cluster.threads_for(worker)
    cluster.require_store(images * token + (blocks + 2) * of_block)
    waiting = 3 * cluster.cpus + 2
    tasks = ceil_div(size.images, images)
    moved = READS * size.token_bytes + size.layers * tasks * (blocks + 2) * of_block
    on_cluster = ClusterPlan(
        processors=cluster.cpus,
        arc=images,
        cells=0,
        worker_bytes=worker,
        object_bytes=size.token_bytes + min(waiting, tasks) * (blocks + 1) * of_block,
        moved_bytes=cluster.over_network(moved),
        reserved=cluster.reserved,
    )
    # scores of one layer, of all, and what is returned; moments of the lot, and what becomes of them
    here = 20 * size.images * size.patches + 2 * of_block + 4 * 8 * size.width**2
    return head_plan(size, needs, on_cluster, here, cosines=False)
