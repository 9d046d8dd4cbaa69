"""Scores without pairs: how far each patch lies outside of what is common in its lot, on the CPU.

A patch is described as for mutual scoring (LNAMD; aggregate.py).  For each layer and degree the leading
principal components of all patches of the lot are found, as few as make up ``SHARE`` of the variance; a
patch's score is the length of what lies outside of them (subspace.py), averaged over layers and degrees: a
length in the unit of mutual scores, from 0 to 2.  The idea is SubspaceAD's (arXiv 2602.23013), which takes
tokens averaged over layers, 0.99 of the variance of a few good images (or, in batches, of the test images
themselves) and the squared length.

The tokens of a layer are read twice.  Cost per layer and degree: N*P*C*C FLOP for the covariance and
2*N*P*C*(C-k) for the residuals; the memory beside tokens and scores does not grow with N.  The sums are in
float64, over blocks of images that P alone decides, and are added in the order of the blocks: neither threads
nor memory change a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info

from ..._numbers import ceil_div, counted
from ..parallel import in_order
from ..settings import RESIDUAL
from ..store.again import AgainStore
from ..store.features import HostStore
from ..timing import UNTIMED, StageTimer
from ..types import Array, FeatureStore, FloatArray, Plan, Progress, no_progress
from .aggregate import centre, rescale
from .blas import one_thread_per_product
from .copies import looked_at
from .judges import Judges, everyone, require_finite
from .method import Method
from .plan import UNLIMITED, HostNeeds, LotSize, block_images, first_within
from .protocols import Groups, KeptCells, Tokens
from .residual_again import LayerOf, Seen, score_again
from .subspace import Moments, Subspace, describe, subspaces

SHARE = 0.95
"""Share of the variance that the leading components make up, at least."""

READS = 2
"""How often the tokens of a layer are read."""

Result = TypeVar("Result")
Span = tuple[int, int]
Tick = Callable[[int], None]


@dataclass(frozen=True)
class ResidualScorer:
    """Scores by ``method`` without comparing pairs: a twin of CpuScorer (mutual.py).

    The leading components make up ``share`` of the variance.
    """

    method: Method
    share: float = SHARE
    notes: list[str] = field(default_factory=list)

    kind = RESIDUAL

    @property
    def version(self) -> str:
        """The share of the variance, and the software and kind of CPU that the last bits depend on."""
        blas = {
            f"{found['internal_api']} {found['version']} {found.get('architecture', '')}".strip()
            for found in threadpool_info()
            if found["user_api"] == "blas"
        }
        return ", ".join((f"residual {self.share:g}", f"numpy {np.__version__}", *sorted(blas)))

    def judges(self, images: int) -> Judges:
        """Return that all images score each other; LotError if they are too few."""
        return self.method.judges(images)

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """Make the memory plan: tokens in memory if they fit, else in a file."""
        size = self.method.lot_size(shape, itemsize)
        plans = [_plan(size, needs, tokens_on_disk=on_disk) for on_disk in (False, True)]
        return first_within(plans, size, needs)

    def plan_twice(
        self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds, batch: int
    ) -> Plan:
        """Make the plan that keeps no tokens: the ViT describes all images, ``batch`` at a time, twice."""
        size = self.method.lot_size(shape, itemsize)
        plan = _plan(size, needs, tokens_on_disk=True)
        image = size.patches * size.width
        # All layers at once, beside the ViT: their sums, those of the next block, and its images.
        sums = 8 * size.width**2 * size.degree_count * 2 * size.layers
        images = size.layers * image * (plan.block * 8 * size.degree_count + (plan.block + batch) * itemsize)
        workspace = plan.workspace_bytes + sums + images
        kept = size.images * len(looked_at(size.patches)) * size.width * itemsize
        whole = replace(
            plan,
            twice=True,
            token_bytes=kept,
            workspace_bytes=workspace,
            vit_bytes=needs.vit_bytes + workspace,
        )
        return first_within([whole], size, needs)

    def seen(self, shape: tuple[int, int, int, int], plan: Plan) -> Seen:
        """Return who sums up what is common while the ViT runs, for a plan by which it runs twice."""
        return Seen(self.layer_of(plan), plan, shape[0], len(self.method.degrees), shape[3])

    def layer_of(self, plan: Plan) -> LayerOf:
        """Return what makes the work on a layer of some images, which are all there are for it."""

        def layer_of(store: HostStore, layer: int) -> Layer:
            judges = everyone(store.shape[1])
            return self._layer(store, layer, plan, judges, lambda reads: None, UNTIMED)

        return layer_of

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> None:
        """Return None: the CPU has no memory but the host's."""

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
        """Return the residuals (N,P) of the images in ``store``, averaged over layers and degrees.

        There are no judges: ``copies`` change nothing, and no interval begins ``later``.
        """
        judges = self.judges(store.shape[1])
        if isinstance(store, AgainStore):
            return score_again(store, self.layer_of(plan), judges, self.share, plan)

        def scores_of(layer: int, tick: Tick) -> Array:
            work = self._layer(store, layer, plan, judges, tick, timer)
            return replace(work, inside=inside).scores()

        with one_thread_per_product(plan.threads):
            return averaged(store.shape, scores_of, progress, kept)

    def _layer(
        self, store: Tokens, layer: int, plan: Plan, judges: Judges, tick: Tick, timer: StageTimer
    ) -> Layer:
        return Layer(self.method, self.share, store, layer, plan, judges, tick, timer)

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, by timing each step once."""
        each, once = self.rates(shape, plan)
        return shape[0] * (shape[1] * each / plan.threads + once)

    def rates(self, shape: tuple[int, int, int, int], plan: Plan) -> tuple[float, float]:
        """Measure the seconds that each image takes a thread, and what is done once, in each layer."""
        _, images, patches, width = shape
        some = min(2, images)
        generator = np.random.default_rng(0)
        tokens = generator.standard_normal((1, some, patches, width), np.float32)
        store = HostStore(tokens, np.empty((some, 0), np.float32))
        layer = self._layer(store, 0, plan, self.judges(images), lambda reads: None, UNTIMED)
        rest = generator.standard_normal((width, ceil_div(width, 2)), np.float32)
        found = [Subspace(rest[:, 0], rest) for _ in self.method.degrees]

        def measure(_: int) -> float:
            start = time.perf_counter()
            layer.moments((0, some))
            layer.residuals((0, some), found)
            return time.perf_counter() - start

        # Measured on all threads at once, since they share caches and memory while they score.
        with one_thread_per_product(plan.threads), ThreadPoolExecutor(plan.threads) as pool:
            moments, _ = layer.moments((0, some))
            start = time.perf_counter()
            subspaces(moments, self.share)
            once = time.perf_counter() - start
            each = float(np.mean(list(pool.map(measure, range(plan.threads))))) / some
        return each, once


def averaged(
    shape: tuple[int, int, int, int],
    scores_of: Callable[[int, Tick], Array],
    progress: Progress,
    kept: KeptCells | None,
) -> FloatArray:
    """Average the scores (N,P) of all layers of a lot of ``shape`` (S,N,P,C), kept or new.

    ``scores_of`` makes those of one, and tells how many images it has read.
    """
    layers, images, patches, _ = shape
    if kept:
        kept.begin_scoring()
    done = earlier = 0

    def tick(reads: int) -> None:
        nonlocal done
        done += reads
        progress("score", done, READS * layers * images, "reads")

    total = np.zeros((images, patches), np.float64)
    # Layers are added in their order, kept or new, so that a resumed run gives the same sum.
    for layer in range(layers):
        scores = kept.scores(layer, total.shape) if kept else None
        if scores is None:
            scores = scores_of(layer, tick)
            if kept:
                kept.keep_scores(layer, scores)
        else:
            earlier += 1
            tick(READS * images)
        total += scores
    if kept and earlier:
        kept.notes.append(f"scores of {counted(earlier, 'layer')} come from an earlier, interrupted run")
    return (total / layers).astype(np.float32)


@dataclass(frozen=True)
class Layer:
    """The work on one layer; ``tick`` is told how many images have been read.

    Only the patches ``inside`` (N,P) say what is common; None for all.
    """

    method: Method
    share: float
    store: Tokens
    layer: int
    plan: Plan
    judges: Judges
    tick: Tick
    timer: StageTimer
    inside: Array | None = None

    def scores(self) -> Array:
        """Return the residuals (N,P), averaged over degrees, in float64.

        Raises LotError, with the numbers of the images, if tokens are not finite.
        """
        found = self._common()
        scores = np.empty((self.judges.images, self.store.shape[2]), np.float64)

        @self.timer.work("residual")
        def measure(span: Span) -> Array:
            return self.residuals(span, found)

        for (start, stop), values in self._in_parallel(measure):
            scores[start:stop] = values
            self.tick(stop - start)
        return scores

    def _common(self) -> list[Subspace]:
        """Read all tokens and find what is common in the lot, for each degree."""
        whole = self.whole_moments()
        with self.timer.work("components"):
            return subspaces(whole, self.share)

    def whole_moments(self) -> Moments:
        """Read all tokens; returns the moments of the lot's patches.

        Raises LotError, with the numbers of the images, if tokens are not finite.
        """
        whole = Moments.none(len(self.method.degrees), self.store.shape[3])
        lengths = np.empty(self.judges.images, np.float32)

        @self.timer.work("covariance")
        def measure(span: Span) -> tuple[Moments, FloatArray]:
            return self.moments(span)

        # Added here, on the thread that consumes the results: in the order of the blocks.
        for (start, stop), (moments, longest) in self._in_parallel(measure):
            whole.add(moments)
            lengths[start:stop] = longest
            self.tick(stop - start)
        require_finite(self.layer, self.judges, lengths)
        return whole

    def moments(self, span: Span) -> tuple[Moments, FloatArray]:
        """Read a block of images; returns the moments of its patches, and each image's longest token (n,)."""
        images, patches, width = span[1] - span[0], *self.store.shape[2:]
        inside = None if self.inside is None else self.inside[slice(*span)]
        count = images * patches if inside is None else np.count_nonzero(inside)
        described = np.empty((len(self.method.degrees), count, width), np.float64)
        longest, stop = np.empty(images, np.float32), 0
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is named by its length
            for row, (vectors, lengths) in enumerate(self._described(span)):
                used = vectors if inside is None else [each[inside[row]] for each in vectors]
                start, stop = stop, stop + len(used[0])
                described[:, start:stop] = used
                longest[row] = lengths.max()
            return Moments.of(described), longest

    def residuals(self, span: Span, found: Sequence[Subspace]) -> Array:
        """Read a block of images; returns their residuals (n,P), averaged over degrees, in float64."""
        # Image by image, so that the shapes of the products depend on P alone.
        rows = [
            np.mean(
                [common.residuals(each) for common, each in zip(found, vectors, strict=True)],
                axis=0,
                dtype=np.float64,
            )
            for vectors, _ in self._described(span)
        ]
        return np.stack(rows)

    def _described(self, span: Span) -> Iterator[tuple[list[FloatArray], FloatArray]]:
        """Yield for each image of a block its described patches, and their lengths."""
        for tokens in self.store.block(self.layer, *span):
            centred = rescale(centre(tokens[None])[0])
            yield describe(centred, self.method.grid, self.method.degrees)

    def _in_parallel(self, work: Callable[[Span], Result]) -> Iterator[tuple[Span, Result]]:
        """Yield each block of images with ``work``, in order, with as many threads as the plan says."""
        return in_order(self.spans(), work, self.plan.threads, ahead=self.plan.threads, name="score")

    def spans(self) -> list[Span]:
        """Return the blocks of images in which tokens are read."""
        images, block = self.judges.images, self.plan.block
        return [(start, min(start + block, images)) for start in range(0, images, block)]


def _plan(size: LotSize, needs: HostNeeds, *, tokens_on_disk: bool) -> Plan:
    block, products = block_images(size.patches), size.width**2
    return Plan(
        budget=needs.budget,
        threads=needs.threads,
        block=block,
        blocks_in_memory=1,
        tokens_on_disk=tokens_on_disk or needs.keep,
        cosines_on_disk=False,
        token_bytes=size.token_bytes,
        cosine_bytes=0,
        # scores of one layer, of all, and what is returned
        workspace_bytes=20 * size.images * size.patches
        # products of the whole lot, of the blocks that wait to be added, and what becomes of them
        + 8 * products * (size.degree_count * (needs.threads + 3) + 4)
        + needs.threads * lane_bytes(size, block),
        program_bytes=needs.program_bytes,
        vit_bytes=needs.vit_bytes,
        decoding_bytes=needs.decoding_bytes,
        writing_bytes=needs.writing_bytes,
    )


def lane_bytes(size: LotSize, block: int) -> int:
    """Bytes of a thread that reads blocks of so many images, beside their moments."""
    # tokens as they are read, described in float64, and the copies of one image at a time
    degrees = size.degree_count
    return size.patches * size.width * (block * (size.itemsize + 8 * degrees) + 4 * (4 + degrees))
