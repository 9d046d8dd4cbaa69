"""``musc-edge serve`` in a process of its own, and a client for it that sends what it is told to."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.forks import Forked
from support.places import listen_to_interrupts
from support.references import part

PATIENCE = 60
"""Seconds after which what has not come is given up: far more than it takes."""

MOST = 300_000
"""Bytes that the server of the tests takes as a body."""

START = "import sys; from musc_edge.tools.edge import main; sys.exit(main())"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A server that runs; ``log`` is the file that it writes to."""

    process: subprocess.Popen[bytes] | Forked
    address: str
    log: Path

    @property
    def host(self) -> tuple[str, int]:
        name, port = re.findall(r"//(.*):(\d+)", self.address)[0]
        return name.strip("[]"), int(port)

    def connection(self) -> http.client.HTTPConnection:
        if self.address.startswith("https"):
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection(*self.host, timeout=PATIENCE, context=context)
        return http.client.HTTPConnection(*self.host, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Ask on a connection of its own; ``x_y`` becomes the header x-y."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self.connection()
        try:
            connection.request(method, path, body, named)
            return read(connection)
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def check(self, image: bytes, path: str = "/v1/check", **headers: str) -> Answer:
        return self.ask("POST", path, image, **{"content_type": "image/png", **headers})

    def raw(self, *pieces: bytes) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes the connection."""
        with socket.create_connection(self.host, timeout=PATIENCE) as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_all(connection)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def read(connection: http.client.HTTPConnection) -> Answer:
    """The answer to a request."""
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, answer.read())


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def encoded(seed: int, spot: float = 0, kind: str = "PNG") -> bytes:
    """A file of a part."""
    content = io.BytesIO()
    part(seed, spot).save(content, kind)
    return content.getvalue()


def form(content: bytes, name: str = "a.png", boundary: str = "xx") -> bytes:
    """A form with a file."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


@contextmanager
def serving(*arguments: object, before: str = "", new: bool = False) -> Iterator[Server]:
    """A server, killed at the end of the block; ``before`` is Python that its process runs first.

    It is forked, as ``support.forks`` does, unless a ``new`` Python is asked for.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        command = [sys.executable, "-c", f"{before}\n{START}", "serve", "--port", "0", *map(str, arguments)]
        with _started(command, log.fileno(), new) as (process, line):
            found = re.search(r"serving at (\S+)/$", line.strip())
            assert found, line + Path(log.name).read_text(encoding="utf-8")
            yield Server(process, found[1], Path(log.name))


@contextmanager
def _started(
    command: list[str], log: int, new: bool
) -> Iterator[tuple[subprocess.Popen[bytes] | Forked, str]]:
    """The process, killed at the end of the block, and the first line that it prints."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as printed, ExitStack() as running:
        process: subprocess.Popen[bytes] | Forked
        if new:
            process = running.enter_context(subprocess.Popen(command, stdout=write_end, stderr=log))
            running.callback(process.kill)
        else:
            forked = Forked(command, out=write_end, err=log, prepare=listen_to_interrupts)
            process = running.enter_context(forked)
        os.close(write_end)
        yield process, printed.readline().decode()
