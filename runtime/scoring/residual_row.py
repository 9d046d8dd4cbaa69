"""Residuals of single images: how far their patches lie outside of what is common in a lot that was kept.

The twin of RowScorer (row.py) for references by residual: what is common is not changed by the image that is
scored, so that a check costs one product for each layer and degree, whatever the lot's size was.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ..types import Array, FloatArray
from .aggregate import centre, rescale
from .method import Method
from .nearest import mark_excluded
from .row import require_finite
from .subspace import Subspace, describe


class ResidualRow:
    """Scores one image after the other against ``common``, for each layer and degree; a context manager."""

    def __init__(self, method: Method, common: Sequence[Sequence[Subspace]], threads: int) -> None:
        self._method, self._common = method, common
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="check")

    @property
    def version(self) -> str:
        """The software that the last bits of the scores depend on."""
        return f"residual, numpy {np.__version__}"

    def __enter__(self) -> ResidualRow:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def score(self, tokens: Sequence[Array], inside: Array | None = None) -> FloatArray:
        """As ``ImageScorer`` (row.py) says."""
        require_finite(tokens)
        layers = self._pool.map(partial(residuals, self._method), tokens, self._common)
        # Layers are added in their order, in float64, as for a lot.
        total: Array = sum(layers, np.zeros(tokens[0].shape[0]))
        average: FloatArray = (total / len(tokens)).astype(np.float32)
        return mark_excluded(average, inside).reshape(self._method.grid)


def residuals(method: Method, tokens: Array, common: Sequence[Subspace]) -> Array:
    """Return the residuals (P,) of an image's ``tokens`` (P,C) in a layer, averaged over degrees, float64."""
    vectors, _ = describe(rescale(centre(tokens[None])[0]), method.grid, method.degrees)
    each = [one.residuals(described) for one, described in zip(common, vectors, strict=True)]
    average: Array = np.asarray(np.mean(each, axis=0, dtype=np.float64))
    return average
