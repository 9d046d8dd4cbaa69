"""Whom the server answers.

A browser on this machine is asked by every page that it shows to fetch something.  Such requests are told by
their headers: ``Host`` is another name than ours if a name of theirs was made to point here (DNS rebinding),
``Origin`` is their page's if they send something.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from .refused import RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LINGER = 1.0
"""Seconds for which a body that nobody wants is read on, so that its sender sees the answer."""

POLICY = "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
_HEADERS = {
    "content-security-policy": POLICY + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
MOST_HEAD, MOST_HEADERS = 32 << 10, 100
"""Bytes of a request's headers, and how many there may be."""

_OPEN = ("/health", "/health/live", "/health/ready")
"""What is answered without a token."""


class Observer(Protocol):
    """Is told of each request that was answered."""

    def answered(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """``status`` is 499 if the client had gone."""


class Access:
    """Who may ask: requests for one of our names, from no other page, with the token if there is one.

    ``hosts`` are names beside localhost, this machine's own and all addresses, which no DNS can turn.
    """

    def __init__(self, token: str | None = None, hosts: Iterable[str] = ()) -> None:
        own = {"localhost", socket.gethostname(), socket.getfqdn()}
        self._hosts = {name.lower().rstrip(".") for name in (*own, *hosts)}
        self._token = _digest(token.encode()) if token is not None else None

    def check(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise RefusedError unless a request with these headers may be answered."""
        found: dict[bytes, list[bytes]] = {}
        count = size = 0
        for name, value in headers:
            found.setdefault(name, []).append(value)
            count, size = count + 1, size + len(name) + len(value)
        if count > MOST_HEADERS or size > MOST_HEAD:
            raise RefusedError(
                431, f"{count} headers of {size} bytes: expected at most {MOST_HEADERS} of {MOST_HEAD} bytes."
            )
        self._check_host(found)
        if b"transfer-encoding" in found and b"content-length" in found:
            raise RefusedError(400, "the request has both a Transfer-Encoding and a Content-Length.")
        origin = found.get(b"origin")
        if origin and origin[0].partition(b"://")[2].lower() != found[b"host"][0].lower():
            raise RefusedError(
                403, f"the request comes from another page, {origin[0][:100].decode('latin-1')!r}."
            )
        if self._token is not None and path not in _OPEN:
            self._check_token(found.get(b"authorization", [b""])[0])

    def _check_host(self, found: dict[bytes, list[bytes]]) -> None:
        host = found.get(b"host", [b""])[0].decode("latin-1")
        name = _host_name(host)
        if name in self._hosts:
            return
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return
        raise RefusedError(
            421,
            f"the request is for the host {host[:100]!r}, which is none of ours. Ask for this machine by its "
            "address, or start musc-edge serve with --allow-host NAME.",
        )

    def _check_token(self, given: bytes) -> None:
        kind, _, value = given.partition(b" ")
        if kind.lower() == b"basic":  # what browsers can ask a person for; any user
            try:
                value = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except ValueError:
                value = b""
        if self._token is None or not hmac.compare_digest(_digest(value.strip()), self._token):
            raise RefusedError(
                401,
                "the token is missing or wrong: expected Authorization: Bearer TOKEN, or it as a password.",
                {"WWW-Authenticate": 'Basic realm="musc-edge", charset="UTF-8"'},
            )


def _digest(token: bytes) -> bytes:
    """Of one length, so that comparing tells nothing about a token's."""
    return hashlib.sha256(token).digest()


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


@dataclass
class Exchange:
    """A request and its answer: what of them has been read and sent."""

    receive: Receive
    send: Send
    has_body: bool
    status: int = 499
    whole: bool = field(default=False, init=False)

    async def read(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.whole = True
        return message

    async def write(self, message: Message) -> None:
        """Send a part of the answer; one that does not want the rest of the body closes the connection."""
        unread = self.has_body and not self.whole
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = [*_HEADERS.items(), *([("connection", "close")] if unread else [])]
            own = {name for name, _ in message.get("headers", [])}
            pairs = [(name.encode(), value.encode()) for name, value in added if name.encode() not in own]
            message = {**message, "headers": [*message.get("headers", []), *pairs]}
        elif unread and not message.get("more_body", False):
            await self.send({**message, "more_body": True})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._drain(), LINGER)
            message = {"type": "http.response.body"}
        await self.send(message)

    async def _drain(self) -> None:
        while not self.whole:
            await self.read()


class Guard:
    """The outermost part of the application.

    Parameters
    ----------
    app : ASGI application
    access : Access
    refuse : callable
        Makes the application that answers a RefusedError.
    observers : tuple of Observer
    """

    def __init__(
        self,
        app: App,
        access: Access,
        refuse: Callable[[RefusedError], App],
        observers: Iterable[Observer],
    ) -> None:
        self._app, self._access, self._refuse = app, access, refuse
        self._observers = tuple(observers)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        has_body = b"transfer-encoding" in names or b"content-length" in names
        exchange = Exchange(receive, send, has_body)
        begun, app = time.monotonic(), self._app
        try:
            self._access.check(scope["path"], scope["headers"])
        except RefusedError as refused:
            app = self._refuse(refused)
        try:
            await app(scope, exchange.read, exchange.write)
        finally:
            for observer in self._observers:
                observer.answered(scope, exchange.status, time.monotonic() - begun)
