"""Read an array in numpy's file format whose type and shape are known beforehand.

``numpy.load`` believes a header: it allocates 4 EiB if that is what it claims.  Here the header is compared
with what was expected before anything behind it is read; it is matched, not evaluated.  Format 1.0:

    6 bytes   0x93, NUMPY
    2 bytes   version, 1 and 0
    2 bytes   length of the header, little-endian
    header    {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, spaces, the end of a line
    data      the array's bytes, and nothing after them
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..._json import shortly
from ..types import Array

_MAGIC = b"\x93NUMPY\x01\x00"
_CHUNK = 1 << 20
_HEADER = re.compile(
    r"\{'descr': (?P<type>.+), 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)


def read_npy(content: bytes, dtype: npt.DTypeLike, shape: Sequence[int]) -> Array:
    """Return the array of ``dtype`` and ``shape`` in the ``content`` of a .npy file.

    Raises
    ------
    ValueError
        If it is not such a file, or holds an array of another type or shape.
    """
    file = io.BytesIO(content)
    return read_data(file, read_header(file, dtype), shape)


@dataclass(frozen=True)
class Header:
    """The header of a .npy file; ``fortran`` means that columns come first in memory."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool


def read_header(file: IO[bytes], dtype: npt.DTypeLike) -> Header:
    """Read the header at the start of ``file``; ValueError if it is none, or not of type ``dtype``."""
    start = file.read(len(_MAGIC) + 2)
    if len(start) < len(_MAGIC) + 2 or not start.startswith(_MAGIC):
        raise ValueError(f"it begins with {start!r}, expected numpy's format 1.0")
    text = file.read(int.from_bytes(start[-2:], "little")).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if not found:
        raise ValueError(f"its header is {shortly(text)}, expected one that numpy writes")
    expected = np.dtype(dtype)
    if found["type"] != repr(expected.str):
        raise ValueError(f"it holds {shortly(found['type'])}, expected {expected.str!r} ({expected})")
    shape = tuple(int(side) for side in found["shape"].split(",") if side.strip())
    return Header(expected, shape, found["fortran"] == "True")


def read_data(file: IO[bytes], header: Header, shape: Sequence[int]) -> Array:
    """Read the array behind ``header``; ValueError if it is not of ``shape``, or not complete."""
    if header.shape != tuple(shape):
        raise ValueError(f"its shape is {shortly(header.shape)}, expected {tuple(shape)}")
    flat = np.empty(math.prod(header.shape), header.dtype)
    target = flat.view(np.uint8)
    # In chunks: reading all of it at once would make a second copy of the array in memory.
    for start in range(0, target.size, _CHUNK):
        part = file.read(min(_CHUNK, target.size - start))
        target[start : start + len(part)] = np.frombuffer(part, np.uint8)
        if start + len(part) < min(start + _CHUNK, target.size):
            raise ValueError(f"it holds {start + len(part)} bytes of data, expected {target.size}")
    if file.read(1):
        raise ValueError(f"it holds more than {target.size} bytes of data")
    return flat.reshape(header.shape, order="F" if header.fortran else "C")
