"""A thread that owns a GPU.

A CUDA context is current in a thread, and what was allocated in it can only be freed where it is current.
So the context is pushed, used and popped in one thread, and everything is freed there, by name: an object
that Python collects in another thread could not activate the context, and its memory would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Event
from types import TracebackType
from typing import TypeVar

from .gpu import Gpu

Result = TypeVar("Result")


class StoppedError(Exception):
    """Work was given up because nobody is waiting for it any more."""


class GpuThread:
    """Opens a GPU in a thread of its own when it is entered, and runs work there until it is left.

    Parameters
    ----------
    open_gpu : called in the thread; the GPU is open as long as the context manager that it returns.
    """

    def __init__(self, open_gpu: Callable[[], AbstractContextManager[Gpu]]) -> None:
        self._open = open_gpu
        self._stop = Event()

    def __enter__(self) -> GpuThread:
        self._stop.clear()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gpu")
        try:
            self._manager = self._pool.submit(self._open).result()
            self._gpu = self._pool.submit(self._manager.__enter__).result()
        except BaseException:
            self._pool.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Work that is still running holds the thread: it stops at its next ``check``, then the GPU is closed.
        self._stop.set()
        try:
            self._pool.submit(self._manager.__exit__, kind, error, trace).result()
        finally:
            self._pool.shutdown()

    def run(self, work: Callable[[Gpu], Result]) -> Result:
        """Run ``work(gpu)`` in the GPU's thread and return its result; what it raises is raised here."""
        return self._pool.submit(work, self._gpu).result()

    def check(self) -> None:
        """Raise StoppedError if the GPU is being closed, as by ctrl-C; long work calls this now and then."""
        if self._stop.is_set():
            raise StoppedError
