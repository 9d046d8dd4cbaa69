"""Work on all rows of a square matrix that is never there as a whole: block by block of its rows.

Here one block follows the other; a cluster gives them to its workers (``cluster.blocks``).  Blocks depend on
the number of rows alone, so that results do not depend on who works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from ..._numbers import runs
from ..types import Array

_ROWS = 256
"""Rows of a block."""
Result = TypeVar("Result")


class ByBlocks(Protocol):
    """Who does ``work(rows, *arrays)`` for blocks of rows."""

    def __call__(
        self, work: Callable[..., Result], blocks: Iterable[range], *arrays: Array
    ) -> Iterator[Result]:
        """Yield the results in the order of the blocks; ``work`` is a function of a module."""
        ...


def here(work: Callable[..., Result], blocks: Iterable[range], *arrays: Array) -> Iterator[Result]:
    """Work on one block after the other, in this process."""
    return (work(rows, *arrays) for rows in blocks)


def row_blocks(rows: int) -> list[range]:
    """Cut a number of rows into blocks."""
    return runs(range(rows), _ROWS)
