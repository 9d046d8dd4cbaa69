"""Cubins in a folder: ``<arch>.cubin.z``, compressed, and ``kernels.json``, which describes them.

The format is the same in a bundle, which may hold several architectures, and in the device's cache, which
has a folder for each.
kernels.json: ``schema_version``; ``source``, the digest of source and options; ``cubins``, for each
architecture the sha256 of its file, the compiler, and each kernel's registers, spilled bytes and stack;
``sha256`` of all this.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._files import read_regular, write_whole
from .._json import from_json, parse_json, shortly
from .._signatures import KERNELS, Demands, require_signed, write_signed
from .._signing_keys import SignatureError
from .compiler import Compiled
from .cuda_source import arch_number, source_digest
from .errors import KernelError, UnsignedKernelsError

INDEX = "kernels.json"
SUFFIX = ".cubin.z"
_SCHEMA_VERSION = 1
_LARGEST = 1 << 25
"""Bytes: limit of a cubin, which usually has about 1 << 17."""
_LARGEST_INDEX = 1_000_000
"""Bytes: limit of kernels.json, which usually has about 10,000."""


@dataclass(frozen=True)
class CubinEntry:
    """The entry of one cubin in kernels.json."""

    sha256: str
    compiler: str
    kernels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Index:
    """The content of kernels.json."""

    schema_version: int
    source: str
    cubins: dict[str, CubinEntry]
    sha256: str


@dataclass(frozen=True)
class CubinFolder:
    """An opened folder of cubins; ``remake`` is the command that makes it anew."""

    path: Path
    source: str
    cubins: dict[str, CubinEntry]
    remake: str

    @property
    def current(self) -> bool:
        """True if its cubins were compiled from the source that is installed here."""
        return self.source == source_digest()

    def file(self, arch: str) -> Path:
        """Return the path of a cubin."""
        return self.path / f"{arch}{SUFFIX}"

    def read(self, arch: str) -> bytes:
        """Read the cubin for ``arch``; KernelError if there is none, or it is not as it was written."""
        path = self.file(arch)
        if arch not in self.cubins:
            raise KernelError(f"{self.path} holds no cubin for {arch}. Make it anew: {self.remake}")
        try:
            packed = read_regular(path, _LARGEST)
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
        # Unpacked only up to a limit: a few bytes can unpack to any number of gigabytes.
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


def open_cubins(folder: Path, remake: str, wanted: Demands = ()) -> CubinFolder | None:
    """Open the cubins in ``folder``, None if there are none; reads only kernels.json.

    Raises
    ------
    UnsignedKernelsError
        If kernels.json is not signed as ``wanted``.
    KernelError
        If kernels.json was changed since it was written, or is of a newer schema.
    """
    path = folder / INDEX
    try:
        text = read_regular(path, _LARGEST_INDEX)
        require_signed(path, text, KERNELS, wanted)
        content = parse_json(text)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > _SCHEMA_VERSION:
            raise KernelError(
                f"{path} has schema version {shortly(version)}; this musc-edge reads "
                f"{_SCHEMA_VERSION}. Upgrade musc-edge, or make it anew: {remake}"
            )
        index: _Index = from_json(_Index, content, INDEX)
        del content["sha256"]
        if _digest(content) != index.sha256:
            raise ValueError(f"its sha256 is not {shortly(index.sha256)}")
        for arch in index.cubins:
            arch_number(arch)  # part of the name of a file: nothing else may stand there
        return CubinFolder(folder, index.source, index.cubins, remake)
    except SignatureError as error:
        raise UnsignedKernelsError(str(error)) from error
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KernelError(f"{path} cannot be read: {error.strerror}. Make it anew: {remake}") from error
    except ValueError as error:
        raise KernelError(f"{path} is not as it was written ({error}). Make it anew: {remake}") from error


def write_cubins(folder: Path, compiled: Sequence[Compiled]) -> None:
    """Write cubins of this source and their kernels.json into an empty ``folder``, through to the disk.

    Other users cannot write the files, whatever the umask.  They are signed if this device has a key.

    Raises
    ------
    UnsignedKernelsError
        If that key cannot be used.
    OSError
        If they cannot be written.
    """
    cubins = {}
    for each in sorted(compiled, key=lambda each: arch_number(each.arch)):
        packed = zlib.compress(each.code, 9)
        write_whole(folder / f"{each.arch}{SUFFIX}", packed, 0o644)
        kernels = {name: asdict(resources) for name, resources in each.kernels.items()}
        cubins[each.arch] = CubinEntry(hashlib.sha256(packed).hexdigest(), each.compiler, kernels)
    content: dict[str, Any] = {
        "schema_version": _SCHEMA_VERSION,
        "source": source_digest(),
        "cubins": {arch: asdict(entry) for arch, entry in cubins.items()},
    }
    content["sha256"] = _digest(content)
    try:
        write_signed(folder / INDEX, (json.dumps(content, indent=2) + "\n").encode(), KERNELS, 0o644)
    except SignatureError as error:
        raise UnsignedKernelsError(f"the kernels in {folder} cannot be signed: {error}") from error


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
