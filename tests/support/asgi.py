"""Asks an ASGI application without a network, so that a test decides what comes when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.served import Answer

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


async def ask(
    app: App,
    method: str,
    path: str,
    body: Iterable[bytes] = (),
    headers: MutableMapping[str, str] | None = None,
    gone: asyncio.Event | None = None,
    stalls: bool = False,
) -> Answer:
    """Send a request; status 0 if it got no answer.

    The client goes away once ``gone`` is set; with ``stalls`` the end of its body never comes.
    """
    pieces, sent = [*body], list[Message]()
    left, away = iter(pieces), gone or asyncio.Event()

    async def receive() -> Message:
        for piece in left:
            return {"type": "http.request", "body": piece, "more_body": True}
        if not stalls and not ended:
            ended.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await away.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    ended: list[bool] = []
    where, _, query = path.partition("?")
    given = {"host": "localhost", **(headers or {})}
    if pieces:
        given.setdefault("content-length", str(sum(map(len, pieces))))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    await app(scope, receive, send)
    if not sent:
        return Answer(0, {}, b"")
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run it in an event loop of its own, beside that which playwright has in the thread of the tests."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state."""
    while not condition():
        await asyncio.sleep(0.002)
