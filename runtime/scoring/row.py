"""MSM for a single image (paper, section 3.3): one row of mutual scoring, against a fixed bank of images.

    d(m; j) = min over the patches n of bank image j of |f_m - f_n|

and the score of patch m is the interval average over the bank's images, as if the image had been scored in
one lot with them.  A bank keeps its images whole, and then pairs of images are compared as in a lot
(image_pairs.py), or a few patches of each, and then one product compares an image with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np

from ..._numbers import ceil_div
from ..errors import DeviceError
from ..store.features import LARGEST, believable
from ..types import Array, FloatArray
from .aggregate import centre, inverse_lengths, pool, pooled_lengths, rescale
from .image_pairs import Comparer, distance
from .interval import interval_bounds
from .method import Method
from .nearest import hollow, mark_excluded
from .protocols import GramFilter

_GRAM = 1 << 20
"""Numbers in a product of some patches with those of a bank: 4 MB, which stay in a core's cache."""


class Query(NamedTuple):
    """The image that is scored, in one layer: centred tokens (P,C), and inverse pooled lengths (R,P)."""

    tokens: FloatArray
    inverse: FloatArray


class Bank(Protocol):
    """The images of a reference, ready to be compared with.  Twins: WholeBank, PatchBank."""

    method: Method
    layers: int
    images: int

    hollow: Array
    """(S,M,R,P or 1) bool, whether an image has patches without content that may be the nearest."""

    version: str
    """The software that the last bits of the scores depend on."""

    def jobs(self, layer: int, query: Query, cosines: FloatArray) -> Iterator[Callable[[], None]]:
        """Yield work that fills ``cosines`` (M,R,P): the largest of each patch with each bank image."""
        ...


class ImageScorer(Protocol):
    """Scores single images against a bank.

    Twins: RowScorer, DeviceRow (gpu/row.py); ResidualRow (residual_row.py) by what the bank has in common.
    """

    @property
    def version(self) -> str:
        """The software and hardware that the last bits of the scores depend on."""
        ...

    def score(self, tokens: Sequence[Array], inside: Array | None = None) -> FloatArray:
        """Return the anomaly map (Gh,Gw) of the image with ``tokens`` (P,C) in each layer.

        It is NaN where a patch is not ``inside`` (P,).

        Raises
        ------
        DeviceError
            If tokens are not finite, or the device fails.
        """
        ...


class WholeBank:
    """A bank of whole images.

    Parameters
    ----------
    method : degrees and interval.
    gram_filter : what reduces a product.
    tokens : of each layer (M,P,C), centred and rescaled, float32.
    lengths : (S,M,R,P), of the pooled tokens.
    threads : how many jobs may run at once.
    inside : (M,P) bool, which patches may be the nearest; None for all.
    beside : another bank of the same method, whose scratch memory this one uses too.
    """

    def __init__(
        self,
        method: Method,
        gram_filter: type[GramFilter],
        tokens: Sequence[FloatArray],
        lengths: FloatArray,
        threads: int,
        inside: Array | None = None,
        beside: WholeBank | None = None,
    ) -> None:
        self.method, self.version = method, gram_filter.version
        self.layers, self.images = lengths.shape[:2]
        self._tokens, self._inside = tokens, inside
        self._inverse = inverse_lengths(lengths)
        self.hollow: Array = np.stack(
            [hollow(inverse, inside, method.grid, method.near) for inverse in self._inverse]
        )
        self._part = ceil_div(self.images, threads)
        # Scratch memory of P*P numbers each: as many as can work at once, passed from job to job.
        self._comparers: SimpleQueue[Comparer] = beside._comparers if beside else SimpleQueue()
        patches, degrees = lengths.shape[3], method.degrees
        for _ in range(0 if beside else threads):
            one = gram_filter(method.grid, degrees, method.near)
            self._comparers.put(Comparer(one, patches, len(degrees)))

    @classmethod
    def of(
        cls,
        method: Method,
        gram_filter: type[GramFilter],
        tokens: Sequence[FloatArray],
        threads: int,
        inside: Array | None = None,
    ) -> WholeBank:
        """Make a bank of all images of ``tokens``, of each layer (M,P,C), as a ViT gave them."""
        layers = [np.stack([describe(image, method).tokens for image in layer]) for layer in tokens]
        lengths = [
            [pooled_lengths(image, method.grid, method.degrees) for image in layer] for layer in layers
        ]
        return cls(method, gram_filter, layers, np.array(lengths), threads, inside)

    def jobs(self, layer: int, query: Query, cosines: FloatArray) -> Iterator[Callable[[], None]]:
        """As ``Bank`` says; a job for each share of the images."""
        for start in range(0, self.images, self._part):
            yield partial(self._compare, layer, query, cosines, start)

    def _compare(self, layer: int, query: Query, cosines: FloatArray, start: int) -> None:
        comparer = self._comparers.get()
        everything = np.ones(query.inverse.shape[1], bool)
        try:
            for j in range(start, min(start + self._part, self.images)):
                # The bank's image first: the bytes of a lot in which the scored image comes last.
                tokens, inverse = self._tokens[layer][j], self._inverse[layer, j]
                within = None if self._inside is None else (self._inside[j], everything)
                _, cosines[j] = comparer.compare(tokens, query.tokens, inverse, query.inverse, within)
        finally:
            self._comparers.put(comparer)


class PatchBank:
    """A bank of a few patches of each image, chosen for each degree.

    Parameters
    ----------
    method : degrees and interval.
    units : of each layer (R,n,M,C): n pooled patches of M images as unit vectors; zeros have no content.
    hollow : (S,M,R) bool, whether an image has patches without content.
    """

    def __init__(self, method: Method, units: Sequence[FloatArray], hollow: Array) -> None:
        self.method, self.version = method, f"numpy {np.__version__}"
        self.layers, self.images = hollow.shape[:2]
        self.hollow = hollow[..., None]
        self._units = units

    def jobs(self, layer: int, query: Query, cosines: FloatArray) -> Iterator[Callable[[], None]]:
        """As ``Bank`` says; a job for some rows of the grid in one degree."""
        _, kept, images, _ = self._units[layer].shape
        patches = query.inverse.shape[1]
        rows = min(max(_GRAM // (kept * images), 1), patches)
        for t in range(len(self.method.degrees)):
            for top in range(0, patches, rows):
                yield partial(self._compare, layer, query, cosines, t, slice(top, top + rows))

    def _compare(self, layer: int, query: Query, cosines: FloatArray, t: int, rows: slice) -> None:
        _, kept, images, width = self._units[layer].shape
        pooled = pool(query.tokens, self.method.grid, self.method.degrees[t])[rows]
        units = pooled * query.inverse[t, rows, None]
        gram = units @ self._units[layer][t].reshape(kept * images, width).T
        # Images last: the largest of n rows of M numbers, which numpy takes many at a time.
        cosines[:, t, rows] = gram.reshape(-1, kept, images).max(axis=1).T


class RowScorer:
    """Scores one image after the other against a bank; a context manager that holds its threads.

    Raises
    ------
    LotError
        If the bank has too few images for the interval.
    """

    def __init__(self, bank: Bank, threads: int) -> None:
        self._bank = bank
        interval_bounds(bank.images + 1, bank.method.interval)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="check")

    @property
    def version(self) -> str:
        """The software that the last bits of the scores depend on."""
        return self._bank.version

    def __enter__(self) -> RowScorer:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def score(self, tokens: Sequence[Array], inside: Array | None = None) -> FloatArray:
        """As ``ImageScorer`` says."""
        require_finite(tokens)
        bank = self._bank
        layers = range(bank.layers)
        queries = list(self._pool.map(lambda layer: describe(tokens[layer], bank.method), layers))
        shape = bank.images, *queries[0].inverse.shape
        cosines: list[FloatArray] = [np.empty(shape, np.float32) for _ in layers]
        jobs = [job for layer in layers for job in bank.jobs(layer, queries[layer], cosines[layer])]
        for _ in self._pool.map(lambda job: job(), jobs):
            pass
        averages = self._pool.map(lambda n: self._average(cosines[n], queries[n], bank.hollow[n]), layers)
        # Layers are added in their order, in float64, as for a lot.
        total: Array = sum(averages, np.zeros(shape[2]))
        return mark_excluded((total / bank.layers).astype(np.float32), inside).reshape(bank.method.grid)

    def _average(self, cosines: FloatArray, query: Query, hollow: Array) -> Array:
        """Return the scores (P,) of a layer, averaged over degrees."""
        images, degree_count, patches = cosines.shape
        distances = distance(cosines, query.inverse > 0, hollow)
        mean = self._bank.method.average(distances.reshape(images, -1))[0]
        average: Array = mean.reshape(degree_count, patches).mean(axis=0, dtype=np.float64)
        return average


def require_finite(tokens: Sequence[Array]) -> None:
    """Raise DeviceError if an image's tokens (P,C) of any layer are not finite, or beyond any sense."""
    if not all(believable(layer) for layer in tokens):
        raise DeviceError(
            f"the ViT gave values that are not finite, or beyond {LARGEST:g}. Try a bundle in fp32."
        )


def describe(tokens: Array, method: Method) -> Query:
    """Centre the tokens (P,C) of an image and measure them."""
    centred = rescale(centre(tokens[None])[0])
    lengths = pooled_lengths(centred, method.grid, method.degrees)
    return Query(centred, inverse_lengths(lengths))


def unit_vectors(query: Query, method: Method, t: int) -> FloatArray:
    """Return the pooled tokens (P,C) of degree number ``t`` as unit vectors; zeros have no content."""
    pooled: FloatArray = pool(query.tokens, method.grid, method.degrees[t]) * query.inverse[t][:, None]
    return pooled
