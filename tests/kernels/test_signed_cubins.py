"""Compiled kernels where a signature is required: in a bundle, in the cache, and made here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from musc_edge import _signatures
from musc_edge._signatures import BUNDLE, KERNELS, Demand, Demands, read_signatures, sign, signature_path
from musc_edge._signing_keys import read_public_keys
from musc_edge.kernels import compiler as compiler_module
from musc_edge.kernels.compiler import Compiled, Resources
from musc_edge.kernels.cubin_files import INDEX, write_cubins
from musc_edge.kernels.cubins import cached_cubins, find_cubin
from musc_edge.kernels.errors import KernelError, UnsignedKernelsError
from support.signing import FakeCompiler, Pair, flip, new_pair

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")

ARCH, CODE = "sm_87", b"\x7fELF stands for kernels" * 50


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler, an empty cache, no key, and nothing that is required."""
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([FakeCompiler(CODE)]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", tmp_path / "trusted-keys")
    for name in ("MUSC_EDGE_REQUIRE_SIGNATURE", "MUSC_EDGE_DEVICE_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def device(tmp_path: Path) -> Pair:
    return new_pair(tmp_path, "device")


@pytest.fixture
def wanted(device: Pair) -> Demands:
    return (Demand("a test", read_public_keys(device.public)),)


@pytest.fixture
def bundle(tmp_path: Path, device: Pair) -> Path:
    """A bundle with signed kernels, as far as these tests look."""
    index = tmp_path / "bundle" / "kernels" / INDEX
    index.parent.mkdir(parents=True)
    write_cubins(index.parent, [Compiled(ARCH, CODE, "NVRTC 12.6.85", {"k": Resources(9, 0, 0)})])
    sign(index, index.read_bytes(), KERNELS, device.key)
    return tmp_path / "bundle"


def forge(signatures: Path) -> None:
    """Put zeros in place of the signature, under the same key."""
    (entry,) = read_signatures(signatures.with_name(INDEX))
    signatures.write_text(signatures.read_text().replace(entry.signature, "0" * 128))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


# ---- in a bundle -----------------------------------------------------------------------------


def test_signed_kernels(bundle: Path, wanted: Demands) -> None:
    assert find_cubin(ARCH, bundle, wanted).origin == "bundle"


@pytest.mark.parametrize(
    ("name", "attack", "error", "said"),
    [
        (INDEX, flip, UnsignedKernelsError, r"kernels\.json was changed since it was signed"),
        (f"{INDEX}.sig", forge, UnsignedKernelsError, r"kernels\.json was changed since it was signed"),
        (f"{INDEX}.sig", cut, UnsignedKernelsError, r"kernels\.json\.sig is no file of signatures"),
        (f"{INDEX}.sig", Path.unlink, UnsignedKernelsError, r"kernels\.json is not signed"),
        (f"{ARCH}.cubin.z", flip, KernelError, r"sm_87\.cubin\.z was changed since it was written"),
        (f"{ARCH}.cubin.z", Path.unlink, KernelError, r"sm_87\.cubin\.z cannot be read: No such file"),
    ],
)
def test_a_file_of_theirs_is_changed_or_removed(
    bundle: Path,
    wanted: Demands,
    name: str,
    attack: Callable[[Path], None],
    error: type[KernelError],
    said: str,
) -> None:
    attack(bundle / "kernels" / name)
    with pytest.raises(error, match=said):
        find_cubin(ARCH, bundle, wanted)


def test_kernels_that_are_made_anew_have_to_be_signed_anew(
    bundle: Path, wanted: Demands, monkeypatch: pytest.MonkeyPatch, device: Pair
) -> None:
    compiled = [Compiled(ARCH, CODE[::-1], "nvcc", {})]
    write_cubins(bundle / "kernels", compiled)
    with pytest.raises(UnsignedKernelsError, match="is not signed"):
        find_cubin(ARCH, bundle, wanted)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    write_cubins(bundle / "kernels", compiled)
    assert find_cubin(ARCH, bundle, wanted).code == CODE[::-1]


def test_a_signature_of_another_kind(bundle: Path, wanted: Demands, device: Pair) -> None:
    index = bundle / "kernels" / INDEX
    signature_path(index).unlink()
    sign(index, index.read_bytes(), BUNDLE, device.key)
    with pytest.raises(UnsignedKernelsError, match="does not fit"):
        find_cubin(ARCH, bundle, wanted)


def test_what_the_machine_requires_holds_if_nobody_says_more(
    bundle: Path, device: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(device.public))
    assert find_cubin(ARCH, bundle).origin == "bundle"
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(new_pair(tmp_path, "other").public))
    with pytest.raises(UnsignedKernelsError, match="is signed by"):
        find_cubin(ARCH, bundle)
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", "")
    with pytest.raises(UnsignedKernelsError, match="is empty"):
        find_cubin(ARCH, bundle)


# ---- in the cache ----------------------------------------------------------------------------


def entry(tmp_path: Path) -> Path:
    """The one folder of the cache."""
    (folder,) = (tmp_path / "cache" / "musc-edge" / "kernels").iterdir()
    return folder


def test_without_a_key_nothing_is_kept(tmp_path: Path, wanted: Demands) -> None:
    for _ in range(2):
        found = find_cubin(ARCH, None, wanted)
        assert (found.origin, found.code) == ("compiler", CODE)
        assert "MUSC_EDGE_DEVICE_KEY names no key" in found.notes[0]
    assert not (tmp_path / "cache").exists()


def test_with_a_key_what_is_kept_is_signed(
    tmp_path: Path, wanted: Demands, device: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    assert [find_cubin(ARCH, None, wanted).origin for _ in range(2)] == ["compiler", "cache"]
    monkeypatch.delenv("MUSC_EDGE_DEVICE_KEY")
    assert find_cubin(ARCH, None, wanted).origin == "cache", "the private key is for making alone"
    assert len(cached_cubins(wanted=wanted)) == 1


def test_an_unsigned_cache_is_passed_over(tmp_path: Path, wanted: Demands) -> None:
    assert [find_cubin(ARCH).origin for _ in range(2)] == ["compiler", "cache"]
    found = find_cubin(ARCH, None, wanted)
    assert found.origin == "compiler"
    assert f"rm -r {entry(tmp_path)} They were compiled for this run alone" in found.notes[0]
    notes: list[str] = []
    assert cached_cubins(notes=notes, wanted=wanted) == []
    assert "is not signed" in notes[0]


def test_a_changed_cache_is_passed_over(
    tmp_path: Path, wanted: Demands, device: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    find_cubin(ARCH, None, wanted)
    flip(entry(tmp_path) / INDEX)
    assert find_cubin(ARCH, None, wanted).origin == "compiler"


def test_without_a_compiler_an_unsigned_cache_is_no_help(
    wanted: Demands, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_cubin(ARCH)
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([]))
    assert find_cubin(ARCH).origin == "cache"
    with pytest.raises(KernelError, match="is not signed"):
        find_cubin(ARCH, None, wanted)


def test_a_key_that_cannot_be_used_is_said(
    tmp_path: Path, device: Pair, wanted: Demands, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.private.chmod(0o644)
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(device.private))
    for demands in ((), wanted):
        found = find_cubin(ARCH, None, demands)
        assert (found.code, found.origin) == (CODE, "compiler")
        assert "chmod 600" in found.notes[0]
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
