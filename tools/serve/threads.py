"""Work on threads of its own, waited for in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

from ...runtime.limits import too_few_threads

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns, which runs on a new thread, or raise what it raises.

    A pool would be full once all of its threads are held by decoders that hang, and Python would wait for
    them at its end; these are left behind.

    Raises
    ------
    DeviceError
        If no more threads are allowed.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def set_result(result: Result) -> None:
        if not future.done():
            future.set_result(result)

    def set_error(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        try:
            call, given = set_result, work()
        except BaseException as error:
            call, given = set_error, error  # type: ignore[assignment]
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(call, given)

    try:
        Thread(target=run, name="image", daemon=True).start()
    except RuntimeError as error:
        raise too_few_threads(error) from error
    return await future
