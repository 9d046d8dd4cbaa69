"""Compare pairs of images: one matrix product of their tokens serves both images and all degrees."""

from __future__ import annotations

import time

import numpy as np

from ..._extras import install
from ..errors import DeviceError
from ..settings import AUTO
from ..types import Array, FloatArray
from .gram_numpy import NumpyFilter
from .protocols import GramFilter

_BROKEN = (
    "numba is installed and does not work ({}). If its cache is damaged or its disk full, delete the files "
    "gram_numba.*.nb* in the package's __pycache__, in the user's cache folder or in $NUMBA_CACHE_DIR; "
    "--scorer numpy works without it."
)


_LONG = 2.0  # seconds: loading takes a fraction of one


def load_filter(name: str) -> type[GramFilter]:
    """Load the filter called "numpy" or "numba", ready to work.

    Raises
    ------
    DeviceError
        If there is no filter of that name, or numba is not installed or does not work.
    """
    if name == "numpy":
        return NumpyFilter
    if name != "numba":
        raise DeviceError(f"there is no scorer {name!r}: expected numpy, numba or auto.")
    try:
        from .gram_numba import NumbaFilter, compile_now
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"the scorer numba was asked for and is not installed ({error}). "
            f"Install it with: {install('fast')}, or use --scorer numpy."
        ) from error
    except Exception as error:  # a library that does not fit, a switch of numba's own
        raise DeviceError(_BROKEN.format(f"{type(error).__name__}: {error}")) from error
    try:
        compile_now()
    except Exception as error:  # a damaged cache, a full disk
        raise DeviceError(_BROKEN.format(f"{type(error).__name__}: {error}")) from error
    return NumbaFilter


def best_filter(name: str) -> tuple[str, str]:
    """Return the filter's name for ``name``, and a note on it or on why a better one was passed over.

    "auto" is numba where it is installed and works, else numpy; other names are loaded or refused.

    Raises
    ------
    DeviceError
        As ``load_filter``, for a name that is not "auto".
    """
    if name != AUTO:
        return _named(load_filter(name))
    try:
        return _named(load_filter("numba"))
    except DeviceError as error:
        absent = isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == "numba"
        return NumpyFilter.name, "" if absent else f"numpy compares the images: {error}"


def prepare_near(name: str) -> str:
    """Make the filter ``name`` ready for regions and windows, before work is timed and threads wait for it.

    Returns a note where that took long, which it does once: numba keeps what it has compiled.
    """
    if name != "numba":
        return ""
    from .gram_numba import compile_near

    start = time.perf_counter()
    compile_near()
    seconds = time.perf_counter() - start
    return f"numba compiled its pass for regions and windows in {seconds:.0f} s" if seconds >= _LONG else ""


def _named(chosen: type[GramFilter]) -> tuple[str, str]:
    return chosen.name, chosen.note


class Comparer:
    """Compares pairs of images one after the other; holds the scratch memory of one thread."""

    def __init__(self, gram_filter: GramFilter, patches: int, degree_count: int) -> None:
        self._filter = gram_filter
        self._gram = np.empty((patches, patches), np.float32)
        self._rows, self._columns = np.empty((2, degree_count, patches), np.float32)

    def compare(
        self,
        a: FloatArray,
        b: FloatArray,
        inverse_a: FloatArray,
        inverse_b: FloatArray,
        inside: tuple[Array, Array] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Largest cosines (R,P) of the patches of a in b and of b in a; valid until the next call.

        ``a`` and ``b`` (P,C) are tokens, ``inverse_a`` and ``inverse_b`` (R,P) their inverse lengths, and
        ``inside`` (P,) of each the patches that may be the nearest.
        """
        # One image by one image, never a whole block at once: the shape decides how BLAS tiles a product and
        # in which order it sums.  So a pair gives the same bytes however the lot is cut into blocks.
        np.matmul(a, b.T, out=self._gram)
        self._filter.maxima(self._gram, inverse_a, inverse_b, self._rows, self._columns, inside)
        return self._rows, self._columns


def distance(cosines: FloatArray, content: Array, hollow: Array) -> FloatArray:
    """Return the distances (K,R,P) of an image's patches to the nearest patch of each judge.

    A patch without content has no angle: it lies at distance 1 from every other and at 0 from its like.

    Parameters
    ----------
    cosines : (K,R,P), the largest with a patch of the judge.
    content : (R,P) bool, whether the image's own patch has content.
    hollow : (K,R,P or 1) bool, whether the judge has patches without content that may be the nearest.
    """
    # |f - g|^2 = |f|^2 + |g|^2 - 2 <f, g>, where |f|^2 is 1 with content and 0 without, and the cosine with a
    # patch without content is 0.  Here |g|^2 is taken as 1; a patch without content,
    # where the judge is hollow, is at |f|^2.
    own = content.astype(np.float32)
    squared = own + np.float32(1) - np.float32(2) * cosines
    if hollow.any():
        squared = np.where(hollow, np.minimum(squared, own), squared)
    np.maximum(squared, np.float32(0), out=squared)  # rounding lets a cosine exceed 1
    return np.sqrt(squared, out=squared)
