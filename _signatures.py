"""Signatures of small files that name, by sha256, all else that is loaded or executed.

    manifest.json     of a bundle                                        graphs, weights, probe
    kernels.json      of compiled kernels, in a bundle or in the cache   cubins
    NAME.plan.json    of an engine                                       the plan, and the graph that it is of
    proof-....json    of an engine                                       that it gave the bundle's numbers

Beside such a FILE lies FILE.sig: JSON with ``schema_version`` and ``signatures``, each with a ``key``, the
public key's 32 bytes in hex, and a ``signature``, the 64 bytes of ed25519 in hex, of ``statement``.  What is
required where is told by ``demands``.  Imports nothing of the package but other modules of this folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ._files import read_regular, write_whole
from ._json import from_json, shortly
from ._signing_keys import (
    KEY_BYTES,
    PASSPHRASE,
    SIGNATURE_BYTES,
    NoCryptographyError,
    PrivateKey,
    PublicKey,
    SignatureError,
    is_valid,
    read_private_key,
    read_public_keys,
    short_id,
)

BUNDLE, KERNELS, ENGINE, PROOF = "bundle", "kernels", "engine", "proof"
"""Kinds of signed files: a signature of one is none of another."""
REQUIRED = "MUSC_EDGE_REQUIRE_SIGNATURE"
"""The variable with the public keys of which one must have signed, between colons."""
TRUSTED_KEYS = Path("/etc/musc-edge/trusted-keys")
"""The folder of public keys of which one must have signed, on a machine that has this folder."""
DEVICE_KEY = "MUSC_EDGE_DEVICE_KEY"
"""The variable with the private key that signs engines, proofs and kernels as they are made."""
SUFFIX = ".sig"
_SCHEMA_VERSION = 1
_LARGEST = 64_000
"""Bytes: limit of a file of signatures, which has about 300 for each."""
_MOST_SIGNERS = 64


@dataclass(frozen=True)
class Demand:
    """One of the ``keys`` must have signed; ``by`` says who wants it, for messages."""

    by: str
    keys: tuple[PublicKey, ...]


Keys = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Files of public keys, or folders of them; or one."""
Demands = tuple[Demand, ...]
"""Each of them has to be met; none requires no signature."""


@dataclass(frozen=True)
class Signature:
    """An entry of a file of signatures; what is in it may be anybody's."""

    key: str
    signature: str


@dataclass(frozen=True)
class _File:
    """The content of a file of signatures."""

    schema_version: int
    signatures: tuple[Signature, ...]


def statement(kind: str, content: bytes) -> bytes:
    """Return what is signed for a file: that it is of this kind, with its size and sha256."""
    digest = hashlib.sha256(content).hexdigest()
    return f"musc-edge signature 1\nkind {kind}\nbytes {len(content)}\nsha256 {digest}\n".encode()


def signature_path(path: Path) -> Path:
    """Return the file of signatures beside a signed file."""
    return path.with_name(f"{path.name}{SUFFIX}")


# ---- what is required ------------------------------------------------------------------------


def demands(given: Keys | None = None) -> Demands:
    """Return whose signatures are required here.

    ``given`` are files, or folders, of public keys, or one such; None for those of
    ``$MUSC_EDGE_REQUIRE_SIGNATURE``.  Whatever they are, those of ``TRUSTED_KEYS`` are required as well where
    there is such a folder.

    Raises
    ------
    SignatureError
        If a key cannot be used, or there is none; NoCryptographyError without cryptography.
    """
    found = []
    try:
        TRUSTED_KEYS.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # what cannot be looked at may be there
        raise SignatureError(
            f"{TRUSTED_KEYS} cannot be looked at ({error.strerror}), so that nobody knows whether a "
            f"signature is required here. Let this user look into the folders above it: chmod a+rx"
        ) from error
    else:
        found.append(_demand(str(TRUSTED_KEYS), [TRUSTED_KEYS]))
    if given is not None:
        places = [given] if isinstance(given, str | os.PathLike) else given
        found.append(_demand("require_signature", [Path(place) for place in places]))
    elif (named := os.environ.get(REQUIRED)) is not None:
        found.append(
            _demand(
                f"--require-signature (${REQUIRED})", [Path(each) for each in named.split(os.pathsep) if each]
            )
        )
    return tuple(found)


def _demand(by: str, places: Sequence[Path]) -> Demand:
    if not places:
        raise SignatureError(f"{by} is empty: expected the file of a public key, or a folder of such files.")
    try:
        return Demand(by, tuple(key for place in places for key in read_public_keys(place)))
    except NoCryptographyError as error:
        raise NoCryptographyError(f"{by} requires a signature, which cannot be checked: {error}") from error
    except SignatureError as error:
        raise SignatureError(f"{by}: {error}") from error


def require_signed(path: Path, content: bytes, kind: str, wanted: Demands) -> None:
    """Raise SignatureError unless each demand is met by a signature of ``content``, read from ``path``."""
    if not wanted:
        return
    signed, found = statement(kind, content), read_signatures(path)
    for demand in wanted:
        known = {key.raw.hex() for key in demand.keys}
        candidates = [each for each in found if each.key in known]
        if not any(fits(each, signed) for each in candidates):
            raise SignatureError(_reason(path, demand, found, candidates))


def fits(entry: Signature, signed: bytes) -> bool:
    """Return whether an entry is a signature of the statement ``signed`` by the key that it names."""
    return is_valid(bytes.fromhex(entry.key), bytes.fromhex(entry.signature), signed)


def _reason(path: Path, demand: Demand, found: Sequence[Signature], candidates: Sequence[Signature]) -> str:
    keys = " or ".join(map(str, demand.keys))
    if candidates:
        return (
            f"{path} was changed since it was signed: the signature in {signature_path(path)} by {keys} does "
            "not fit. Copy it again from whoever signed it; sign it again only if you know what changed."
        )
    if found:
        others = ", ".join(short_id(bytes.fromhex(each.key)) for each in found)
        what = f"is signed by {others} alone"
    else:
        what = f"is not signed: there is no {signature_path(path).name} beside it"
    return (
        f"{path} {what}, and {demand.by} requires a signature by {keys}. Whoever has the private key signs "
        "it with: musc-export sign BUNDLE --key KEY.pem"
    )


# ---- files of signatures ---------------------------------------------------------------------


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """Read the signatures of the file ``path``, whoever made them; none if there is no file of them.

    Raises
    ------
    SignatureError
        If there is one that cannot be read, or is malformed.
    """
    file = signature_path(path)
    try:
        text = read_regular(file, _LARGEST, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise SignatureError(f"the signatures {file} cannot be read: {error.strerror}.") from error
    try:
        return _parse(text)
    except (ValueError, RecursionError) as error:
        raise SignatureError(
            f"{file} is no file of signatures ({shortly(str(error), 200)}). Copy it again, or remove it and "
            "sign again: musc-export sign"
        ) from error


def _parse(text: bytes) -> tuple[Signature, ...]:
    data = json.loads(text, object_pairs_hook=_once)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > _SCHEMA_VERSION:
        raise ValueError(f"schema version {shortly(version)}, of a newer musc-edge than this; upgrade it")
    file: _File = from_json(_File, data, "it")
    keys = [each.key for each in file.signatures]
    if file.schema_version != _SCHEMA_VERSION or len(keys) > _MOST_SIGNERS or len(set(keys)) < len(keys):
        raise ValueError(
            f"schema version {shortly(file.schema_version)} and {len(keys)} signatures by {len(set(keys))} "
            f"keys: expected {_SCHEMA_VERSION}, and at most {_MOST_SIGNERS} signatures, each by another key"
        )
    for each in file.signatures:
        _require_hex(each.key, KEY_BYTES)
        _require_hex(each.signature, SIGNATURE_BYTES)
    return file.signatures


def _require_hex(text: str, count: int) -> None:
    if not re.fullmatch("[0-9a-f]*", text) or len(text) != 2 * count:
        raise ValueError(f"{shortly(text)}: expected {2 * count} small hexadecimal digits")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object whose names are all different: libraries differ in which of two they take."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"a name twice among {shortly(names)}")
    return dict(pairs)


# ---- signing ---------------------------------------------------------------------------------


def sign(path: Path, content: bytes, kind: str, key: PrivateKey) -> None:
    """Add a signature of ``content``, which is that of ``path``, to those beside it.

    Other signers' stay as far as they fit this content.

    Raises
    ------
    SignatureError
        If what is there is malformed.
    OSError
        If it cannot be written.
    """
    signed = statement(kind, content)
    with _locked(path.parent):
        kept = [each for each in read_signatures(path) if each.key != key.raw.hex() and fits(each, signed)]
        _write(path, [*kept, Signature(key.raw.hex(), key.sign(signed).hex())])


def write_signed(path: Path, content: bytes, kind: str, mode: int) -> None:
    """Write a file that this machine made, signed with the device's key if it has one.

    Raises
    ------
    SignatureError
        If the device's key cannot be used; nothing is written then.
    OSError
        If it cannot be written.
    """
    key = device_key()
    with suppress(FileNotFoundError):
        signature_path(path).unlink()  # those of the file whose place this takes
    write_whole(path, content, mode)
    if key:
        _write(path, [Signature(key.raw.hex(), key.sign(statement(kind, content)).hex())])


def device_key() -> PrivateKey | None:
    """Read this device's private key, of ``$MUSC_EDGE_DEVICE_KEY``; None without one."""
    name = os.environ.get(DEVICE_KEY)
    return read_private_key(Path(name), os.environ.get(PASSPHRASE)) if name else None


def _write(path: Path, entries: Sequence[Signature]) -> None:
    content = {"schema_version": _SCHEMA_VERSION, "signatures": [asdict(each) for each in entries]}
    write_whole(signature_path(path), (json.dumps(content, indent=2) + "\n").encode(), 0o644)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time add signatures in a folder, or one could undo another's."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
