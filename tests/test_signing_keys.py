"""Files of keys: those of openssl and of this package are read, everything else is refused with a reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from musc_edge._signatures import BUNDLE, device_key, sign, signature_path, statement
from musc_edge._signing_keys import (
    NoCryptographyError,
    SignatureError,
    is_valid,
    new_key,
    public_path,
    read_private_key,
    read_public_keys,
)
from support.signing import new_pair

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")

Kinds = dict[str, Callable[[Path], Any]]


def openssl(*arguments: str, **options: Any) -> bytes:
    """Run openssl, which is skipped where there is none."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, a package of Debian, is not installed")
    output: bytes = subprocess.run(["openssl", *arguments], capture_output=True, check=True, **options).stdout
    return output


def pem(path: Path, private: object = None, public: object = None) -> Path:
    """Write a key of any algorithm into a file."""
    from cryptography.hazmat.primitives import serialization as form

    key: Any = private or public
    if private:
        how = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        path.write_bytes(key.private_bytes(*how))
    else:
        path.write_bytes(key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    path.chmod(0o600)
    return path


# ---- keys that are read ----------------------------------------------------------------------


def test_a_new_pair(tmp_path: Path) -> None:
    made = new_key(tmp_path / "maker.pem")
    private, public = tmp_path / "maker.pem", tmp_path / "maker.pub.pem"
    assert (made.path, public_path(private)) == (public, public)
    assert (private.stat().st_mode & 0o777, public.read_bytes()[:26]) == (
        0o600,
        b"-----BEGIN PUBLIC KEY-----",
    )
    key = read_private_key(private)
    assert read_public_keys(public) == (made,)
    assert key.raw == made.raw
    assert is_valid(made.raw, key.sign(b"text"), b"text")
    assert not is_valid(made.raw, key.sign(b"text"), b"Text")
    assert not is_valid(b"\xff" * 32, key.sign(b"text"), b"text")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_can_read_a_new_key(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        new_key(tmp_path / "maker.pem")
    finally:
        os.umask(before)
    assert (tmp_path / "maker.pem").stat().st_mode & 0o077 == 0
    assert (tmp_path / "maker.pub.pem").stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("there", ["maker.pem", "maker.pub.pem"])
def test_a_key_is_never_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=f"a key is never replaced.*{there}"):
        new_key(tmp_path / "maker.pem")
    assert [path.name for path in tmp_path.iterdir()] == [there]


@pytest.mark.parametrize("fails", [1, 2])
def test_a_full_disk_leaves_no_half_of_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fails:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        new_key(tmp_path / "maker.pem")
    assert (len(calls), list(tmp_path.iterdir())) == (fails, [])


def test_a_passphrase(tmp_path: Path) -> None:
    made = new_key(tmp_path / "maker.pem", "as long as the night")
    assert b"ENCRYPTED" in (tmp_path / "maker.pem").read_bytes()
    assert read_private_key(tmp_path / "maker.pem", "as long as the night").raw == made.raw
    with pytest.raises(SignatureError, match=r"set \$MUSC_EDGE_KEY_PASSPHRASE"):
        read_private_key(tmp_path / "maker.pem")
    with pytest.raises(SignatureError, match="the passphrase is wrong") as raised:
        read_private_key(tmp_path / "maker.pem", "as long as the day")
    assert "as long" not in str(raised.value)


def test_keys_of_openssl_and_a_signature_that_it_checks(tmp_path: Path) -> None:
    private, public = tmp_path / "openssl.pem", tmp_path / "openssl.pub.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", str(private))
    openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
    private.chmod(0o600)
    key = read_private_key(private)
    assert read_public_keys(public)[0].raw == key.raw
    (tmp_path / "text").write_bytes(statement(BUNDLE, b"a manifest"))
    (tmp_path / "raw").write_bytes(key.sign(statement(BUNDLE, b"a manifest")))
    check = ["pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in", str(tmp_path / "text")]
    assert b"Verified Successfully" in openssl(*check, "-sigfile", str(tmp_path / "raw"))


def test_openssl_reads_our_keys_and_encrypts_such_that_we_read_them(tmp_path: Path) -> None:
    made = new_key(tmp_path / "ours.pem")
    theirs = tmp_path / "theirs.pem"
    encrypt = [
        "pkcs8",
        "-topk8",
        "-v2",
        "aes256",
        "-passout",
        "env:SECRET",
        "-in",
        str(tmp_path / "ours.pem"),
    ]
    openssl(*encrypt, "-out", str(theirs), env={**os.environ, "SECRET": "word"})
    theirs.chmod(0o600)
    assert read_private_key(theirs, "word").raw == made.raw


def test_all_keys_of_a_folder(tmp_path: Path) -> None:
    pairs = [new_pair(tmp_path, name) for name in ("a", "b")]
    folder = tmp_path / "trusted"
    folder.mkdir()
    for pair in pairs:
        shutil.copy(pair.public, folder)
    (folder / "README").write_text("no key")
    assert [key.raw for key in read_public_keys(folder)] == [pair.key.raw for pair in pairs]


def test_a_link_to_a_public_key(tmp_path: Path) -> None:
    pair = new_pair(tmp_path, "a")
    (tmp_path / "link.pem").symlink_to(pair.public)
    assert read_public_keys(tmp_path / "link.pem")[0].raw == pair.key.raw


def test_this_device_has_a_key_if_the_variable_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSC_EDGE_DEVICE_KEY", raising=False)
    assert device_key() is None
    new_key(tmp_path / "device.pem", "word")
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(tmp_path / "device.pem"))
    monkeypatch.setenv("MUSC_EDGE_KEY_PASSPHRASE", "word")
    key = device_key()
    assert key is not None
    assert "word" not in repr(key)


# ---- keys that are not -----------------------------------------------------------------------


def other_algorithms() -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519

    return {
        "RSA": rsa.generate_private_key(65537, 1024),
        "EC": ec.generate_private_key(ec.SECP256R1()),
        "Ed448": ed448.Ed448PrivateKey.generate(),
        "X25519": x25519.X25519PrivateKey.generate(),
    }


def test_keys_of_other_algorithms(tmp_path: Path) -> None:
    for name, key in other_algorithms().items():
        with pytest.raises(SignatureError, match=f"no key of ed25519, but .*{name}"):
            read_private_key(pem(tmp_path / "key.pem", private=key))
        with pytest.raises(SignatureError, match=f"no key of ed25519, but .*{name}"):
            read_public_keys(pem(tmp_path / "key.pub.pem", public=key.public_key()))


def damaged(path: Path, kind: str) -> Path:
    """Make of a file with a key one that is none."""
    whole = path.read_bytes()
    path.unlink()
    contents = {
        "empty": b"",
        "garbage": bytes(range(256)) * 4,
        "cut": whole[: len(whole) // 2],
        "without its lines": whole.replace(b"-----", b""),
        "inside garbled": whole.replace(b"MC", b"!!"),
        "10 MB": whole + b"\n" * 10_000_000,
        "two keys": whole + whole,
        "of ssh": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ0Zm9yIHRoZSB0ZXN0cyBhbG9uZSBhIHRleHQ= somebody\n",
        "certificate": whole.replace(b"PUBLIC KEY", b"CERTIFICATE").replace(b"PRIVATE KEY", b"CERTIFICATE"),
    }
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind != "missing":
        path.write_bytes(contents[kind])
        path.chmod(0o600)
    return path


KINDS = ("empty", "garbage", "cut", "without its lines", "inside garbled", "10 MB", "two keys", "of ssh",
         "certificate", "folder", "pipe", "loop", "missing")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_keys(tmp_path: Path, kind: str) -> None:
    pair = new_pair(tmp_path, "a")
    with pytest.raises(SignatureError, match=r"a\.pub\.pem"):
        read_public_keys(damaged(pair.public, kind))
    if kind == "two keys":
        return  # of a private key openssl and cryptography take the first
    with pytest.raises(SignatureError, match=r"a\.pem"):
        read_private_key(damaged(pair.private, kind))


def test_a_private_key_is_no_public_one_and_the_reverse(tmp_path: Path) -> None:
    pair = new_pair(tmp_path, "a")
    with pytest.raises(SignatureError, match=r"holds a private key.*openssl pkey -in .*a\.pem -pubout"):
        read_public_keys(pair.private)
    with pytest.raises(SignatureError, match="holds no private key"):
        read_private_key(pair.public)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_private_key_that_others_may_read_or_write(tmp_path: Path, mode: int) -> None:
    pair = new_pair(tmp_path, "a")
    pair.private.chmod(mode)
    with pytest.raises(SignatureError, match=rf"mode 0{mode:o}.*chmod 600"):
        read_private_key(pair.private)


def test_a_link_to_a_public_key_that_others_could_turn_elsewhere(tmp_path: Path) -> None:
    pair, share = new_pair(tmp_path, "a"), tmp_path / "share"
    share.mkdir()
    (share / "link.pem").symlink_to(pair.public)
    assert read_public_keys(share / "link.pem")[0].raw == pair.key.raw
    share.chmod(0o777)
    with pytest.raises(SignatureError, match=f"everybody may write {share}"):
        read_public_keys(share / "link.pem")


def test_a_public_key_that_others_could_replace(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    pair = new_pair(folder, "a")
    pair.public.chmod(0o666)
    with pytest.raises(SignatureError, match="everybody may write"):
        read_public_keys(pair.public)
    pair.public.chmod(0o644)
    folder.chmod(0o777)
    for place in (pair.public, folder):
        with pytest.raises(SignatureError, match=rf"not believed: everybody may write {folder}"):
            read_public_keys(place)
    folder.chmod(0o1777)  # as /tmp: what is in it belongs to its owner
    assert read_public_keys(pair.public)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="this kernel does not allow others than root to give files away"
)
def test_a_public_key_of_another_user(tmp_path: Path) -> None:
    pair = new_pair(tmp_path, "a")
    os.chown(pair.public, 12345, 12345)
    with pytest.raises(SignatureError, match="belongs to user 12345"):
        read_public_keys(pair.public)


def test_a_folder_without_keys(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("of another name")
    with pytest.raises(SignatureError, match="holds no public key"):
        read_public_keys(tmp_path)


def test_a_folder_with_a_key_that_is_none(tmp_path: Path) -> None:
    new_pair(tmp_path, "a").private.unlink()
    (tmp_path / "b.pem").write_text("none")
    with pytest.raises(SignatureError, match=r"b\.pem is not one public key"):
        read_public_keys(tmp_path)


@pytest.mark.parametrize("read", [read_public_keys, read_private_key])
def test_a_name_that_is_too_long(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(SignatureError, match="cannot be read: File name too long"):
        read(tmp_path / ("long" * 100))


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as root, who may enter all."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(SignatureError, match=r"the key .*keys cannot be read: Permission denied"):
        read_public_keys(tmp_path / "keys")


# ---- without cryptography --------------------------------------------------------------------


def test_without_cryptography(tmp_path: Path) -> None:
    pair = new_pair(tmp_path, "a")
    (tmp_path / "file").write_bytes(b"text")
    sign(tmp_path / "file", b"text", BUNDLE, pair.key)
    absent = ("", ".hazmat.primitives", ".hazmat.primitives.asymmetric", ".exceptions")
    with mock.patch.dict(sys.modules, {f"cryptography{name}": None for name in absent}):
        for use in (
            lambda: read_public_keys(pair.public),
            lambda: read_private_key(pair.private),
            lambda: new_key(tmp_path / "b.pem"),
            lambda: is_valid(pair.key.raw, b"0" * 64, b"text"),
        ):
            with pytest.raises(NoCryptographyError, match=r"pip install 'musc-edge\[sign\]'"):
                use()
    assert signature_path(tmp_path / "file").exists()
    assert not (tmp_path / "b.pem").exists()
