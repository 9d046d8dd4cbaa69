"""The bytes of an image as they come over the network: into a file in memory, within limits.

A file, since ``read_image`` and all that it checks before a decoder sees anything take files; in memory
(memfd), since nothing of an image need touch the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from starlette.requests import ClientDisconnect, Request

from .forms import FormImage
from .openapi import FORM
from .refused import ClientGoneError, RefusedError, busy

_MOST_DIGITS = 18
_BINARY = ("image/", "application/octet-stream")


class Body:
    """A file in memory with the bytes of an image; a context manager.

    Attributes
    ----------
    name : str
        What a form calls the file; else empty.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("image", os.MFD_CLOEXEC)
        self._hash = hashlib.sha256()
        self.name = ""

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def path(self) -> Path:
        """By which this process can open the file, until it is closed."""
        return Path(f"/proc/self/fd/{self._file}")

    @property
    def digest(self) -> str:
        """Hex sha256 of the bytes."""
        return self._hash.hexdigest()

    def write(self, piece: bytes) -> None:
        """Append to the file."""
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._file, view) :]


@dataclass
class Intake:
    """Takes the bodies of requests, each within ``most`` bytes and ``seconds``, all within ``room`` bytes."""

    most: int
    seconds: float
    room: int
    _held: int = 0

    def check(self, request: Request) -> None:
        """Refuse a body by its headers, before any of it is read."""
        kind = _kind(request)
        if kind and kind != FORM and not kind.startswith(_BINARY):
            raise RefusedError(
                415,
                f"a body of the type {kind}: expected the bytes of an image, with a Content-Type such as "
                f"image/png, or a form ({FORM}) with one file.",
            )
        coding = request.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise RefusedError(
                415, f"a body with the Content-Encoding {coding}: expected the bytes as they are."
            )
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or len(declared) > _MOST_DIGITS or int(declared) > self.most:
            raise self._too_large()

    async def take(self, request: Request) -> Body:
        """Read the body.

        Raises
        ------
        RefusedError
            If it is too large, comes too slowly, is no form though it says so, or too much is being read.
        ClientGoneError
            If it ends before it is whole.
        """
        body = Body()
        try:
            await asyncio.wait_for(self._fill(body, request), self.seconds)
        except BaseException as error:
            body.close()
            if isinstance(error, ClientDisconnect):
                raise ClientGoneError from error
            if isinstance(error, asyncio.TimeoutError):
                raise RefusedError(408, f"the body was not there after {self.seconds:g} s.") from error
            raise
        return body

    async def _fill(self, body: Body, request: Request) -> None:
        form = FormImage(request.headers["content-type"], body.write) if _kind(request) == FORM else None
        async for piece in self._pieces(request):
            (form.feed if form else body.write)(piece)
        if form:
            body.name = form.end()

    async def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for piece in request.stream():
                size, self._held = size + len(piece), self._held + len(piece)
                if size > self.most:
                    raise self._too_large()
                if self._held > self.room:
                    raise busy("too many images are being received at once", 1)
                yield piece
        finally:
            self._held -= size

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the body is larger than {self.most} bytes, the limit (--max-body).")


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
