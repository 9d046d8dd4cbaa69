"""Protocols between the parts of mutual scoring, so that CPU and GPU, memory and files are interchangeable.

They are protocols and not base classes, so that a twin imports nothing of its sibling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy.typing as npt

from ..store.features import DeviceStore
from ..store.tables import FileRows
from ..timing import StageTimer
from ..types import Array, Cell, FeatureStore, FloatArray, Plan, Progress
from .judges import Judges
from .plan import HostNeeds

Groups = Sequence[Sequence[int]]
"""Groups of rows of a lot."""


class Tokens(Protocol):
    """Tokens of images, to be read: all that a FeatureStore is where it is full."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(S, N, P, C)."""
        ...

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Return the tokens (n,P,C) of images ``i0`` to ``i1`` in the layer at this position."""
        ...


class MutualScorer(Protocol):
    """Scores the images of a lot.

    Twins: CpuScorer (mutual.py) and CudaScorer (gpu/scorer.py), which compare pairs of them, and
    ResidualScorer (residual.py), which does not.
    """

    @property
    def kind(self) -> str:
        """Such as "numba" or "cuda"."""
        ...

    @property
    def version(self) -> str:
        """The software and hardware that the last bits of the scores depend on."""
        ...

    @property
    def notes(self) -> list[str]:
        """Remarks for the user, such as why another scorer was passed over."""
        ...

    def judges(self, images: int) -> Judges:
        """Choose who judges whom among ``images``; LotError if they are too few for the interval."""
        ...

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, needs: HostNeeds = ...) -> Plan:
        """Make the memory plan for tokens of ``shape`` (S,N,P,C) and ``itemsize`` bytes.

        Raises
        ------
        LotError
            If a budget is too small.
        DeviceError
            If the device cannot take such tokens.
        """
        ...

    def device_store(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, cls: FloatArray, plan: Plan
    ) -> DeviceStore | None:
        """Return the store on the scorer's device that the plan asks for; None if tokens stay on the host."""
        ...

    def score(
        self,
        store: FeatureStore,
        plan: Plan,
        progress: Progress = ...,
        kept: KeptCells | None = None,
        timer: StageTimer = ...,
        later: FloatArray | None = None,
        copies: Groups = (),
        inside: Array | None = None,
    ) -> FloatArray:
        """Return the mutual scores (N,P) of the images in ``store``, averaged over layers and degrees.

        ``copies`` are groups of rows that do not judge each other.
        ``later`` (N,P) receives the share of layers and degrees in which burn-out began a patch's interval
        later than the paper's; zeros without burn-out.
        ``inside`` (N,P) bool are the patches that may be a neighbor; scores of the others have no meaning.

        Raises
        ------
        LotError
            If the lot is too small for the interval, or tokens are not finite.
        DeviceError
            If the device fails.
        """
        ...

    def seconds(self, shape: tuple[int, int, int, int], plan: Plan) -> float:
        """Estimate the seconds that ``score`` will take, from a short measurement."""
        ...


class GramFilter(Protocol):
    """Pools and reduces one Gram; each thread has its own.  Twins: NumpyFilter, NumbaFilter.

    Pooling is linear, so the Gram of pooled tokens is the Gram of the tokens themselves, summed over the
    r x r neighborhood of the row's patch and over that of the column's: a box filter along four axes,
    (h, w) of the row and (h', w') of the column, with nothing beyond the grid.  So one product of two
    images' tokens serves all degrees.

    Parameters
    ----------
    grid : (Gh, Gw) with Gh * Gw = P.
    degrees : odd sides r of the neighborhoods.
    window : only patches that are at most so many rows and columns apart are compared; None for all.
    """

    name: str
    version: str

    note: str
    """A remark for the user; empty if there is none."""

    def __init__(self, grid: tuple[int, int], degrees: Sequence[int], window: int | None = None) -> None: ...

    def maxima(
        self,
        gram: FloatArray,
        own: FloatArray,
        others: FloatArray,
        rows: FloatArray,
        columns: FloatArray,
        inside: tuple[Array, Array] | None = None,
    ) -> None:
        """Write the largest cosine of each row's and each column's patch, per degree.

        It is -1 where no patch may be the nearest (nearest.py).

        Parameters
        ----------
        gram : (P,P), the product of the tokens of two images.
        own, others : (R,P), inverse lengths of their pooled tokens; 0 where there is no content.
        rows, columns : (R,P), receive the cosines.
        inside : (P,) bool of the rows' and the columns' image: which patches may be the nearest; None: all.
        """
        ...


class KeptCells(Protocol):
    """The work that is kept between runs: what an earlier run left, and what this one adds."""

    notes: list[str]

    def begin_scoring(self, copies: Groups = ()) -> None:
        """Forget what was made of other features, or with other ``copies`` that do not judge each other.

        To be called before anything of a layer is asked for.
        """
        ...

    def scores(self, layer: int, shape: tuple[int, ...]) -> Array | None:
        """Return what was kept of a finished layer, an array of ``shape``, or None."""
        ...

    def keep_scores(self, layer: int, scores: Array) -> None:
        """Keep the mutual scores of a layer (1 or 2,N,P), by place; its cells are not needed any more."""
        ...

    def open_cosines(self, shape: tuple[int, int]) -> FileRows:
        """Open the file of the largest cosines."""
        ...

    def cells(self, layer: int) -> dict[Cell, int]:
        """Return the finished cells of a layer, each with the checksum of its cosines."""
        ...

    def keep_cell(self, layer: int, cell: Cell, checksum: int) -> None:
        """Note a cell whose cosines have been written."""
        ...
