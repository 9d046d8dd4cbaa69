"""Ed25519 keys in PEM files, as openssl and ``musc-export keygen`` write them.

A public key says whose signatures are believed: a file or folder that others could write is refused.  A
private key signs: one that others could read is refused.  The package cryptography, of the extra [sign], is
imported where a key is read or made.  Imports nothing of the package but ``_extras`` and ``_files``.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ._extras import install
from ._files import read_regular, shown, way_to

PASSPHRASE = "MUSC_EDGE_KEY_PASSPHRASE"
"""The variable with the passphrase of an encrypted private key."""
KEY_BYTES, SIGNATURE_BYTES = 32, 64
_LARGEST = 64_000
"""Bytes: limit of a file with a key, which usually has about 120."""
_PUBLIC = "a PEM file that begins with -----BEGIN PUBLIC KEY-----"
_PRIVATE = "a PEM file that begins with -----BEGIN PRIVATE KEY----- or -----BEGIN ENCRYPTED PRIVATE KEY-----"
_NEW = "musc-export keygen -o KEY.pem"


class SignatureError(Exception):
    """A signature that is required is missing or does not fit, or a key cannot be used."""


class _Library(NamedTuple):
    """The modules of cryptography."""

    ed25519: Any
    serialization: Any


class NoCryptographyError(SignatureError):
    """The package that makes and checks signatures is not installed."""


@dataclass(frozen=True)
class PublicKey:
    """A public key: its 32 bytes, and the file that it is from."""

    raw: bytes
    path: Path

    def __str__(self) -> str:
        return f"{shown(str(self.path))} ({short_id(self.raw)})"


@dataclass(frozen=True)
class PrivateKey:
    """A private key, and the 32 bytes of its public one."""

    raw: bytes
    _key: Any

    def sign(self, statement: bytes) -> bytes:
        """Return the signature of ``statement``, 64 bytes."""
        signature: bytes = self._key.sign(statement)
        return signature


def short_id(raw: bytes) -> str:
    """A public key's first half in hex, by which people tell keys apart."""
    return raw.hex()[:32]


def is_valid(raw: bytes, signature: bytes, statement: bytes) -> bool:
    """Return whether ``signature`` is that of ``statement`` by the public key ``raw``.

    Raises
    ------
    NoCryptographyError
        If cryptography is not installed.
    """
    ed25519 = _library().ed25519
    from cryptography.exceptions import InvalidSignature

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, statement)
    except (InvalidSignature, ValueError):  # the latter if those bytes are no key
        return False
    return True


def read_public_keys(place: Path) -> tuple[PublicKey, ...]:
    """Read a public key, or all ``*.pem`` of a folder.

    Raises
    ------
    SignatureError
        If one cannot be read, is no public key of ed25519, or could be replaced by others, or there is none.
    """
    try:
        files = sorted(place.glob("*.pem")) if place.is_dir() else None
    except OSError as error:
        raise _unreadable(place, error, _PUBLIC) from error
    if files is None:
        return (_read_public_key(place),)
    if not files:
        raise SignatureError(f"{place} holds no public key: expected files such as maker.pub.pem in it.")
    return tuple(_read_public_key(file) for file in files)


def read_private_key(path: Path, passphrase: str | None = None) -> PrivateKey:
    """Read a private key.

    Raises
    ------
    SignatureError
        If it cannot be read, is no private key of ed25519, others may read it, or the passphrase is wrong.
    """
    text = _read(path, _PRIVATE)
    if b"PRIVATE KEY-----" not in text:
        raise SignatureError(f"{path} holds no private key: expected {_PRIVATE}. Make one: {_NEW}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise SignatureError(
            f"{path} is not used: others than its owner may read or write it (mode {mode:04o}). Make a new "
            f"key if they had the time to, else: chmod 600 {path}"
        )
    if is_encrypted(text) and not passphrase:
        raise SignatureError(f"{path} is encrypted, and no passphrase was given: set ${PASSPHRASE}.")
    library = _library()
    try:
        key = library.serialization.load_pem_private_key(
            text, passphrase.encode() if is_encrypted(text) and passphrase else None
        )
    except Exception as error:  # of several classes, for damage, a wrong passphrase and unknown algorithms
        what = "the passphrase is wrong, or the file damaged" if is_encrypted(text) else str(error)
        raise SignatureError(
            f"{path} cannot be used ({what}): expected {_PRIVATE}. Make one: {_NEW}"
        ) from error
    if not isinstance(key, library.ed25519.Ed25519PrivateKey):
        raise SignatureError(f"{path} is no key of ed25519, but {_kind(key)}. Make one: {_NEW}")
    raw: bytes = key.public_key().public_bytes_raw()
    return PrivateKey(raw, key)


def is_encrypted(text: bytes) -> bool:
    """Return whether a private key, the content of its file, takes a passphrase."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in text


def new_key(path: Path, passphrase: str | None = None) -> PublicKey:
    """Make a pair of keys: the private one in ``path``, the public one in ``public_path(path)``.

    Raises
    ------
    NoCryptographyError
        If cryptography is not installed.
    OSError
        If they cannot be written, or one of the two is there already; none is left behind then.
    """
    library, public = _library(), public_path(path)
    form = library.serialization
    for each in (path, public):
        if os.path.lexists(each):
            raise FileExistsError(errno.EEXIST, "it exists, and a key is never replaced", str(each))
    key = library.ed25519.Ed25519PrivateKey.generate()
    how = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
    pem, pkcs8 = form.Encoding.PEM, form.PrivateFormat.PKCS8
    _write_new(path, key.private_bytes(pem, pkcs8, how), 0o600)
    text = key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)
    try:
        _write_new(public, text, 0o644)
    except BaseException:
        _remove(path)
        raise
    return PublicKey(key.public_key().public_bytes_raw(), public)


def public_path(path: Path) -> Path:
    """Return the file of the public key beside a private one: key.pem -> key.pub.pem."""
    return path.with_name(f"{path.stem}.pub{path.suffix}")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    """Remove what was just made and is not whole."""
    with suppress(OSError):
        path.unlink()


def _read_public_key(path: Path) -> PublicKey:
    _require_own(path)
    text = _read(path, _PUBLIC)
    if b"PRIVATE KEY-----" in text:
        raise SignatureError(
            f"{path} holds a private key, which stays with whoever signs. Take the public one: "
            f"openssl pkey -in {path} -pubout -out {public_path(path)}"
        )
    if text.count(b"-----BEGIN") != 1 or b"-----BEGIN PUBLIC KEY-----" not in text:
        raise SignatureError(f"{path} is not one public key: expected {_PUBLIC}, and one key in each file.")
    library = _library()
    try:
        key = library.serialization.load_pem_public_key(text)
    except Exception as error:  # of several classes, for damage and unknown algorithms
        raise SignatureError(f"{path} cannot be used ({error}): expected {_PUBLIC}.") from error
    if not isinstance(key, library.ed25519.Ed25519PublicKey):
        raise SignatureError(f"{path} is no key of ed25519, but {_kind(key)}. Make one: {_NEW}")
    return PublicKey(key.public_bytes_raw(), path)


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_regular(path, _LARGEST)
    except OSError as error:
        raise _unreadable(path, error, expected) from error


def _unreadable(path: Path, error: OSError, expected: str) -> SignatureError:
    return SignatureError(f"the key {path} cannot be read: {error.strerror}. Expected {expected}.")


def _require_own(path: Path) -> None:
    """Raise SignatureError if others than this user and root could put another key in a key's place."""
    try:
        reason = way_to(path)
    except OSError as error:
        raise _unreadable(path, error, _PUBLIC) from error
    if reason:
        raise SignatureError(
            f"the key {path} is not believed: {reason}, so that others could have put theirs in its place. "
            "Let nobody else write it (chmod go-w, chown), or copy it to where nobody else can write."
        )


def _kind(key: object) -> str:
    return type(key).__name__.lstrip("_")


def _library() -> _Library:
    """Import what is needed of cryptography; NoCryptographyError with what to install if it is missing."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise NoCryptographyError(
            f"cryptography, which makes and checks signatures, cannot be imported ({error}). Install it "
            f"with: {install('sign')}"
        ) from error
    return _Library(ed25519, serialization)
