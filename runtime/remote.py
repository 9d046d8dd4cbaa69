"""Lots at URLs, such as s3://bucket/lot, read through fsspec and what it has for each protocol.

Nothing is kept of them: of a file that is looked at a few blocks are read, and one that is decoded is fetched
whole into a scratch file without a name, gone when it is closed.  Credentials are the backend's own business.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._extras import install
from .._numbers import size_text
from .errors import DeviceError, LotError, MuscEdgeError, OutputError

_SHARE = 0.5
"""Share of the free disk that a file may take while it is decoded."""
LANES = 8
"""Files that are asked for at once: most of their time servers are waited for."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[^/]*)*://")
_CHANGES = (
    *("ETag", "etag", "VersionId", "generation", "md5Hash", "content_md5", "Content-MD5", "Digest"),
    *("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created", "ino"),
)
"""What servers say of a file that is another when the file is; in the words of fsspec's backends."""


def is_url(text: object) -> bool:
    """Whether a lot that is given is a URL, not a folder."""
    return isinstance(text, str) and _URL.match(text) is not None


def was_url(path: Path) -> bool:
    """Whether a path was made of a URL, and is not there: paths have one slash where it had two."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None and not path.exists()


def protocol_of(url: str) -> str:
    """What stands before the rest of a URL, which may hold a password."""
    return url.partition(":")[0]


@dataclass(frozen=True)
class RemoteFolder:
    """The lot at a URL, which has no password: lists of files, reports and lot.json show it."""

    url: str

    @classmethod
    def of(cls, url: str) -> RemoteFolder:
        """Take a URL; LotError, which does not show it, if it holds a secret or more than one protocol."""
        protocol, _, rest = url.partition("://")
        if _holds_secret(protocol, rest):
            raise LotError(
                f"the URL {protocol}://... holds a password or a signature, which would stand in results and "
                "lists of processes. Give credentials as the protocol's own programs take them: by its "
                "environment variables or configuration files (docs/urls.md)."
            )
        if "::" in protocol or "://" in rest:
            raise LotError(f"{url} names several protocols: expected one, as in s3://bucket/lot.")
        return cls(url.rstrip("/") if rest.strip("/") else url)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2] or "lot"

    def file(self, name: str) -> RemoteFile:
        """The file of a name below the URL."""
        return RemoteFile(self, name)

    def list(self) -> dict[str, Mapping[str, Any]]:
        """What the server says of each file below the URL, by its name.

        Raises
        ------
        LotError
            If there are none, or they cannot be listed.
        DeviceError
            If what reads the protocol is not installed.
        """
        system, root = _opened(self.url)
        try:
            found = system.find(root, detail=True)
        except Exception as error:  # backends raise anything at all
            raise LotError(f"{self} cannot be listed: {_said(error)} {_HINT}") from error
        files = {key: info for key, info in found.items() if info.get("type") != "directory"}
        if not files:
            raise LotError(f"there is nothing at {self}: no bucket or folder of this name, or no file in it.")
        if root in files:
            raise LotError(f"{self} is a file, not a folder. Give the folder that holds the lot's images.")
        start = len(root.rstrip("/")) + 1
        return {key[start:]: info for key, info in files.items()}


@dataclass(frozen=True)
class RemoteFile:
    """A file below a URL; ``key`` is its name there."""

    folder: RemoteFolder
    key: str

    def __str__(self) -> str:
        return f"{self.folder.url.rstrip('/')}/{self.key}"

    @property
    def name(self) -> str:
        """The last part of its name."""
        return posixpath.basename(self.key)

    def stamp(self) -> tuple[int, int]:
        """A number that is another when the file is, as far as the server says, and its size in bytes.

        Raises
        ------
        OSError
            If it is not there, or the server cannot be asked.
        """
        with _as_os_error():
            system, place = self._place()
            info = system.info(place)
        said = repr([(word, _plain(info[word])) for word in _CHANGES if info.get(word)])
        number = int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "big") >> 1
        return number, int(info.get("size") or 0)

    def part(self, start: int, stop: int) -> bytes | None:
        """Bytes ``start`` to ``stop``; None if the server gives others, such as all of them; OSError."""
        with _as_os_error():
            system, place = self._place()
            content: bytes = system.cat_file(place, start=start, end=stop)
        return content if len(content) == stop - start else None

    def fetch(self) -> tuple[int, tuple[int, int]]:
        """Fetch the file into one without a name: its descriptor, and the stamp of what was fetched.

        Raises
        ------
        OSError
            If it is not there, cannot be fetched, or comes incomplete.
        OutputError
            If the folder for temporary files is full.
        """
        with tempfile.TemporaryFile(prefix="musc-") as file:
            with _as_os_error(), self._room():
                system, place = self._place()
                system.get_file(place, f"/proc/self/fd/{file.fileno()}")
            # Asked for behind: it is that of the file before as well, or one that nobody knows.
            stamp = self.stamp()
            got = os.fstat(file.fileno()).st_size
            if stamp[1] != got:
                raise OSError(errno.EREMOTEIO, f"{got} bytes came, of {stamp[1]}")
            return os.dup(file.fileno()), stamp

    def why_too_large(self, size: int) -> str | None:
        """The reason why a file of so many bytes cannot be fetched, or None."""
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if size <= _SHARE * free:
            return None
        return f"{size_text(size)} to fetch, and {size_text(free)} are free in {folder}"

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Say where a file was to go that found no room."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(
                    f"{self} does not fit into {tempfile.gettempdir()}: {error.strerror}. Make room there, "
                    "or set TMPDIR to another folder."
                ) from error
            raise

    def _place(self) -> tuple[Any, str]:
        system, root = _opened(self.folder.url)
        return system, f"{root.rstrip('/')}/{self.key}"


_HINT = "Check the URL, the network, and the credentials in this protocol's environment variables or files."


@lru_cache(64)
def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, one for all threads, and the URL's place there."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"the lot is at a URL, {url}, and fsspec is not installed ({error}). Install it with: "
            f"{install('remote')}, here and on every machine of a cluster."
        ) from error
    try:
        # Without a cache of its own it tells of changes.
        found: tuple[Any, str] = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise DeviceError(
            f"{url} is read by a library that is not installed ({error}). {install('remote')} brings s3fs, "
            "for s3:// and http(s)://; install those of other protocols, such as gcsfs or adlfs, beside it."
        ) from error
    except Exception as error:
        raise LotError(f"{url} cannot be opened: {_said(error)} {_HINT}") from error
    return found


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Turn what a backend raises in the block, anything at all, into OSError with a number and words."""
    try:
        yield
    except MuscEdgeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        known: dict[type[Exception], int] = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
        number = known.get(type(error), errno.EREMOTEIO)
        raise OSError(number, _said(error) if number == errno.EREMOTEIO else os.strerror(number)) from error


def _plain(value: object) -> object:
    """A time as a number, the same in all time zones; all else as text."""
    return value.timestamp() if isinstance(value, datetime) else str(value)


def _holds_secret(protocol: str, rest: str) -> bool:
    """Whether what follows a URL's protocol has a user's password, or a query, which may be a signature."""
    host = rest.partition("/")[0]
    user, at, place = host.rpartition("@")
    port = place.rpartition(":")[2] if ":" in place and not place.endswith("]") else "0"
    web = protocol.lower() in ("http", "https")
    # A password with a slash in it would end the host.
    return ":" in user or not port.isdigit() or (web and (bool(at) or "?" in rest))


def _said(error: BaseException) -> str:
    words = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {words}." if words else f"{type(error).__name__}."
