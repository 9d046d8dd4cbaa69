"""Signing a whole bundle: manifest, kernels, engines and proofs, and only what was checked."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from musc_edge import _signatures
from musc_edge._signatures import signature_path
from musc_edge.export.kernels import add_kernels
from musc_edge.export.make import make_bundle as export_bundle
from musc_edge.export.signing import sign_bundle
from musc_edge.kernels import compiler as compiler_module
from musc_edge.kernels.compiler import Compiled
from musc_edge.kernels.cubin_files import write_cubins
from musc_edge.runtime.errors import BundleError, OutputError
from musc_edge.runtime.vit.bundle import open_bundle, open_unsigned
from musc_edge.runtime.vit.engines import Engine, list_engines
from support.lots import make_bundle
from support.signing import FakeCompiler, Pair, flip, new_pair, put_engine

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")


@pytest.fixture(autouse=True)
def nothing_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", tmp_path / "trusted-keys")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("MUSC_EDGE_REQUIRE_SIGNATURE", "MUSC_EDGE_DEVICE_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with kernels and an engine; nothing is signed."""
    folder = make_bundle(tmp_path / "bundle")
    (folder / "kernels").mkdir()
    write_cubins(folder / "kernels", [Compiled("sm_87", b"code", "nvcc", {})])
    put_engine(open_unsigned(folder), folder / "engines")
    return folder


def signed_files(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".sig") for path in folder.rglob("*.sig"))


def test_all_that_is_there_is_signed(folder: Path, maker: Pair) -> None:
    signed = sign_bundle(str(folder), maker.key)
    names = sorted(path.name for path in signed.files)
    assert names == signed_files(folder)
    assert [name[:6] for name in names] == ["e.plan", "kernel", "manife", "proof-"]
    assert signed.left_out == ()
    bundle = open_bundle(folder, whole=True, require_signature=[maker.public])
    assert [type(engine) for engine in list_engines(bundle)] == [Engine]


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "probe.npz", "kernels/sm_87.cubin.z"])
def test_nothing_is_signed_of_a_bundle_that_was_changed(folder: Path, maker: Pair, name: str) -> None:
    flip(folder / name)
    with pytest.raises(BundleError):
        sign_bundle(str(folder), maker.key)
    assert signed_files(folder) == []


@pytest.mark.parametrize("name", ["", "model.onnx", "kernels", "kernels/kernels.json"])
def test_nothing_is_signed_that_others_could_change_meanwhile(folder: Path, maker: Pair, name: str) -> None:
    (folder / name).chmod(0o777)
    with pytest.raises(BundleError, match=f"is not signed: everybody may write {folder / name}"):
        sign_bundle(str(folder), maker.key)
    assert signed_files(folder) == []


def test_an_engine_that_is_not_as_it_was_built_is_left_out(folder: Path, maker: Pair) -> None:
    flip(folder / "engines" / "e.plan")
    signed = sign_bundle(str(folder), maker.key)
    assert signed_files(folder) == ["kernels.json", "manifest.json"]
    assert "e.plan: its file was changed since it was built" in signed.left_out[0]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda engines: (engines / "e.plan").unlink(), "cannot be read"),
        (lambda engines: (engines / "e.plan").chmod(0o666), "everybody may write"),
        (lambda engines: (engines / "e.plan.json").write_text("{}"), "cannot be read"),
    ],
)
def test_other_engines_that_are_left_out(folder: Path, maker: Pair, edit: object, says: str) -> None:
    assert callable(edit)
    edit(folder / "engines")
    assert says in sign_bundle(str(folder), maker.key).left_out[0]
    assert signed_files(folder) == ["kernels.json", "manifest.json"]


def test_an_engine_of_another_graph(folder: Path, maker: Pair) -> None:
    put_engine(open_unsigned(folder), folder / "engines", graph={"model.onnx": "0" * 64})
    assert "built from another graph" in sign_bundle(str(folder), maker.key).left_out[0]


def test_a_proof_of_another_engine_is_not_signed(folder: Path, maker: Pair) -> None:
    (proof,) = (folder / "engines").glob("proof-*.json")
    content = json.loads(proof.read_text())
    proof.write_text(json.dumps(content | {"plan_sha256": "0" * 64}))
    signed = sign_bundle(str(folder), maker.key)
    assert signed_files(folder) == ["e.plan.json", "kernels.json", "manifest.json"]
    assert signed.left_out == (f"{proof}: it is the proof of another engine",)


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 100_000])
def test_a_malformed_proof_keeps_nothing_else_from_being_signed(folder: Path, maker: Pair, text: str) -> None:
    (proof,) = (folder / "engines").glob("proof-*.json")
    proof.write_text(text)
    signed = sign_bundle(str(folder), maker.key)
    assert signed_files(folder) == ["e.plan.json", "kernels.json", "manifest.json"]
    (left_out,) = signed.left_out
    assert left_out.startswith(f"{proof}: {proof} cannot be read (")
    assert left_out.endswith("Remove it, and build the engine again with: musc-export engine")


def test_a_proof_that_others_could_have_written_is_left_out(folder: Path, maker: Pair) -> None:
    (proof,) = (folder / "engines").glob("proof-*.json")
    proof.chmod(0o666)
    assert "everybody may write" in sign_bundle(str(folder), maker.key).left_out[0]
    assert signed_files(folder) == ["e.plan.json", "kernels.json", "manifest.json"]


def test_a_second_signer(folder: Path, maker: Pair, tmp_path: Path) -> None:
    other = new_pair(tmp_path, "other")
    for pair in (maker, other, maker):
        sign_bundle(str(folder), pair.key)
    for pair in (maker, other):
        assert open_bundle(folder, require_signature=[pair.public]).demands


def test_a_bundle_is_opened_while_another_signs_it(folder: Path, maker: Pair, tmp_path: Path) -> None:
    other = new_pair(tmp_path, "other")
    sign_bundle(str(folder), maker.key)
    with ThreadPoolExecutor(1) as pool:
        signing = pool.submit(lambda: [sign_bundle(str(folder), other.key) for _ in range(5)])
        while not signing.done():
            assert open_bundle(folder, require_signature=maker.public).demands
        signing.result()
    assert open_bundle(folder, require_signature=other.public).demands


def test_a_folder_that_cannot_be_written(folder: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_signatures, "write_whole", full)
    with pytest.raises(OutputError, match=r"manifest\.json cannot be written: No space left"):
        sign_bundle(str(folder), maker.key)


def test_no_bundle(tmp_path: Path, maker: Pair) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        sign_bundle(str(tmp_path / "nowhere"), maker.key)


# ---- what is made after the signature --------------------------------------------------------


def test_new_kernels_in_a_signed_bundle(
    folder: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([FakeCompiler()]))
    sign_bundle(str(folder), maker.key)
    add_kernels(str(folder), ["sm_87"], say=lambda text: None)
    with pytest.raises(BundleError, match=r"kernels\.json is not signed"):
        open_bundle(folder, require_signature=[maker.public])
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(maker.public))
    monkeypatch.setenv("MUSC_EDGE_DEVICE_KEY", str(maker.private))
    add_kernels(str(folder), ["sm_87"], say=lambda text: None)
    assert open_bundle(folder).demands


@pytest.mark.slow
def test_a_signed_bundle_is_one_of_ours_to_be_replaced(
    tiny_bundle: Path, maker: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.sources import quiet, tiny_source

    out = shutil.copytree(tiny_bundle, tmp_path / "out")
    sign_bundle(str(out), maker.key)
    monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", str(maker.public))
    export_bundle(tiny_source(tmp_path), out, overwrite=True, say=quiet)
    assert not signature_path(out / "manifest.json").exists()
    with pytest.raises(BundleError, match="is not signed"):
        open_bundle(out)
