"""MSM, mutual scoring (paper, section 3.3, equations 3-5), on the CPU.

For a patch m of image i:  d(m; j) = min over the patches n of image j of |f_m - f_n|,  j a judge of i;
its mutual score is the mean of the sorted d(m; j) from index int(lo*K) to int(hi*K).  The K judges of an
image are all N-1 others (the paper), or a few of them (judges.py).

The features are unit vectors, so the nearest patch is the one with the largest cosine.  For each pair of
images and each layer one matrix product X_i @ X_j.T of their tokens is made.  It serves both images: the
row maxima are i's, the column maxima j's.  And it serves all degrees: pooling is linear, so the product is
pooled instead of the tokens (gram_numpy.py, gram_numba.py).  The authors' form makes 2 R such products.

Each pair is compared by itself on one thread, so neither threads nor memory change a result.
Cost per layer: N*K/2 products of 2*P*P*C FLOP, N*K*R*P*4 bytes of cosines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import LotError
from ..parallel import cores
from ..settings import AUTO, PAPER
from ..store.features import HostStore
from ..store.tables import FileRows, MemoryRows, Rows
from ..timing import UNTIMED, StageTimer
from ..types import Array, FeatureStore, FloatArray, Plan, Progress, no_progress
from .aggregate import centre, rescale
from .blas import one_thread_per_product
from .image_pairs import Comparer, best_filter, load_filter
from .judges import Judges, by_image, choose
from .layer_scores import Layer, Report
from .method import Method
from .plan import UNLIMITED, HostNeeds, make_plan
from .protocols import GramFilter, Groups, KeptCells

_LONGEST = 0.1  # seconds of a measurement


def mutual_scores(
    tokens: Array,
    grid: tuple[int, int],
    degrees: Sequence[int] = PAPER.degrees,
    interval: tuple[float, float] = PAPER.interval,
    threads: int | None = None,
) -> FloatArray:
    """Mutual score of every patch of a lot: LNAMD and MSM (paper, sections 3.2 and 3.3), on the CPU.

    Parameters
    ----------
    tokens : ndarray of shape (S, N, P, C)
        Patch tokens of N images in S layers: raw, mean-subtracted or layer-normalised, in row-major order of
        the grid.
    grid : (Gh, Gw)
        Rows and columns of patches, with Gh * Gw = P.
    degrees : sequence of int, default (1, 3, 5)
        Odd sides r of the neighborhoods over which tokens are averaged.
    interval : (lo, hi), default (0.0, 0.3)
        The part of the sorted distances to the other images that is averaged.
    threads : int, optional
        Threads that compare images; all cores by default.

    Returns
    -------
    ndarray of shape (N, P), float32
        Distances between unit vectors, from 0 to 2, averaged over layers and degrees.

    Raises
    ------
    LotError
        If the lot is too small for the interval, tokens are not finite, or a setting or shape is not usable.
    """
    tokens = np.asarray(tokens)
    sizes = (*tokens.shape[:1], *tokens.shape[2:], *grid)  # the number of images is judged by the interval
    if tokens.ndim != 4 or min(sizes) < 1 or grid[0] * grid[1] != tokens.shape[2]:
        raise LotError(
            f"tokens have shape {tokens.shape}, expected (S, N, P, C) with P = {grid[0]} x {grid[1]}."
        )
    _require_finite(tokens)
    scorer = CpuScorer(Method((int(grid[0]), int(grid[1])), tuple(degrees), interval))
    store = HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
    needs = HostNeeds(threads=threads or cores())
    return scorer.score(store, scorer.plan(store.shape, tokens.dtype.itemsize, needs))


@dataclass(frozen=True)
class CpuScorer:
    """Mutual scores by ``method`` on the CPU.

    ``kind`` is the filter, "numpy", "numba" or "auto"; ``scratch`` is the folder for scratch files; ``notes``
    says why another scorer was passed over.
    """

    method: Method
    kind: str = AUTO
    scratch: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def version(self) -> str:
        """The software that the last bits of the scores depend on."""
        return self._filter().version

    def judges(self, images: int) -> Judges:
        """Choose who judges whom among ``images``, as every scorer does."""
        return self.method.judges(images)

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = UNLIMITED) -> Plan:
        """Make the memory plan (plan.py)."""
        # NumpyFilter's; NumbaFilter needs less.  With a window, a quarter of a square more, for all threads.
        scratch_bytes = (2 + (self.method.near is not None)) * shape[2] ** 2 * 4
        return make_plan(self.method.lot_size(shape, itemsize), needs, scratch_bytes)

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
        """Return the mutual scores (N,P) of the images in ``store``, averaged over layers and degrees."""
        layers, images, patches, _ = store.shape
        judges = self.method.judges(images, copies)
        if kept:
            kept.begin_scoring(copies)
        cosines = self._table_of_cosines(
            (images, judges.count * len(self.method.degrees) * patches), plan, kept
        )
        report = Report(progress, layers * judges.pairs)
        gram_filter = self._filter()
        by_place = None if inside is None else inside[judges.order]
        work = [
            Layer(self.method, gram_filter, store, i, plan, judges, cosines, kept, report, timer, by_place)
            for i in range(layers)
        ]
        total = np.zeros((self.method.results, images, patches), np.float64)
        with one_thread_per_product(plan.threads):
            # Lengths of all layers first: they show whether tokens are finite, before hours of comparing.
            finished = [layer.finished() for layer in work]
            left = [layer for layer, scores in zip(work, finished, strict=True) if scores is None]
            lengths = _all_lengths(left, progress)
            report.from_earlier(
                (layers - len(left)) * judges.pairs + sum(layer.kept_pairs() for layer in left)
            )
            for layer, scores in zip(work, finished, strict=True):
                total += layer.scores(lengths.pop(layer.layer)) if scores is None else scores
        report.note_earlier(kept)
        # Layers are added in their order, kept or new, so that a resumed run gives the same sum.
        return by_image(total / layers, judges, later)

    def _table_of_cosines(self, shape: tuple[int, int], plan: Plan, kept: KeptCells | None) -> Rows:
        """Make the table of one layer's largest cosines: in kept work, in memory, or in a scratch file."""
        if kept:
            return kept.open_cosines(shape)
        if plan.cosines_on_disk:
            return FileRows(shape, np.float32, self.scratch)
        return MemoryRows(shape, np.float32)

    def _filter(self) -> type[GramFilter]:
        return load_filter(best_filter(self.kind)[0])

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, by timing a few pairs and a few loads of tokens."""
        layers, images, patches, width = shape
        judges, degree_count = choose(images, self.method.group_size), len(self.method.degrees)
        kind = self._filter()
        lengths = np.ones((degree_count, patches), np.float32)

        # As long as is worth it for a lot of this size, which at 100 GFLOP/s is a hundredth of its time.
        patience = min(_LONGEST, 1e-13 * layers * judges.pairs * 2.0 * patches**2 * width)

        def measure(seed: int) -> tuple[float, float]:
            pair: FloatArray = np.random.default_rng(seed).standard_normal((2, patches, width), np.float32)
            comparer = Comparer(
                kind(self.method.grid, self.method.degrees, self.method.near), patches, degree_count
            )
            return (
                _seconds_of(lambda: comparer.compare(pair[0], pair[1], lengths, lengths), patience),
                _seconds_of(lambda: rescale(centre(pair[:1])[0]), patience),
            )

        # Measured on all threads at once, since they share caches and memory while they score.
        with one_thread_per_product(plan.threads), ThreadPoolExecutor(plan.threads) as pool:
            comparing, loading = np.mean(list(pool.map(measure, range(plan.threads))), axis=0)
        loads = images + judges.loads(plan.block, plan.blocks_in_memory) * plan.block
        return float(layers * (judges.pairs * comparing + loads * loading) / plan.threads)


def _all_lengths(layers: Sequence[Layer], progress: Progress) -> dict[int, FloatArray]:
    """Return the inverse lengths (N,R,P) of each layer; LotError if tokens are not finite."""
    done, total = count(1), sum(layer.judges.images for layer in layers)

    def tick() -> None:
        progress("describe", next(done), total, "images")

    return {layer.layer: layer.inverse_lengths(tick) for layer in layers}


def _require_finite(tokens: Array) -> None:
    """Raise LotError with the numbers of the images whose tokens (S,N,P,C) are not all finite."""
    broken = [i for i in range(tokens.shape[1]) if not np.isfinite(tokens[:, i]).all()]
    if broken:
        raise LotError(
            f"the tokens hold values that are not finite, in images {', '.join(map(str, broken))} "
            "(counted from 0)."
        )


def _seconds_of(work: Callable[[], object], patience: float) -> float:
    """Return the mean seconds of ``work``, over as many runs as fit into ``patience`` seconds."""
    work()
    start, runs = time.perf_counter(), 0
    while runs < 1 or time.perf_counter() - start < patience:
        work()
        runs += 1
    return (time.perf_counter() - start) / runs
