"""Connections that cost nothing for long: how many there are, and how long one may say nothing.

uvicorn waits for ever for the head of a request on a new connection (slowloris), and for a client that does
not read.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 100
HEAD_SECONDS = 15.0
"""From the beginning of a connection, or from the last answer on it, to the end of a request's head."""

READ_SECONDS = 30.0
"""For a client to read a part of an answer."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class Connection(H11Protocol):
    """A connection of uvicorn's that is closed if there are too many, or if it says nothing for too long."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(_FULL)
            transport.close()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_timer()
        self._timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._await_head()

    def _await_head(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _head_is_late(self) -> None:
        # An answer that nobody reads is held back by the transport, which closing would wait for.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
