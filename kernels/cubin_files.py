"""Cubins in a folder: ``<arch>.cubin.z``, compressed, and ``kernels.json``, which says what they are.

The same in a bundle, which may hold several architectures, and in the device's cache, one folder each.
kernels.json: ``schema_version``; ``source``, the digest of source and options; ``cubins``, for each
architecture the sha256 of its file, the compiler, and each kernel's registers, spilled bytes and stack;
``sha256`` of all this.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .compiler import Compiled
from .errors import KernelError
from .source import arch_number, source_digest

INDEX = "kernels.json"
SUFFIX = ".cubin.z"
_SCHEMA_VERSION = 1
_LARGEST = 1 << 25
"""Bytes of a cubin; one has about 1 << 17."""


@dataclass(frozen=True)
class CubinEntry:
    """What kernels.json says of one cubin."""

    sha256: str
    compiler: str
    kernels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class CubinFolder:
    """A folder of cubins, opened; ``remake`` is the command that makes it anew."""

    path: Path
    source: str
    cubins: dict[str, CubinEntry]
    remake: str

    @property
    def current(self) -> bool:
        """Whether its cubins are of the source that is installed here."""
        return self.source == source_digest()

    def file(self, arch: str) -> Path:
        """The cubin's path."""
        return self.path / f"{arch}{SUFFIX}"

    def read(self, arch: str) -> bytes:
        """The cubin for ``arch``, one of ``cubins``; KernelError unless it is as it was written."""
        path = self.file(arch)
        try:
            packed = path.read_bytes()
        except OSError as error:
            raise KernelError(
                f"{path} cannot be read: {error.strerror}. Make it anew: {self.remake}"
            ) from error
        found, expected = hashlib.sha256(packed).hexdigest(), self.cubins[arch].sha256
        if found != expected:
            raise KernelError(
                f"{path} was changed since it was written: its sha256 is {found[:16]}..., expected "
                f"{expected[:16]}.... Make it anew: {self.remake}"
            )
        unpacker = zlib.decompressobj()
        try:
            code = unpacker.decompress(packed, _LARGEST)
        except zlib.error:
            code = b""
        if not unpacker.eof:
            raise KernelError(
                f"{path} holds no cubin of at most {_LARGEST} bytes. Make it anew: {self.remake}"
            )
        return code


def open_cubins(folder: Path, remake: str) -> CubinFolder | None:
    """The cubins in ``folder``, None if there are none; reads kernels.json alone.

    Raises
    ------
    KernelError
        If kernels.json was changed since it was written, or is of a newer schema.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_bytes())
        expected = content.pop("sha256")
        if content["schema_version"] > _SCHEMA_VERSION:
            raise KernelError(
                f"{path} has schema version {content['schema_version']}; this musc-edge reads "
                f"{_SCHEMA_VERSION}. Upgrade musc-edge, or make it anew: {remake}"
            )
        if _digest(content) != expected:
            raise ValueError(f"its sha256 is not {expected}")
        cubins = {f"sm_{arch_number(arch)}": CubinEntry(**e) for arch, e in content["cubins"].items()}
        return CubinFolder(folder, content["source"], cubins, remake)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KernelError(f"{path} cannot be read: {error.strerror}. Make it anew: {remake}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KernelError(f"{path} is not as it was written ({error}). Make it anew: {remake}") from error


def write_cubins(folder: Path, compiled: Sequence[Compiled]) -> None:
    """Write cubins of this source and their kernels.json into an empty ``folder``, onto the disk itself."""
    cubins = {}
    for each in sorted(compiled, key=lambda each: arch_number(each.arch)):
        packed = zlib.compress(each.code, 9)
        _write(folder / f"{each.arch}{SUFFIX}", packed)
        kernels = {name: asdict(resources) for name, resources in each.kernels.items()}
        cubins[each.arch] = CubinEntry(hashlib.sha256(packed).hexdigest(), each.compiler, kernels)
    content: dict[str, Any] = {
        "schema_version": _SCHEMA_VERSION,
        "source": source_digest(),
        "cubins": {arch: asdict(entry) for arch, entry in cubins.items()},
    }
    content["sha256"] = _digest(content)
    _write(folder / INDEX, (json.dumps(content, indent=2) + "\n").encode())


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a folder is renamed when it is whole, also after a loss of power
