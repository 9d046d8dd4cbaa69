"""The features of a lot in host memory, or in a memory-mapped scratch file where memory is short."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import OutputError
from .types import Array, FloatArray, Slot


@dataclass(frozen=True)
class HostStore:
    """Tokens (S,N,P,C), one layer after the other so that a scorer reads contiguously; ``cls`` (N,D)."""

    tokens: Array
    cls: FloatArray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(S, N, P, C)."""
        layers, images, patches, width = self.tokens.shape
        return layers, images, patches, width

    def slot(self, i0: int, i1: int) -> Slot:
        """Views for images i0..i1: tokens (S,B,P,C) and cls (B,D)."""
        return Slot(self.tokens[:, i0:i1], self.cls[i0:i1])

    def block(self, layer: int, i0: int, i1: int) -> Array:
        """Tokens (i1-i0,P,C) of one layer."""
        block: Array = self.tokens[layer, i0:i1]
        return block

    def first(self, images: int) -> HostStore:
        """The same store, cut to its first ``images`` images."""
        return HostStore(self.tokens[:, :images], self.cls[:images])


def host_array(
    shape: tuple[int, ...], dtype: npt.DTypeLike, on_disk: bool, scratch: Path | None
) -> npt.NDArray[Any]:
    """An uninitialised array in memory, or in an unnamed file in folder ``scratch`` that vanishes with it.

    Raises
    ------
    OutputError
        If the disk cannot hold the file; its room is taken at once, since writing to a memory map
        on a full disk would kill the process.
    """
    if not on_disk:
        return np.empty(shape, dtype)
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise OutputError(
            f"a scratch file of {size / 1e9:.1f} GB could not be made in {scratch or tempfile.gettempdir()}: "
            f"{error.strerror}. Free room there, or raise the memory budget."
        ) from error
