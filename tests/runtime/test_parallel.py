"""Memory that threads share: how much is taken at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from musc_edge.runtime.parallel import Room


class Most:
    """Keeps count of what is taken at once."""

    def __init__(self) -> None:
        self.now = self.most = self.together = self.most_together = 0
        self.lock = threading.Lock()

    def add(self, size: int, work: int) -> None:
        with self.lock:
            self.now, self.together = self.now + size, self.together + work
            self.most, self.most_together = max(self.most, self.now), max(self.most_together, self.together)


def use(size: int | None, sizes: list[int], threads: int = 8) -> Most:
    room, count = Room(size), Most()

    def work(needed: int) -> None:
        with room.taken(needed):
            count.add(needed, 1)
            threading.Event().wait(0.002)
            count.add(-needed, -1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, sizes))
    assert (count.now, count.together) == (0, 0)
    return count


@pytest.mark.parametrize("size", [10, 25, 40])
def test_no_more_is_taken_than_there_is(size: int) -> None:
    assert use(size, [10, 3, 7] * 20).most <= size


def test_what_needs_more_runs_alone() -> None:
    count = use(5, [8] * 10)
    assert (count.most, count.most_together) == (8, 1)


def test_without_a_limit_all_run_at_once() -> None:
    room, barrier = Room(), threading.Barrier(4)

    def work(_: int) -> int:
        with room.taken(10**12):
            return barrier.wait(timeout=30)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(work, range(4))) == [0, 1, 2, 3]


def test_an_error_gives_back_what_was_taken() -> None:
    room = Room(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="odd"), room.taken(10):
            raise ValueError("odd")
    with room.taken(10):
        pass
