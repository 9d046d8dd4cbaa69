"""Bundles where a signature is required: attacks on files, folders and engines, and on the moment between."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from musc_edge import _signatures
from musc_edge._signatures import ENGINE, KERNELS, PROOF, sign, signature_path
from musc_edge.kernels.compiler import Compiled
from musc_edge.kernels.cubin_files import write_cubins
from musc_edge.runtime import scorers
from musc_edge.runtime.errors import BundleError, DeviceError
from musc_edge.runtime.types import Bundle
from musc_edge.runtime.vit import bundle as bundle_module
from musc_edge.runtime.vit.bundle import open_beside, open_bundle, open_unsigned
from musc_edge.runtime.vit.engines import (
    BrokenEngine,
    find_engine,
    find_proof,
    list_engines,
    read_plan,
    require_proof,
)
from musc_edge.runtime.vit.tensorrt_library import Library
from support.lots import CONTENT, MANIFEST, edit_manifest, make_bundle, sha256
from support.signing import GPU, PLAN, Pair, flip, put_engine, sign_manifest, signed_bundle

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")


@pytest.fixture(autouse=True)
def nothing_else_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSC_EDGE_REQUIRE_SIGNATURE", raising=False)
    monkeypatch.delenv("MUSC_EDGE_DEVICE_KEY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", tmp_path / "trusted-keys")


@pytest.fixture
def folder(tmp_path: Path, maker: Pair) -> Path:
    """A bundle that the maker signed."""
    return signed_bundle(tmp_path / "bundle", maker)


def opened(folder: Path, *pairs: Pair) -> Bundle:
    return open_bundle(folder, whole=True, require_signature=[pair.public for pair in pairs])


def refused(folder: Path, *pairs: Pair) -> str:
    with pytest.raises(BundleError) as raised:
        opened(folder, *pairs)
    return str(raised.value)


# ---- who must have signed --------------------------------------------------------------------


def test_a_signed_bundle(folder: Path, maker: Pair, other: Pair) -> None:
    bundle = opened(folder, maker)
    assert (bundle.manifest, bundle.digest) == (MANIFEST, open_bundle(folder).digest)
    assert [key.raw for demand in bundle.demands for key in demand.keys] == [maker.key.raw]
    assert open_bundle(folder).demands == ()
    assert "is signed by" in refused(folder, other)
    assert opened(folder, other, maker).manifest == MANIFEST


def test_an_unsigned_bundle(tmp_path: Path, maker: Pair) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert "is not signed" in refused(folder, maker)
    assert open_bundle(folder).manifest == MANIFEST


@pytest.mark.parametrize("opening", [open_bundle, open_beside])
def test_the_variable_holds_for_all_who_open_one(
    folder: Path, maker: Pair, other: Pair, monkeypatch: pytest.MonkeyPatch, opening: Callable[..., Bundle]
) -> None:
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(maker.public))
    bundle = opening(folder)
    assert (bundle.manifest, bundle.pending) == (MANIFEST, None)
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(other.public))
    with pytest.raises(BundleError, match="is signed by"):
        opening(folder)
    assert open_unsigned(folder).manifest == MANIFEST


def test_the_device_has_the_last_word(folder: Path, tmp_path: Path, maker: Pair, other: Pair) -> None:
    keys = tmp_path / "trusted-keys"
    keys.mkdir()
    shutil.copy(other.public, keys)
    assert "trusted-keys requires a signature" in refused(folder, maker)
    sign_manifest(folder, other)
    assert opened(folder, maker).manifest == MANIFEST


def test_without_cryptography(folder: Path, maker: Pair) -> None:
    with mock.patch.dict(sys.modules, {"cryptography.hazmat.primitives": None}):
        with pytest.raises(DeviceError, match=r"cannot be checked: .*pip install 'musc-edge\[sign\]'"):
            opened(folder, maker)
        assert open_bundle(folder).manifest == MANIFEST, "none is required"


# ---- attacks on the files --------------------------------------------------------------------

SIGNATURE = "manifest.json.sig"
FILES = ("manifest.json", SIGNATURE, *CONTENT)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bit", [0, 5])
def test_a_bit_of_a_file(folder: Path, maker: Pair, name: str, bit: int) -> None:
    flip(folder / name, bit)
    assert name.removesuffix(".sig") in refused(folder, maker)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_cut_emptied_removed_or_renamed(folder: Path, maker: Pair, name: str) -> None:
    whole = (folder / name).read_bytes()
    for content in (
        whole[:-3],
        b"",
        whole + b"\n" if name not in ("manifest.json", SIGNATURE) else whole[1:],
    ):
        (folder / name).write_bytes(content)
        refused(folder, maker)
    (folder / name).rename(folder / name.upper())
    refused(folder, maker)
    (folder / name.upper()).unlink()
    refused(folder, maker)


def test_a_blank_more_in_the_manifest(folder: Path, maker: Pair) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.write(b"\n")
    assert "was changed since it was signed" in refused(folder, maker)


def test_files_swapped(folder: Path, maker: Pair) -> None:
    one, two = (folder / name for name in CONTENT)
    contents = one.read_bytes(), two.read_bytes()
    two.write_bytes(contents[0])
    one.write_bytes(contents[1])
    refused(folder, maker)


def test_a_graph_with_a_manifest_that_fits_it(folder: Path, maker: Pair) -> None:
    """What hashes alone do not see."""
    (folder / "model.onnx").write_bytes(b"\x12\x05other")
    edit_manifest(folder, "files", MANIFEST.files | {"model.onnx": sha256(b"\x12\x05other")})
    assert open_bundle(folder).manifest != MANIFEST
    assert "was changed since it was signed" in refused(folder, maker)


def test_the_signature_of_another_bundle(folder: Path, tmp_path: Path, maker: Pair) -> None:
    another = signed_bundle(tmp_path / "another", maker, backbone="another")
    shutil.copy(another / SIGNATURE, folder)
    assert "was changed since it was signed" in refused(folder, maker)


def test_manifest_and_signature_of_another_bundle(folder: Path, tmp_path: Path, maker: Pair) -> None:
    files = MANIFEST.files | {"model.onnx": sha256(b"\x12\x05other")}
    another = make_bundle(tmp_path / "another", files=files)
    sign_manifest(another, maker)
    for name in ("manifest.json", SIGNATURE):
        shutil.copy(another / name, folder)
    assert "model.onnx was changed" in refused(folder, maker)


@pytest.mark.parametrize("kind", [KERNELS, ENGINE, PROOF])
def test_a_signature_of_another_kind(tmp_path: Path, maker: Pair, kind: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    sign_manifest(folder, maker, kind)
    assert "does not fit" in refused(folder, maker)


def test_what_is_added_is_not_read(folder: Path, maker: Pair) -> None:
    for name in ("model.onnx.data", "model.attention.onnx", "Manifest.json", "model.onnx.sig", "probe.pkl"):
        (folder / name).write_bytes(b"evil")
    bundle = opened(folder, maker)
    assert bundle.attention_path is None


def test_kernels_that_are_replaced_between_check_and_use(
    folder: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is given what was signed, whoever required it, or nothing."""
    loaded: list[bytes] = []

    @contextmanager
    def gpu() -> Iterator[Any]:
        yield SimpleNamespace(arch="sm_87", load=lambda code, arch: loaded.append(code))

    monkeypatch.setattr(scorers, "PycudaGpu", gpu)
    kernels = folder / "kernels"
    kernels.mkdir()
    write_cubins(kernels, [Compiled("sm_87", b"code", "nvcc", {})])
    sign_as(kernels / "kernels.json", KERNELS, maker)
    bundle = opened(folder, maker)
    with scorers.open_gpu(bundle, []):
        assert loaded == [b"code"]
    write_cubins(kernels, [Compiled("sm_87", b"evil", "nvcc", {})])
    with pytest.raises(DeviceError, match="is not signed"), scorers.open_gpu(bundle, []):
        pass
    assert loaded == [b"code"]


def graph_with_weights_in(name: str) -> bytes:
    """A graph with a tensor whose location is the file ``name``."""
    content = b"\x0a\x08location\x12" + bytes([len(name)]) + name.encode()
    for field in (13, 5, 7):  # entry, tensor, graph
        content = bytes([field << 3 | 2, len(content)]) + content
    return content


WEIGHTED = graph_with_weights_in("wd")


def test_all_is_checked_before_anything_is_loaded(
    tmp_path: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weights are hashed beside what comes next, as they are where no signature is required."""
    files = MANIFEST.files | {"model.onnx": sha256(WEIGHTED), "wd": sha256(b"weights")}
    folder = make_bundle(tmp_path / "bundle", files=files)
    (folder / "model.onnx").write_bytes(WEIGHTED)
    (folder / "wd").write_bytes(b"weights")
    sign_manifest(folder, maker)
    pending = open_beside(folder)
    assert pending.pending
    pending.require_checked()
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(maker.public))
    assert open_beside(folder).pending is None
    flip(folder / "wd")
    with pytest.raises(BundleError, match="wd was changed"):
        open_beside(folder)


@pytest.mark.parametrize("name", ["probe.npz", "model.onnx", "manifest.json"])
@pytest.mark.parametrize("opening", [open_bundle, open_beside])
def test_weights_in_a_file_that_is_for_something_else(
    tmp_path: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch, name: str, opening: Callable[..., Bundle]
) -> None:
    """The probe could be exchanged behind the signature: who scores does not hash it."""
    graph = graph_with_weights_in(name)
    files = MANIFEST.files | {"manifest.json": "0" * 64} | {"model.onnx": sha256(graph)}
    folder = make_bundle(tmp_path / "bundle", files=files)
    (folder / "model.onnx").write_bytes(graph)
    sign_manifest(folder, maker)
    for keys in (None, str(maker.public)):
        if keys:
            monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", keys)
        with pytest.raises(BundleError, match=f"takes weights from {name}, which holds none"):
            opening(folder)


@pytest.mark.parametrize("opening", [open_bundle, open_beside])
def test_unsigned_kernels_in_a_signed_bundle(
    folder: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch, opening: Callable[..., Bundle]
) -> None:
    (folder / "kernels").mkdir()
    write_cubins(folder / "kernels", [Compiled("sm_87", b"evil", "nvcc", {})])
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(maker.public))
    with pytest.raises(BundleError, match=r"kernels\.json is not signed"):
        opening(folder)
    sign_as(folder / "kernels/kernels.json", KERNELS, maker)
    assert opening(folder).demands


def test_weights_that_no_hash_covers(folder: Path, maker: Pair) -> None:
    """A graph that takes them is refused, signed or not."""
    (folder / "model.onnx").write_bytes(WEIGHTED)
    (folder / "wd").write_bytes(b"evil")
    edit_manifest(folder, "files", MANIFEST.files | {"model.onnx": sha256(WEIGHTED)})
    sign_manifest(folder, maker)
    assert "takes weights from 'wd'" in refused(folder, maker)


def test_nothing_is_parsed_before_the_signature(
    folder: Path, other: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "parse_json", lambda text: pytest.fail("parsed"))
    monkeypatch.setattr(bundle_module, "external_files", lambda path: pytest.fail("parsed"))
    (folder / "manifest.json").write_bytes(b"[" * 100)
    assert "is signed by" in refused(folder, other)


# ---- links and who may write -----------------------------------------------------------------


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("inside", [True, False])
def test_a_link_in_place_of_a_file(
    folder: Path, tmp_path: Path, maker: Pair, name: str, inside: bool
) -> None:
    target = (folder / "moved") if inside else tmp_path / "moved"
    (folder / name).rename(target)
    (folder / name).symlink_to(target)
    assert "link" in refused(folder, maker) or not inside
    refused(folder, maker)


@pytest.mark.parametrize("name", ["", "manifest.json", "model.onnx", "probe.npz"])
def test_what_others_could_change_behind_the_check(folder: Path, maker: Pair, name: str) -> None:
    (folder / name).chmod(0o777)
    if name == "manifest.json":  # read once, and checked as it was read
        assert opened(folder, maker).manifest == MANIFEST
    else:
        assert f"everybody may write {folder / name}" in refused(folder, maker)
    assert open_bundle(folder).manifest == MANIFEST


def test_a_folder_within_in_which_others_could_put_another_file(tmp_path: Path, maker: Pair) -> None:
    folder = make_bundle(tmp_path / "bundle", files=MANIFEST.files | {"a/b/more": sha256(b"more")})
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/more").write_bytes(b"more")
    sign_manifest(folder, maker)
    assert opened(folder, maker).demands
    for within in ("a", "a/b"):
        (folder / within).chmod(0o777)
        assert f"everybody may write {folder / within}," in refused(folder, maker)
        (folder / within).chmod(0o755)


def test_a_folder_above_in_which_others_could_put_another_bundle(tmp_path: Path, maker: Pair) -> None:
    share = tmp_path / "share"
    folder = signed_bundle(share / "deep" / "bundle", maker)
    share.chmod(0o777)
    assert f"everybody may write {share}" in refused(folder, maker)
    share.chmod(0o1777)
    assert opened(folder, maker).manifest == MANIFEST


def test_a_linked_folder_is_found_once(folder: Path, tmp_path: Path, maker: Pair) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert opened(tmp_path / "link", maker).root == folder.resolve()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("bundle/../../" + tmp_path.name + "/./link")
    assert opened(tmp_path / "up", maker).root == folder.resolve()
    for name in ("loop", "nowhere", "bundle/probe.npz/x"):
        assert "not a bundle" in refused(tmp_path / name, maker)


def test_a_link_that_others_could_turn_elsewhere(folder: Path, tmp_path: Path, maker: Pair) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (share / "link").symlink_to(folder)
    (tmp_path / "first").symlink_to("share/link")
    assert opened(tmp_path / "first", maker).root == folder.resolve()
    share.chmod(0o777)
    for name in ("share/link", "first"):
        assert f"everybody may write {share}" in refused(tmp_path / name, maker)
    share.chmod(0o1777)  # who made a link there keeps it
    assert opened(tmp_path / "first", maker).root == folder.resolve()
    if os.geteuid() == 0:
        os.lchown(share / "link", 12345, 12345)
        assert f"the link {share / 'link'} belongs to user 12345" in refused(tmp_path / "first", maker)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="this kernel does not allow others than root to give files away"
)
@pytest.mark.parametrize("name", ["", "model.onnx"])
def test_what_belongs_to_another_user(folder: Path, maker: Pair, name: str) -> None:
    os.chown(folder / name, 12345, 12345)
    assert "belongs to user 12345" in refused(folder, maker)


def test_a_manifest_that_is_replaced_between_check_and_use(
    folder: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = _signatures.require_signed

    def checked_then_replaced(path: Path, *rest: Any) -> None:
        check(path, *rest)
        edit_manifest(folder, "backbone", "evil")

    monkeypatch.setattr(bundle_module, "require_signed", checked_then_replaced)
    assert opened(folder, maker).manifest == MANIFEST


def test_the_root_of_a_bundle_is_where_the_signature_was_checked(
    folder: Path, tmp_path: Path, maker: Pair
) -> None:
    evil, link = make_bundle(tmp_path / "evil"), tmp_path / "link"
    link.symlink_to(folder)
    bundle = opened(link, maker)
    link.unlink()
    link.symlink_to(evil)
    assert bundle.model_path == folder.resolve() / "model.onnx"


# ---- engines ---------------------------------------------------------------------------------

LIBRARY = Library(None, "tensorrt", "10.3.0")


def sign_as(path: Path, kind: str, pair: Pair) -> None:
    sign(path, path.read_bytes(), kind, pair.key)


def use(bundle: Bundle) -> bytes:
    """Find, prove and read the engine."""
    engine = find_engine(bundle, GPU, ("tensorrt",))
    require_proof(engine, bundle, GPU)
    return read_plan(engine, bundle, LIBRARY, 1)


@pytest.fixture
def bundle(folder: Path, maker: Pair, other: Pair) -> Bundle:
    """A bundle of the maker's, where what the other one signs is believed too, as that of a device's key."""
    return opened(folder, maker, other)


@pytest.fixture
def sidecar(bundle: Bundle, other: Pair) -> Path:
    """An engine in the bundle, signed with its proof by the device's key."""
    path = put_engine(bundle, bundle.root / "engines")
    sign_as(path, ENGINE, other)
    sign_as(proof_of(path), PROOF, other)
    return path


def proof_of(sidecar: Path) -> Path:
    (proof,) = sidecar.parent.glob("proof-*.json")
    return proof


def test_a_signed_engine(bundle: Bundle, sidecar: Path) -> None:
    assert use(bundle) == PLAN


@pytest.mark.parametrize("where", ["bundle", "cache"])
def test_an_unsigned_engine_is_not_used(bundle: Bundle, tmp_path: Path, where: str) -> None:
    cache = tmp_path / "cache" / "musc-edge" / bundle.digest[:16] / "engines"
    put_engine(bundle, bundle.root / "engines" if where == "bundle" else cache)
    with pytest.raises(BundleError, match=r"no engine for Orin.*e\.plan\.json is not signed"):
        use(bundle)
    assert use(open_bundle(bundle.root)) == PLAN, "none is required"


def test_an_unsigned_engine_beside_a_signed_one(bundle: Bundle, sidecar: Path) -> None:
    for path in (sidecar, sidecar.with_name("e.plan")):
        shutil.copy(path, path.with_name(path.name.replace("e.plan", "a.plan")))
    assert find_engine(bundle, GPU, ("tensorrt",)).path.name == "e.plan"
    assert isinstance(next(iter(list_engines(bundle))), BrokenEngine)


def test_another_plan_under_a_signed_sidecar(bundle: Bundle, sidecar: Path) -> None:
    sidecar.with_name("e.plan").write_bytes(PLAN[::-1])
    with pytest.raises(BundleError, match="its file was changed since it was built"):
        use(bundle)


def test_a_changed_sidecar_and_a_changed_proof(bundle: Bundle, sidecar: Path) -> None:
    for path in (proof_of(sidecar), sidecar):
        flip(path)
        with pytest.raises(BundleError, match=f"{path.name}.* was changed since it was signed"):
            use(bundle)
        flip(path)
    assert use(bundle) == PLAN


def test_an_unsigned_proof(bundle: Bundle, sidecar: Path) -> None:
    signature_path(proof_of(sidecar)).unlink()
    with pytest.raises(BundleError, match=r"proof-.* is not signed"):
        find_proof(find_engine(bundle, GPU, ("tensorrt",)), bundle, GPU)


@pytest.mark.parametrize("bad", ["not signed", "malformed"])
def test_a_bad_proof_in_the_bundle_hides_no_good_one_in_the_cache(
    bundle: Bundle, sidecar: Path, tmp_path: Path, bad: str
) -> None:
    cache = tmp_path / "cache" / "musc-edge" / bundle.digest[:16] / "engines"
    cache.mkdir(parents=True)
    proof = proof_of(sidecar)
    for path in (proof, signature_path(proof)):
        shutil.copy(path, cache)
    if bad == "malformed":
        proof.write_text("{")
    signature_path(proof).unlink()
    assert use(bundle) == PLAN
    signature_path(cache / proof.name).unlink()
    with pytest.raises(BundleError, match=f"{proof} is not signed"):
        use(bundle)


def test_a_proof_signed_as_an_engine(bundle: Bundle, sidecar: Path, other: Pair) -> None:
    signature_path(proof_of(sidecar)).unlink()
    sign_as(proof_of(sidecar), ENGINE, other)
    with pytest.raises(BundleError, match="does not fit"):
        use(bundle)


def test_a_signed_engine_of_another_bundle(bundle: Bundle, sidecar: Path, other: Pair) -> None:
    put_engine(bundle, sidecar.parent, graph={"model.onnx": "0" * 64})
    sign_as(sidecar, ENGINE, other)
    sign_as(proof_of(sidecar), PROOF, other)
    with pytest.raises(BundleError, match="it was built from another graph"):
        use(bundle)


def test_a_signed_engine_of_other_weights(tmp_path: Path, maker: Pair) -> None:
    """Whatever the file of the weights is called: the graph alone may be the same."""
    bundles = []
    for number, weights in enumerate((b"weights", b"others")):
        files = MANIFEST.files | {"model.onnx": sha256(WEIGHTED), "wd": sha256(weights)}
        folder = make_bundle(tmp_path / str(number), files=files)
        (folder / "model.onnx").write_bytes(WEIGHTED)
        (folder / "wd").write_bytes(weights)
        bundles.append(opened(sign_manifest(folder, maker), maker))
    path = put_engine(bundles[0], bundles[0].root / "engines")
    sign_as(path, ENGINE, maker)
    sign_as(proof_of(path), PROOF, maker)
    shutil.copytree(path.parent, bundles[1].root / "engines")
    assert use(bundles[0]) == PLAN
    with pytest.raises(BundleError, match="it was built from another graph"):
        use(bundles[1])


def test_the_maker_alone(folder: Path, sidecar: Path, maker: Pair) -> None:
    """Who does not believe the device's key does not use what it signed."""
    with pytest.raises(BundleError, match="is signed by"):
        use(opened(folder, maker))
    sign_as(sidecar, ENGINE, maker)
    sign_as(proof_of(sidecar), PROOF, maker)
    assert use(opened(folder, maker)) == PLAN
