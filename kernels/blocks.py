"""Rows of features as the kernels have them in memory, and back (blocks.cuh); for checks on the host."""

from __future__ import annotations

import numpy as np

from .._numbers import ceil_div
from .gpu import Array

_STEP, _GROUP, _CHUNK = 128, 8, 16  # bytes of a step, rows of a group, bytes of a chunk
_PLACES = np.arange(_STEP // _CHUNK) ^ np.arange(_GROUP)[:, None]
"""Of each row in a group and each chunk, the place where it lies; and the chunk that lies in a place."""


def to_blocks(rows: Array) -> Array:
    """Return ``rows`` (n,P,pitch) in blocks (n, steps, groups, 8, step), with zeros behind row P."""
    images, patches, pitch = rows.shape
    groups, step = ceil_div(patches, _GROUP), _STEP // rows.itemsize
    filled = np.zeros((images, groups * _GROUP, pitch), rows.dtype)
    filled[:, :patches] = rows
    return _exchange(filled.reshape(images, groups, _GROUP, pitch // step, step).transpose(0, 3, 1, 2, 4))


def from_blocks(blocks: Array, patches: int) -> Array:
    """Return the rows (n,P,pitch) of ``to_blocks``."""
    images, steps, groups, _, step = blocks.shape
    rows = _exchange(blocks).transpose(0, 2, 3, 1, 4)
    return rows.reshape(images, groups * _GROUP, steps * step)[:, :patches]


def _exchange(blocks: Array) -> Array:
    """Bring the chunks of each row from their order to their places, or back."""
    chunks = blocks.reshape(*blocks.shape[:-1], _STEP // _CHUNK, -1)
    exchanged: Array = chunks[..., np.arange(_GROUP)[:, None], _PLACES, :]
    return np.ascontiguousarray(exchanged.reshape(blocks.shape))
