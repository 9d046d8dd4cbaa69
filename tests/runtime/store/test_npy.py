"""Reading one array: what numpy writes is read as numpy reads it, and all else is refused before it is."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from musc_edge.runtime.store.npy import read_npy

Array = npt.NDArray[Any]


def saved(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A file with any header."""
    length = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + text.encode("latin-1") + data


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes(dtype: str, shape: tuple[int, ...], order: Any) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape).copy(order)
    found = read_npy(saved(array), dtype, shape)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    found[...] = 0  # it is one's own


def test_more_than_one_chunk() -> None:
    array = np.random.default_rng(0).standard_normal((3, 100_000))
    np.testing.assert_array_equal(read_npy(saved(array), np.float64, (3, 100_000)), array)


@pytest.mark.parametrize("array", [np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3, 1)), np.zeros(())])
def test_another_shape(array: Array) -> None:
    with pytest.raises(ValueError, match=r"its shape is .*, expected \(2, 3\)"):
        read_npy(saved(array), np.float64, (2, 3))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3), ">f8"),
        np.zeros((2, 3), np.int64),
        np.zeros((2, 3), object),
        np.zeros((2, 3), "S8"),
        np.zeros((2, 3), "M8[s]"),
        np.zeros((2, 3), [("a", "<f8")]),
        np.zeros((2, 3), [("a", "<f8", (2, 2)), ("b", "O")]),
    ],
    ids=str,
)
def test_another_type(array: Array) -> None:
    with pytest.raises(ValueError, match=r"it holds .*, expected '<f8' \(float64\)"):
        read_npy(saved(array), np.float64, (2, 3))


GOOD = saved(np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an array",
        GOOD[:9],
        GOOD[:50],
        GOOD[:-1],
        GOOD + b"\0",
        GOOD.replace(b"\x01\x00v", b"\x02\x00v", 1),
        with_header(" " * 2**20, b"", b"\x02\x00"),
        with_header("{'descr': '<f8', 'fortran_order': 0, 'shape': (2, 3), }\n", bytes(48)),
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3), }\n", bytes(48)),
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': [2, 3], }\n", bytes(48)),
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), 'more': 1, }\n", bytes(48)),
        with_header("{'shape': (2, 3), 'fortran_order': False}\n", bytes(48)),
        with_header("-" * 60_000 + "1\n"),
        with_header("(" * 60_000 + "\n"),
        with_header("__import__('os').abort()\n"),
    ],
)  # fmt: skip
def test_no_array(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"it (begins|holds)|its (header|shape)"):
        read_npy(content, np.float64, (2, 3))


@pytest.mark.parametrize("shape", ["(4611686018427387904,)", "(1000000, 1000000)", "(" + "9" * 50_000 + ",)"])
def test_a_header_that_claims_too_much_takes_no_memory(shape: str) -> None:
    content = with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n", bytes(48))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"its (header|shape) is"):
        read_npy(content, np.float64, (2, 3))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
