"""Scores by residual on a cluster: tasks do for some blocks of images what one machine does for all.

One layer after the other.  Tasks make the moments of blocks, where the tokens lie; a chain of short tasks
adds them in the order of the blocks, so that sums have the bytes of one machine (scoring/residual.py).  From
machine to machine go the moments of the lot so far.  This process finds what is common, and has the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..._numbers import ceil_div, runs
from ..scoring.blas import one_thread_per_product
from ..scoring.judges import Judges, require_finite
from ..scoring.method import Method
from ..scoring.plan import UNLIMITED, HostNeeds, LotSize, block_images
from ..scoring.protocols import Groups, KeptCells
from ..scoring.residual import READS, Layer, ResidualScorer, Tick, averaged, lane_bytes
from ..scoring.subspace import Moments, Subspace, subspaces
from ..settings import RESIDUAL
from ..store.features import HostStore
from ..timing import UNTIMED, StageTimer
from ..types import Array, ClusterPlan, FeatureStore, FloatArray, Plan, Progress, no_progress
from .arcs import ARC_BYTES, head_plan, kept_bytes
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


def time_residual(scorer: ResidualScorer, shape: tuple[int, int, int, int]) -> tuple[float, float]:
    """Return, on a worker, the seconds of each image and of what is done once, in each layer."""
    return scorer.rates(shape, scorer.plan(shape, 4))


@dataclass(frozen=True)
class Some:
    """What a task is told of its images: where their tokens are, and which patches take part (n,P)."""

    scorer: ResidualScorer
    at: Sequence[Place]
    inside: Array | None

    def layer(self, objects: Sequence[Array]) -> Layer:
        """Return the work on them, whose tokens lie in some ``objects``."""
        settle_down()
        tokens = np.stack(taken(self.at, objects))
        store = HostStore(tokens[None], np.empty((len(tokens), 0), np.float32))
        layer: Layer = self.scorer.layer_of(self.scorer.plan(store.shape, tokens.itemsize))(store, 0)
        return replace(layer, inside=self.inside)


def moments(some: Some, *objects: Array) -> tuple[FloatArray, list[Moments]]:
    """Return, on a worker, the longest token (n,) of each image, and the moments of each block."""
    layer = some.layer(objects)
    found, longest = zip(*[layer.moments(span) for span in layer.spans()], strict=True)
    return np.concatenate(longest), list(found)


def add(before: Moments | None, found: Sequence[Moments]) -> tuple[None, Moments]:
    """Return, on a worker, the moments of the images ``before`` and of the blocks behind them."""
    whole = Moments.none(*found[0].sums.shape)
    for each in [*([before] if before else []), *found]:
        whole.add(each)
    return None, whole


def residuals(some: Some, common: Sequence[Subspace], *objects: Array) -> Array:
    """Return, on a worker, the residuals (n,P) of images, averaged over degrees."""
    layer = some.layer(objects)
    return np.concatenate([layer.residuals(span, common) for span in layer.spans()])


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
        here = ResidualScorer(method)
        there = cluster.ask_all(settle, here)
        version = there if there == here.version else f"{there}; components by {here.version}"
        return cls(method, cluster, version)

    @property
    def _here(self) -> ResidualScorer:
        return ResidualScorer(self.method)

    def judges(self, images: int) -> Judges:
        """Return that all images score each other; LotError if they are too few."""
        return self.method.judges(images)

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """Make the plan: what this process holds, and what lies with the cluster."""
        return residual_plan(self.method.lot_size(shape, itemsize), needs, self.cluster)

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> None:
        """Return None: tokens lie with the cluster (object_store.py), or in files here."""

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, from a short measurement by a worker."""
        each, once = self.cluster.get(self.cluster.submit(time_residual, self._here, shape)[0])
        return float(shape[0] * (shape[1] * each / self.cluster.cpus + once))

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
            return LayerOnCluster(
                self.cluster, self._here, store, layer, plan, judges=judges, tick=tick, inside=inside
            ).scores()

        return averaged(store.shape, scores_of, progress, kept)


@dataclass(frozen=True)
class LayerOnCluster:
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
        whole = self.whole_moments()
        with one_thread_per_product(1):
            common = self.cluster.ray.put(subspaces(whole, self.scorer.share))
        scores = np.empty((self.judges.images, self.store.shape[2]), np.float64)
        for images, found, _ in self.cluster.finished(self._residuals(common)):
            scores[images.start : images.stop] = found
            self.tick(len(images))
        return scores

    def whole_moments(self) -> Moments:
        """Return the moments of the lot's patches; LotError if tokens are not finite."""
        lengths = np.empty(self.judges.images, np.float32)
        whole: Any = None

        def jobs() -> Iterator[Job[range | None]]:
            nonlocal whole
            for images, some, objects in self._tasks():
                receipt, found = self._submit(moments, some, *objects, returns=2)
                yield images, [receipt]
                done, whole = self._submit(add, whole, found, returns=2)
                yield None, [done]

        for images, longest, _ in self.cluster.finished(jobs()):
            if images is not None:
                lengths[images.start : images.stop] = longest
                self.tick(len(images))
        require_finite(self.layer, self.judges, lengths)
        return cast(Moments, self.cluster.get(whole))

    def _residuals(self, common: Any) -> Iterator[Job[range]]:
        for images, some, objects in self._tasks():
            yield images, self._submit(residuals, some, common, *objects)

    def _tasks(self) -> Iterator[tuple[range, Some, list[Any]]]:
        """Yield the images of each task, what it is told of them, and where their tokens are."""
        assert self.plan.cluster
        for images in runs(range(self.judges.images), self.plan.cluster.arc):
            at, objects = arguments_for(self.cluster, self.store, self.layer, images)
            inside = None if self.inside is None else self.inside[images.start : images.stop]
            yield images, Some(self.scorer, at, inside), objects

    def _submit(self, function: Any, *given: Any, returns: int = 1) -> list[Any]:
        assert self.plan.cluster
        return self.cluster.submit(function, *given, returns=returns, memory=self.plan.cluster.worker_bytes)


def residual_plan(size: LotSize, needs: HostNeeds, cluster: Cluster) -> Plan:
    """Make the plan of a lot whose tasks take whole blocks, as many as keep all processors busy.

    Raises
    ------
    LotError
        If the budget, a machine's memory or that for objects is too small.
    """
    block = block_images(size.patches)
    token = size.patches * size.width * size.itemsize  # of an image, in one layer
    of_block = 8 * size.degree_count * size.width**2  # its moments
    fitting = min(MOMENTS_BYTES // of_block, ARC_BYTES // (block * token))
    several = ceil_div(size.images, block * cluster.cpus * TASKS_EACH)
    blocks = max(1, min(fitting, several))
    images = blocks * block
    worker = WORKER_BYTES + images * token + (blocks + 1) * of_block + lane_bytes(size, block)
    cluster.threads_for(worker)
    cluster.require_store(images * token + (blocks + 2) * of_block)
    tasks = ceil_div(size.images, images)
    moved = READS * size.token_bytes + size.layers * tasks * (blocks + 2) * of_block
    on_cluster = ClusterPlan(
        processors=cluster.cpus,
        arc=images,
        cells=0,
        worker_bytes=worker,
        object_bytes=size.token_bytes + min(cluster.ahead, tasks) * (blocks + 1) * of_block,
        moved_bytes=cluster.over_network(moved + kept_bytes(size, needs)),
        reserved=cluster.reserved,
    )
    return head_plan(size, needs, on_cluster, pairs=False)
