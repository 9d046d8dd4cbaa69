"""A server that takes webhooks and answers as a test says."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any


@dataclass(frozen=True)
class Post:
    """A request that came."""

    headers: Message
    body: bytes
    path: str

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


class HttpReceiver:
    """Answers with what is in ``answers``, one after another, and then with 204.

    An answer is a status with headers; RESET ends the connection after the request was read, HANG does not
    answer until the block of the ``with`` ends, NOISE is no HTTP.  ``name`` is that of its certificate.
    """

    RESET, HANG, NOISE = -1, -2, -3

    def __init__(
        self,
        *answers: int | tuple[int, dict[str, str]],
        certificates: Path | None = None,
        name: str = "server",
    ) -> None:
        self.answers, self.posts = list(answers), list[Post]()
        self.port = 0
        self._certificates, self._name = certificates, name
        self.reopen()
        self.url = f"{'https' if certificates else 'http'}://127.0.0.1:{self.port}"

    def reopen(self) -> None:
        """Listen again, at the same port; to be followed by another ``with``."""
        self._end = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port = self._server.server_address[1]
        if folder := self._certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / f"{self._name}.pem", folder / f"{self._name}.key")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> HttpReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def events(self) -> list[str]:
        """The ids of the requests that came, in order."""
        return [post.headers["webhook-id"] for post in list(self.posts)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts.append(Post(self.headers, body, self.path))
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        answer = self.answers.pop(0) if self.answers else 204
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        if status == self.HANG:
            self._end.wait()
        elif status == self.RESET:
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
        elif status == self.NOISE:
            request.wfile.write(b"what?\r\n")
        else:
            request.send_response(status)
            for name, value in {"Content-Length": "0" if status == 204 else "4", **headers}.items():
                request.send_header(name, value)
            request.end_headers()
            if status != 204:
                request.wfile.write(b"said")
