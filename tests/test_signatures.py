"""Files of signatures: whose they are, what they are of, and every way in which they can be malformed."""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from musc_edge import _signatures
from musc_edge._signatures import (
    BUNDLE,
    ENGINE,
    KERNELS,
    PROOF,
    Demand,
    Demands,
    demands,
    read_signatures,
    require_signed,
    sign,
    signature_path,
    statement,
    write_signed,
)
from musc_edge._signing_keys import SignatureError, read_public_keys
from support.signing import Pair, flip, new_pair

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")

CONTENT = b'{"any": "file"}\n'


@pytest.fixture
def file(tmp_path: Path, maker: Pair) -> Path:
    """A file that the maker signed."""
    path = tmp_path / "file.json"
    path.write_bytes(CONTENT)
    sign(path, CONTENT, BUNDLE, maker.key)
    return path


def by(*pairs: Pair) -> Demands:
    """One of the pairs must have signed."""
    return (Demand("a test", tuple(key for pair in pairs for key in read_public_keys(pair.public))),)


def refused(file: Path, wanted: Demands, content: bytes = CONTENT, kind: str = BUNDLE) -> str:
    with pytest.raises(SignatureError) as raised:
        require_signed(file, content, kind, wanted)
    assert str(file) in str(raised.value)
    return str(raised.value)


# ---- what fits -------------------------------------------------------------------------------


def test_the_statement_is_text_that_anybody_can_make() -> None:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (
        statement(BUNDLE, b"abc")
        == f"musc-edge signature 1\nkind bundle\nbytes 3\nsha256 {digest}\n".encode()
    )


def test_signed_by_one_of_those_who_may(file: Path, maker: Pair, other: Pair) -> None:
    require_signed(file, CONTENT, BUNDLE, by(maker))
    require_signed(file, CONTENT, BUNDLE, by(other, maker))
    assert "is signed by" in refused(file, by(other))


def test_each_demand_has_to_be_met(file: Path, maker: Pair, other: Pair) -> None:
    refused(file, by(maker) + by(other))
    sign(file, CONTENT, BUNDLE, other.key)
    require_signed(file, CONTENT, BUNDLE, by(maker) + by(other))


def test_without_a_demand_nothing_is_looked_at(file: Path) -> None:
    signature_path(file).write_bytes(b"garbage")
    require_signed(file, b"changed", BUNDLE, ())


def test_not_signed_at_all(file: Path, maker: Pair) -> None:
    signature_path(file).unlink()
    message = refused(file, by(maker))
    assert "is not signed: there is no file.json.sig" in message
    assert "musc-export sign" in message


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b" ", CONTENT.replace(b"any", b"Any")])
def test_changed_since(file: Path, maker: Pair, content: bytes) -> None:
    assert "was changed since it was signed" in refused(file, by(maker), content)


@pytest.mark.parametrize("kind", [KERNELS, ENGINE, PROOF])
def test_a_signature_of_one_kind_is_none_of_another(file: Path, maker: Pair, kind: str) -> None:
    refused(file, by(maker), kind=kind)


def test_a_signature_under_another_key(file: Path, maker: Pair, other: Pair) -> None:
    """The key that a file names is not believed: its signature has to be by that key."""
    path = signature_path(file)
    path.write_text(path.read_text().replace(maker.key.raw.hex(), other.key.raw.hex()))
    assert "does not fit" in refused(file, by(other))
    refused(file, by(maker))


def test_every_bit_of_the_signature_counts(file: Path, maker: Pair) -> None:
    (entry,) = read_signatures(file)
    path = signature_path(file)
    for number in range(0, 512, 16):
        changed = f"{int(entry.signature, 16) ^ (1 << number):0128x}"
        path.write_text(path.read_text().replace(entry.signature, changed))
        refused(file, by(maker))
        path.write_text(path.read_text().replace(changed, entry.signature))
    require_signed(file, CONTENT, BUNDLE, by(maker))


# ---- several signers -------------------------------------------------------------------------


def test_signing_again_and_by_others(file: Path, maker: Pair, other: Pair) -> None:
    sign(file, CONTENT, BUNDLE, other.key)
    sign(file, CONTENT, BUNDLE, maker.key)
    assert {each.key for each in read_signatures(file)} == {maker.key.raw.hex(), other.key.raw.hex()}


def test_what_does_not_fit_any_more_is_dropped(file: Path, maker: Pair, other: Pair) -> None:
    sign(file, b"new content", BUNDLE, other.key)
    assert [each.key for each in read_signatures(file)] == [other.key.raw.hex()]


def test_many_sign_at_once(file: Path, tmp_path: Path) -> None:
    pairs = [new_pair(tmp_path, f"signer{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: sign(file, CONTENT, BUNDLE, pair.key), pairs))
    require_signed(file, CONTENT, BUNDLE, tuple(demand for pair in pairs for demand in by(pair)))


def test_a_reader_meets_whole_files_while_others_sign(file: Path, maker: Pair, other: Pair) -> None:
    def sign_often() -> None:
        for _ in range(20):
            sign(file, CONTENT, BUNDLE, other.key)

    with ThreadPoolExecutor(1) as pool:
        signing = pool.submit(sign_often)
        while not signing.done():
            require_signed(file, CONTENT, BUNDLE, by(maker))
        signing.result()


def test_a_malformed_file_is_not_signed_over(file: Path, other: Pair) -> None:
    signature_path(file).write_bytes(b"{}")
    with pytest.raises(SignatureError, match="no file of signatures"):
        sign(file, CONTENT, BUNDLE, other.key)
    assert signature_path(file).read_bytes() == b"{}"


def test_a_link_is_replaced_not_followed(file: Path, tmp_path: Path, other: Pair) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    signature_path(file).unlink()
    signature_path(file).symlink_to(victim)
    with pytest.raises(SignatureError, match="cannot be read"):
        sign(file, CONTENT, BUNDLE, other.key)
    assert victim.read_text() == "precious"


# ---- malformed files -------------------------------------------------------------------------

KEY, SIGNATURE = "c0de" * 16, "51f7" * 32
"""Stand for those of the maker, whose file would be good but for one thing."""


def text(entries: object, version: object = 1, **more: object) -> bytes:
    return json.dumps({"schema_version": version, "signatures": entries, **more}).encode()


def entry(**changes: object) -> dict[str, object]:
    return {"key": KEY, "signature": SIGNATURE, **changes}


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "no JSON": b"signed, yours sincerely",
    "binary": bytes(range(256)),
    "no UTF-8": b'{"schema_version": 1, "signatures": [], "\xff\xfe": 1}',
    "null": b"null",
    "a number": b"1",
    "a text": b'"signed"',
    "a list": b"[]",
    "nothing in it": b"{}",
    "no version": b'{"signatures": []}',
    "no signatures": b'{"schema_version": 1}',
    "behind it more": text([entry()]) + b"{}",
    "names twice": text([entry()]).replace(b'"signatures"', b'"signatures": [], "signatures"'),
    "versions twice": text([entry()]).replace(b"{", b'{"schema_version": 2, ', 1),
    "keys twice": text([entry()]).replace(b'"key"', b'"key": "", "key"'),
    "NaN": text([entry()], float("nan")),
    "infinite": text([entry(), float("-inf")]),
    "huge number": b'{"schema_version": 1' + b"0" * 5000 + b', "signatures": []}',
    "nested lists": b"[" * 30_000,
    "nested objects": b'{"a":' * 10_000,
    "nested and closed": b'{"schema_version": 1, "signatures": ' + b"[" * 900 + b"]" * 900 + b"}",
    "unknown field": text([entry()], comment="trust me"),
    "unknown field of an entry": text([entry(algorithm="none")]),
    "version 0": text([entry()], 0),
    "version 2": text([entry()], 2),
    "version true": text([entry()], True),
    "version 1.0": text([entry()], 1.0),
    "version as text": text([entry()], "1"),
    "signatures null": text(None),
    "signatures an object": text(entry()),
    "signatures a text": text("0"),
    "entry null": text([entry(), None]),
    "entry a list": text([entry(), [KEY, SIGNATURE]]),
    "entry empty": text([entry(), {}]),
    "key a number": text([entry(key=0)]),
    "key null": text([entry(key=None)]),
    "key empty": text([entry(key="")]),
    "key short": text([entry(key=KEY[:-1])]),
    "key long": text([entry(key=KEY + "0")]),
    "key in capitals": text([entry(), entry(key="A" * 64)]),
    "key with blanks": text([entry(key=" " + KEY[:-1])]),
    "key with a new line": text([entry(key=KEY[:-1] + "\n")]),
    "key in other digits": text([entry(key="\uff11" * 64)]),
    "signature null": text([entry(signature=None)]),
    "signature a list": text([entry(signature=[0])]),
    "signature short": text([entry(signature=SIGNATURE[:-2])]),
    "signature no hex": text([entry(signature="g" * 128)]),
    "a key twice": text([entry(signature="0" * 128), entry()]),
    "65 signers": text([entry(), *(entry(key=f"{number:064x}") for number in range(64))]),
    "100 kB": text([entry()]) + b" " * 100_000,
}


def test_what_is_not_malformed(file: Path, maker: Pair, other: Pair) -> None:
    """What the malformed files differ from."""
    (good,) = read_signatures(file)
    entries = [entry(key=good.key, signature=good.signature), entry(key=other.key.raw.hex())]
    signature_path(file).write_bytes(b"\n " + text(entries))
    require_signed(file, CONTENT, BUNDLE, by(maker))


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_signatures(file: Path, maker: Pair, name: str) -> None:
    (good,) = read_signatures(file)
    content = MALFORMED[name].replace(KEY.encode(), good.key.encode())
    signature_path(file).write_bytes(content.replace(SIGNATURE.encode(), good.signature.encode()))
    message = refused(file, by(maker))
    assert "no file of signatures" in message or name == "100 kB"
    assert len(message) < 2000
    assert message.isprintable()


def test_cut_at_every_place(file: Path, maker: Pair) -> None:
    whole, wanted = signature_path(file).read_bytes().rstrip(), by(maker)
    for end in range(len(whole)):
        signature_path(file).write_bytes(whole[:end])
        refused(file, wanted)


def test_changed_at_random(file: Path, maker: Pair) -> None:
    """Bytes changed, put in, taken out: either an error, or the same signature in another form of JSON."""
    draw = random.Random(0)
    whole, genuine, wanted = signature_path(file).read_bytes(), read_signatures(file), by(maker)
    same = 0
    for _ in range(500):
        text = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            place, byte = draw.randrange(len(text)), draw.choice(b'{}[]",:\\ \n0aAeE.-\x00\xff')
            text[place : place + draw.randint(0, 2)] = bytes([byte] * draw.randint(0, 2))
        signature_path(file).write_bytes(text)
        try:
            require_signed(file, CONTENT, BUNDLE, wanted)
        except SignatureError:
            continue
        assert read_signatures(file) == genuine
        same += 1
    assert same < 250


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link", "loop", "link to itself in place"])
def test_no_plain_file(file: Path, maker: Pair, kind: str, tmp_path: Path) -> None:
    path = signature_path(file)
    moved = path.rename(tmp_path / "moved")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name}.get(kind, str(moved)))
    refused(file, by(maker))


# ---- what is required ------------------------------------------------------------------------


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's trusted keys would be; the folder is not made."""
    monkeypatch.delenv("MUSC_EDGE_REQUIRE_SIGNATURE", raising=False)
    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", tmp_path / "etc" / "trusted-keys")
    return tmp_path / "etc" / "trusted-keys"


def raws(wanted: Demands) -> list[list[bytes]]:
    return [[key.raw for key in demand.keys] for demand in wanted]


def test_nothing_is_required_by_itself(trusted: Path) -> None:
    assert demands() == ()


def test_by_the_variable(trusted: Path, maker: Pair, other: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", f"{maker.public}:{other.public}")
    assert raws(demands()) == [[maker.key.raw, other.key.raw]]
    assert raws(demands([other.public])) == [[other.key.raw]], "what is given goes before"
    assert raws(demands(str(other.public))) == raws(demands(other.public)) == [[other.key.raw]]


def test_by_the_folder_beside_all_else(
    trusted: Path, maker: Pair, other: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted.mkdir(parents=True)
    maker.public.rename(trusted / "maker.pem")
    assert raws(demands()) == [[maker.key.raw]]
    assert raws(demands([other.public])) == [[maker.key.raw], [other.key.raw]]
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(other.public))
    assert raws(demands()) == [[maker.key.raw], [other.key.raw]]


@pytest.mark.parametrize("value", ["", ":"])
def test_an_empty_variable_is_no_permission(
    trusted: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", value)
    with pytest.raises(SignatureError, match="is empty"):
        demands()
    with pytest.raises(SignatureError, match="is empty"):
        demands([])


def test_a_folder_that_is_empty_or_no_folder(trusted: Path) -> None:
    trusted.mkdir(parents=True)
    with pytest.raises(SignatureError, match="holds no public key"):
        demands()
    trusted.rmdir()
    trusted.symlink_to("nowhere")
    with pytest.raises(SignatureError, match="trusted-keys"):
        demands()
    trusted.unlink()
    trusted.write_text("a file")
    with pytest.raises(SignatureError, match="trusted-keys"):
        demands()


def test_a_folder_that_cannot_be_looked_at_is_taken_for_one(
    trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hidden:
        """As in a folder that only root may enter."""

        def lstat(self) -> Any:
            raise PermissionError(13, "Permission denied")

        def __str__(self) -> str:
            return "hidden"

    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", Hidden())
    with pytest.raises(
        SignatureError, match=r"hidden cannot be looked at \(Permission denied\).*chmod a\+rx"
    ):
        demands()


@pytest.mark.parametrize("error", [FileNotFoundError, NotADirectoryError])
def test_a_folder_whose_keys_vanish_is_no_permission(
    trusted: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def vanished(place: Path) -> Any:
        raise error(2, "gone", str(place))

    trusted.mkdir(parents=True)
    monkeypatch.setattr(_signatures, "read_public_keys", vanished)
    with pytest.raises(error, match="gone"):
        demands()


def test_a_missing_key(trusted: Path, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"nowhere\.pem cannot be read"):
        demands([tmp_path / "nowhere.pem"])


# ---- signed by the device --------------------------------------------------------------------


def test_what_the_device_writes_is_signed_if_it_has_a_key(
    tmp_path: Path, maker: Pair, other: Pair, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(other.private))
    write_signed(file, b"new", ENGINE, 0o644)
    require_signed(file, b"new", ENGINE, by(other))
    assert [each.key for each in read_signatures(file)] == [other.key.raw.hex()]
    monkeypatch.delenv("MUSC_EDGE_DEVICE_KEY")
    write_signed(file, b"newer", ENGINE, 0o644)
    assert (file.read_bytes(), read_signatures(file)) == (b"newer", ())


def test_nothing_is_written_if_the_device_has_no_usable_key(
    file: Path, other: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(other.private)
    other.private.chmod(0o644)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(other.private))
    with pytest.raises(SignatureError):
        write_signed(file, b"new", ENGINE, 0o644)
    assert file.read_bytes() == CONTENT
    assert signature_path(file).exists()
