"""MSM, mutual scoring (paper, section 3.3, equations 3-5), on the CPU.

For a patch m of image i:  d(m; j) = min over the patches n of image j of |f_m - f_n|,  j a judge of i;
its mutual score is the mean of the sorted d(m; j) from index int(lo*K) to int(hi*K).  The K judges of an
image are all N-1 others (the paper), or a few of them (judges.py).

The features are unit vectors, so the nearest patch is the one with the largest cosine.  For each pair of
images and each layer one matrix product X_i @ X_j.T of their tokens is made.  It serves both images: the
row maxima are i's, the column maxima j's.  And it serves all degrees: pooling is linear, so the product is
pooled instead of the tokens (gram_numpy.py, gram_numba.py).  The authors' form makes 2 R such products.

Each pair is compared by one thread for itself, so neither threads nor memory change a result.
Cost per layer: N*K/2 products of 2*P*P*C FLOP, N*K*R*P*4 bytes of cosines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

import numpy as np

from .aggregate import centre, check_degrees, pooled_lengths, rescale
from .blas import one_thread_per_product
from .errors import DeviceError, LotError
from .gram_numpy import NumpyFilter
from .interval import interval_bounds, interval_mean, smallest_lot
from .judges import Cell, Judges, choose
from .parallel import in_order
from .plan import LotSize, make_plan
from .rows import FileRows, MemoryRows, Rows
from .rows import checksum as checksum_of
from .store import HostStore
from .types import Array, FeatureStore, FloatArray, Plan, Progress, no_progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class GramFilter(Protocol):
    """Pools and reduces one Gram; each thread has its own.  Twins: NumpyFilter, NumbaFilter."""

    name: str
    version: str

    def __init__(self, grid: tuple[int, int], degrees: Sequence[int]) -> None: ...

    def maxima(
        self, gram: FloatArray, own: FloatArray, others: FloatArray, rows: FloatArray, columns: FloatArray
    ) -> None:
        """Write the largest cosines of rows and columns (R,P) of ``gram`` (P,P); see NumpyFilter."""
        ...


class KeptCells(Protocol):
    """What an earlier run of the same work has left, and where this one leaves its own (checkpoint.py)."""

    notes: list[str]

    def scores(self, layer: int) -> Array | None:
        """Mutual scores (N,P) of a finished layer, by place."""
        ...

    def keep_scores(self, layer: int, scores: Array) -> None:
        """Keep the mutual scores of a layer; its cells are of no more use."""
        ...

    def open_minima(self, shape: tuple[int, int]) -> FileRows:
        """The file of cosines."""
        ...

    def cells(self, layer: int) -> dict[Cell, int]:
        """Finished cells of a layer, each with the checksum of its cosines."""
        ...

    def keep_cell(self, layer: int, cell: Cell, checksum: int) -> None:
        """Note a cell whose cosines have been written."""
        ...


def mutual_scores(
    tokens: Array,
    grid: tuple[int, int],
    degrees: Sequence[int] = (1, 3, 5),
    interval: tuple[float, float] = (0.0, 0.3),
) -> FloatArray:
    """Mutual score of every patch of a lot.

    Parameters
    ----------
    tokens : ndarray of shape (S, N, P, C)
        Patch tokens of S layers, raw, mean-subtracted or layer-normalised.
    grid : (Gh, Gw)
        With Gh * Gw = P.
    degrees : odd sides r of the aggregation neighborhoods.
    interval : (lo, hi), the part of the sorted distances that is averaged.

    Returns
    -------
    ndarray of shape (N, P), float32, averaged over layers and degrees.

    Raises
    ------
    LotError
        If the lot is too small for the interval, or a setting or shape is not usable.
    """
    tokens = np.asarray(tokens)
    sizes = (*tokens.shape[:1], *tokens.shape[2:], *grid)  # the number of images is judged by the interval
    if tokens.ndim != 4 or min(sizes) < 1 or grid[0] * grid[1] != tokens.shape[2]:
        raise LotError(
            f"tokens have shape {tokens.shape}, expected (S, N, P, C) with P = {grid[0]} x {grid[1]}."
        )
    scorer = CpuScorer(grid, tuple(degrees), interval)
    store = HostStore(tokens, np.empty((tokens.shape[1], 0), np.float32))
    return scorer.score(store, scorer.plan(store.shape, tokens.dtype.itemsize, None))


def load_filter(name: str) -> type[GramFilter]:
    """The filter called "numpy" or "numba"; "auto" is numba where it can be imported.

    Raises
    ------
    DeviceError
        If numba is asked for and cannot be imported.
    """
    if name == "numpy":
        return NumpyFilter
    try:
        from .gram_numba import NumbaFilter, compile_now
    except ImportError as error:
        if name == "auto":
            return NumpyFilter
        raise DeviceError(
            f"the scorer numba was asked for and cannot be imported ({error}). "
            "Install it with: pip install 'musc-edge[fast]', or use --scorer numpy."
        ) from error
    compile_now()
    return NumbaFilter


@dataclass(frozen=True)
class CpuScorer:
    """Mutual scores on the CPU.

    ``group`` is the number of judges of an image, None for all others; ``kind`` is the filter, "numpy",
    "numba" or "auto"; ``scratch`` is the folder for what the plan puts on disk.
    """

    grid: tuple[int, int]
    degrees: tuple[int, ...] = (1, 3, 5)
    interval: tuple[float, float] = (0.0, 0.3)
    group: int | None = None
    kind: str = "auto"
    scratch: Path | None = None

    def __post_init__(self) -> None:
        check_degrees(self.degrees)
        least = smallest_lot(self.interval) - 1
        if self.group is not None and self.group < least:
            raise LotError(
                f"a group size of {self.group} is too small: the interval {self.interval} needs at least "
                f"{least} other images to score an image by."
            )

    def plan(
        self,
        shape: tuple[int, int, int, int],
        itemsize: int,
        budget: int | None,
        *,
        threads: int = 1,
        fixed_bytes: int = 0,
        keep: bool = False,
    ) -> Plan:
        """The memory plan for tokens of ``shape`` (S,N,P,C); see ``plan.make_plan``."""
        layers, images, patches, width = shape
        judges = choose(images, self.group).count
        return make_plan(
            LotSize(layers, images, patches, width, itemsize, len(self.degrees), judges),
            budget,
            threads=threads,
            scratch_bytes=2 * patches**2 * 4,  # NumpyFilter's; NumbaFilter needs less
            fixed_bytes=fixed_bytes,
            keep=keep,
        )

    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = no_progress,
        kept: KeptCells | None = None,
    ) -> FloatArray:
        """Mutual scores (N,P) of the images in ``store``, averaged over layers and degrees.

        Raises
        ------
        LotError
            If the lot is too small for the interval, or tokens are not finite.
        """
        layers, images, patches, _ = store.shape
        judges = choose(images, self.group)
        interval_bounds(judges.count + 1, self.interval)
        shape = images, judges.count * len(self.degrees) * patches
        if kept:
            minima: Rows = kept.open_minima(shape)
        else:
            in_memory = not plan.minima_on_disk
            minima = MemoryRows(shape, np.float32) if in_memory else FileRows(shape, np.float32, self.scratch)
        report = _Report(progress, layers * judges.pairs)
        work = [_Layer(self, store, i, plan, judges, minima, kept, report) for i in range(layers)]
        kept_pairs = sum(layer.kept_pairs() for layer in work)
        if kept and kept_pairs:
            kept.notes.append(f"{kept_pairs:,} comparisons of images are of an earlier, interrupted run")
        report(kept_pairs)
        total = np.zeros((images, patches), np.float64)
        with one_thread_per_product(plan.threads):
            for layer in work:
                total += layer.scores()
        scores = np.empty((images, patches), np.float32)
        scores[judges.order] = total / layers
        return scores

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Time that ``score`` will take here, from a measurement of a few pairs and a few loads of tokens."""
        layers, images, patches, width = shape
        judges, degrees = choose(images, self.group), len(self.degrees)
        kind = load_filter(self.kind)
        lengths = np.ones((degrees, patches), np.float32)

        def measure(seed: int) -> tuple[float, float]:
            pair: FloatArray = np.random.default_rng(seed).standard_normal((2, patches, width), np.float32)
            comparer = _Comparer(kind(self.grid, self.degrees), patches, degrees)
            return (
                _seconds_of(lambda: comparer.compare(pair[0], pair[1], lengths, lengths)),
                _seconds_of(lambda: rescale(centre(pair[:1])[0])),
            )

        with one_thread_per_product(plan.threads), ThreadPoolExecutor(plan.threads) as pool:
            comparing, loading = np.mean(list(pool.map(measure, range(plan.threads))), axis=0)
        loads = images + judges.loads(plan.block, plan.resident) * plan.block
        return float(layers * (judges.pairs * comparing + loads * loading) / plan.threads)


def _seconds_of(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes, the mean of as many runs as fit into a tenth of a second."""
    work()
    start, count = time.perf_counter(), 0
    while count < 1 or time.perf_counter() - start < 0.1:
        work()
        count += 1
    return (time.perf_counter() - start) / count


class _Report:
    """Counts compared pairs."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, pairs: int) -> None:
        self._done += pairs
        self._progress("score", self._done, self._total, "pairs")


class _Comparer:
    """Compares one pair of images after the other; each thread has its own."""

    def __init__(self, gram_filter: GramFilter, patches: int, degrees: int) -> None:
        self._filter = gram_filter
        self._gram = np.empty((patches, patches), np.float32)
        self._rows, self._columns = np.empty((2, degrees, patches), np.float32)

    def compare(
        self, a: FloatArray, b: FloatArray, inverse_a: FloatArray, inverse_b: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Largest cosines (R,P) of the patches of a in b and of b in a; valid until the next call.

        ``a`` and ``b`` (P,C) are tokens, ``inverse_a`` and ``inverse_b`` (R,P) their inverse lengths.
        """
        np.matmul(a, b.T, out=self._gram)
        self._filter.maxima(self._gram, inverse_a, inverse_b, self._rows, self._columns)
        return self._rows, self._columns


@dataclass(frozen=True)
class _Layer:
    """The work on one layer.  Images are named by their places among the judges (judges.py)."""

    scorer: CpuScorer
    store: FeatureStore
    layer: int
    plan: Plan
    judges: Judges
    minima: Rows
    kept: KeptCells | None
    report: _Report

    def kept_pairs(self) -> int:
        """Pairs that need not be compared again, if what was kept of them is whole."""
        if not self.kept:
            return 0
        if self.kept.scores(self.layer) is not None:
            return self.judges.pairs
        return sum(map(self._count, self.kept.cells(self.layer)))

    def scores(self) -> Array:
        """Mutual scores (N,P) by place, averaged over degrees."""
        finished = self.kept.scores(self.layer) if self.kept else None
        if finished is not None:
            return finished
        inverse = self._inverse_lengths()
        self._compare(inverse, done=self._verified_cells())
        scores = self._select(inverse)
        if self.kept:
            self.kept.keep_scores(self.layer, scores)
        return scores

    def read_tokens(self, place: int) -> FloatArray:
        """Centred tokens (P,C) of the image at ``place``."""
        image = int(self.judges.order[place])
        return rescale(centre(self.store.block(self.layer, image, image + 1))[0])

    def _inverse_lengths(self) -> FloatArray:
        """One over the length of every pooled token (N,R,P); 0 for a patch without content."""

        def measure(place: int) -> FloatArray:
            return pooled_lengths(self.read_tokens(place), self.scorer.grid, self.scorer.degrees)

        lengths = np.empty((self.judges.images, len(self.scorer.degrees), self.store.shape[2]), np.float32)
        for place, values in self.in_parallel(range(self.judges.images), measure):
            lengths[place] = values
        broken = np.flatnonzero(~np.isfinite(lengths).all(axis=(1, 2)))
        if len(broken):
            names = ", ".join(str(i) for i in sorted(self.judges.order[broken]))
            raise LotError(
                f"the tokens of layer {self.layer} hold values that are not finite, in images {names} "
                "(counted from 0). Check the backend's precision."
            )
        return np.divide(1, lengths, out=lengths, where=lengths > 0)

    def _pairs(self, cell: Cell) -> Iterator[tuple[int, int, int, int]]:
        return self.judges.pairs_of(cell, self.plan.block)

    def _count(self, cell: Cell) -> int:
        return sum(1 for _ in self._pairs(cell))

    def _compare(self, inverse: FloatArray, done: set[Cell]) -> None:
        """Write the cosines of all pairs whose cells are not ``done``."""
        _, _, patches, width = self.store.shape
        degrees, block = len(self.scorer.degrees), self.plan.block
        items = degrees * patches
        kind = load_filter(self.scorer.kind)
        comparers: SimpleQueue[_Comparer] = SimpleQueue()
        for _ in range(self.plan.threads):
            comparers.put(_Comparer(kind(self.scorer.grid, self.scorer.degrees), patches, degrees))
        resident = _Resident(self, width)

        def compare(cell: Cell) -> tuple[int, int]:
            checksum = pairs = 0
            mine, others = (resident.tokens(i) for i in cell)
            comparer = comparers.get()
            try:
                for a, b, there, back in self._pairs(cell):
                    own, their = mine[a - cell[0] * block], others[b - cell[1] * block]
                    of_a, of_b = comparer.compare(own, their, inverse[a], inverse[b])
                    self.minima.write(a, there * items, of_a)
                    self.minima.write(b, back * items, of_b)
                    pairs += 1
                    if self.kept:
                        checksum = checksum_of(of_b, checksum_of(of_a, checksum))
            finally:
                comparers.put(comparer)
            return pairs, checksum

        for group in self.judges.groups(block, self.plan.resident):
            cells = [cell for cell in group if cell not in done]
            resident.hold(sorted({i for cell in cells for i in cell}))
            for cell, (pairs, checksum) in self.in_parallel(cells, compare):
                if self.kept:
                    self.kept.keep_cell(self.layer, cell, checksum)
                self.report(pairs)

    def _verified_cells(self) -> set[Cell]:
        """Cells that an earlier run has finished and whose cosines are as it wrote them."""
        items = len(self.scorer.degrees) * self.store.shape[2]

        def checksum(cell: Cell) -> int:
            value = 0
            for a, b, there, back in self._pairs(cell):
                value = checksum_of(self.minima.read(a, there * items, items), value)
                value = checksum_of(self.minima.read(b, back * items, items), value)
            return value

        kept = self.kept.cells(self.layer) if self.kept else {}
        whole = {cell for cell, found in self.in_parallel(list(kept), checksum) if found == kept[cell]}
        self.report(-sum(map(self._count, kept.keys() - whole)))
        return whole

    def _select(self, inverse: FloatArray) -> Array:
        """Turn cosines into distances and average their interval: mutual scores (N,P)."""
        degrees, patches = inverse.shape[1:]
        count = self.judges.count
        bounds = interval_bounds(count + 1, self.scorer.interval)
        hollow = (inverse == 0).any(axis=2)

        def average(place: int) -> Array:
            cosines = self.minima.read(place, 0, count * degrees * patches)
            distances = distance(
                cosines.reshape(count, degrees, patches), inverse[place] > 0, hollow[self.judges.of(place)]
            )
            mean = interval_mean(distances.reshape(count, -1), *bounds).reshape(degrees, patches)
            average: Array = mean.mean(axis=0, dtype=np.float64)
            return average

        scores = np.empty((self.judges.images, patches), np.float64)
        for place, values in self.in_parallel(range(self.judges.images), average):
            scores[place] = values
        return scores

    def in_parallel(
        self, items: Sequence[Item], work: Callable[[Item], Result]
    ) -> Iterator[tuple[Item, Result]]:
        return in_order(items, work, self.plan.threads, ahead=2 * self.plan.threads, name="score")


class _Resident:
    """The blocks of centred tokens that are in memory: two sides of a comparison."""

    def __init__(self, layer: _Layer, width: int) -> None:
        plan, judges = layer.plan, layer.judges
        blocks = -(-judges.images // plan.block)
        held = min(2 * plan.resident, blocks)
        self._layer = layer
        self._room = np.empty((held * plan.block, layer.store.shape[2], width), np.float32)
        self._places: dict[int, int] = {}  # block -> first row in the room

    def tokens(self, block: int) -> FloatArray:
        """Tokens (n,P,C) of a block that is held."""
        start = self._places[block]
        room: FloatArray = self._room[start : start + self._layer.plan.block]
        return room

    def hold(self, blocks: Sequence[int]) -> None:
        """Have these blocks in memory, and drop what is in their way."""
        size, images = self._layer.plan.block, self._layer.judges.images
        self._places = {block: row for block, row in self._places.items() if block in blocks}
        taken = set(self._places.values())
        free = iter([row for row in range(0, len(self._room), size) if row not in taken])
        loads = []
        for block in blocks:
            if block not in self._places:
                self._places[block] = row = next(free)
                stop = min((block + 1) * size, images)
                loads += [(place, row + place - block * size) for place in range(block * size, stop)]

        def load(item: tuple[int, int]) -> None:
            place, row = item
            self._room[row] = self._layer.read_tokens(place)

        for _ in self._layer.in_parallel(loads, load):
            pass


def distance(cosines: FloatArray, content: Array, hollow: Array) -> FloatArray:
    """Distances (K,R,P) of an image's patches to the nearest patch of each judge, from the cosines.

    A patch without content has no angle: it lies at distance 1 from every other and at 0 from its like.

    Parameters
    ----------
    cosines : (K,R,P), the largest with a patch of the judge; taken as workspace where it can be.
    content : (R,P) bool, whether the image's own patch has content.
    hollow : (K,R) bool, whether the judge has patches without content.
    """
    own = content.astype(np.float32)
    squared = own + np.float32(1) - np.float32(2) * cosines
    if hollow.any():
        squared = np.where(hollow[:, :, None], np.minimum(squared, own), squared)
    np.maximum(squared, np.float32(0), out=squared)
    return np.sqrt(squared, out=squared)
