"""Run work on many items with a few threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from math import ceil
from threading import Condition, Event
from typing import Any, TypeVar

from .cgroups import processors
from .limits import too_few_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

_TURN = 0.5  # seconds
_abandoned: set[Future[Any]] = set()  # still running when their consumer stopped waiting


class Room:
    """Memory that work on several threads shares: what needs more than is left waits until other work ends.

    ``size`` is in bytes, None for without limit.  Work that needs more than all of it runs alone.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size, self._taken, self._work = size, 0, 0
        self._changed = Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take ``size`` bytes for as long as the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(size))
            self._taken, self._work = self._taken + size, self._work + 1
        try:
            yield
        finally:
            with self._changed:
                self._taken, self._work = self._taken - size, self._work - 1
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._work or self._size is None or self._taken + size <= self._size


def in_order(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    threads: int,
    ahead: int,
    name: str = "work",
    patience: float | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item with ``work(item)``, in order; what ``work`` raises is raised here.

    ``threads`` work at once, at most ``ahead`` items before the consumer, which bounds memory.  When the
    consumer stops or is interrupted, items that have not begun are dropped.  Those that have begun get
    ``patience`` seconds to end (None: as long as they need) and are then abandoned (``has_abandoned``), which
    is safe only for work without side effects.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, _submit(pool, work, item)))
            # An item leaves the queue after its result came, not before: if the wait for it is interrupted,
            # ``finally`` still finds it.
            if len(waiting) > ahead:
                yield waiting[0][0], result_of(waiting[0][1])
                waiting.popleft()
        while waiting:
            yield waiting[0][0], result_of(waiting[0][1])
            waiting.popleft()
    finally:
        _stop(pool, [future for _, future in waiting], patience)


def one_ahead(
    items: Iterator[Item], stop: Event, patience: float | None = None
) -> Generator[Item, None, None]:
    """Yield ``items``; while the consumer works with one, a thread of its own makes the next.

    When the consumer stops or is interrupted, ``stop`` is set, at which the iterator is to end soon.  It gets
    ``patience`` seconds and is then abandoned, as by ``in_order``.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    futures: list[Future[Item | None]] = []
    try:
        futures.append(_submit(pool, _next, items))
        while (item := result_of(futures[0])) is not None:
            futures[0] = _submit(pool, _next, items)
            yield item
            del item  # the consumer is done with it: it need not live until the next one is there
    finally:
        stop.set()
        _stop(pool, futures, patience)


def _next(items: Iterator[Item]) -> Item | None:
    return next(items, None)


def _submit(pool: ThreadPoolExecutor, work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit ``work(item)``; DeviceError if a thread for it cannot be started."""
    try:
        return pool.submit(work, item)
    except RuntimeError as error:
        raise too_few_threads(error) from error


def result_of(future: Future[Result]) -> Result:
    """Wait for a result in short turns: a signal just before one long wait would go unheard."""
    while not future.done():
        wait([future], _TURN)
    return future.result()


def has_abandoned() -> bool:
    """Return whether abandoned work is still running: Python would wait for it before it exits."""
    return any(not future.done() for future in _abandoned)


def cores() -> int:
    """Return the number of threads that this process can run at once, by its cores and its cgroups' quota."""
    usable, quota = len(os.sched_getaffinity(0)), processors()
    return usable if quota is None else max(1, min(usable, ceil(quota)))


def _stop(pool: ThreadPoolExecutor, futures: list[Future[Any]], patience: float | None) -> None:
    """Cancel what has not begun, and wait up to ``patience`` seconds for the rest."""
    running = {future for future in futures if not future.cancel()}
    if patience is not None:
        _abandoned.update(running)  # first, because another interrupt may end the wait
        ended, _ = wait(running, patience)
        _abandoned.difference_update(ended)
    pool.shutdown(wait=not _abandoned & running)
