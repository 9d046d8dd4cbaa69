"""Making an engine: the gate, the variants it tries, what is stored, and what a failure leaves."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from musc_edge.export import engine_builder
from musc_edge.export.engine import Built, choose_target, make_engine
from musc_edge.export.verify import verify
from musc_edge.kernels.driver import find_gpu
from musc_edge.runtime.errors import BundleError, DeviceError, OutputError, ParityError
from musc_edge.runtime.types import Bundle
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.engines import engine_folders, find_engine, find_proof
from musc_edge.runtime.vit.hashes import sha256
from support.gpu_machine import install, interrupt_main_thread, listening
from support.sources import edit_manifest, quiet

pytestmark = pytest.mark.slow

FLAVORS = ("tensorrt", "rtx")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def make(bundle: Bundle, **options: Any) -> Built:
    return make_engine(bundle, choose_target(None), options.pop("max_batch", 4), say=quiet, **options)


def files(bundle: Bundle) -> list[str]:
    """What lies in the engines' folder."""
    return sorted(path.name for path in (bundle.root / "engines").iterdir())


@pytest.mark.slow
def test_engine_with_its_sidecar_and_proof(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch)
    built = make(bundle)
    assert built.parity is not None
    gpu = find_gpu()
    engine = find_engine(bundle, gpu, FLAVORS)
    assert (engine.path, engine.info) == (built.path, built.info)
    info = built.info
    assert (info.flavor, info.version, info.gpu, info.variant) == ("tensorrt", "10.3.0", gpu, "as exported")
    assert (info.min_batch, info.opt_batch, info.max_batch) == (1, 4, 4)
    built_from = ("model.onnx", "model.onnx.data")
    assert info.graph == {name: bundle.manifest.files[name] for name in built_from}
    assert info.plan_sha256 == sha256(built.path)
    proof = find_proof(engine, bundle, gpu)
    assert proof is not None
    assert proof.parity["raw_score_max_change"] <= 1e-3
    assert len(files(bundle)) == 3
    assert machine.tensorrt.configs[0].flags == set(), "TF32 is off"
    assert open_bundle(bundle.root, whole=True).digest == bundle.digest


def test_both_batch_sizes_are_compared(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch)
    make(bundle, max_batch=5)
    assert machine.count("execute") == 12 + 3  # 12 images singly, then by fives


def test_fused_attention_that_is_wrong_is_built_anew(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    machine = install(monkeypatch, faults=("fused",))
    built = make_engine(bundle, choose_target(None), 4, say=said.append)
    assert machine.tensorrt.built == ["fused", "unfused"]
    assert built.info.variant == "attention not fused"
    assert any(text.startswith("  refused: backend tensorrt") for text in said)
    assert len(files(bundle)) == 3


def test_none_is_stored_if_none_passes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, faults=("fused",))
    monkeypatch.setattr(engine_builder, "break_attention", lambda trt, network: 1)
    with pytest.raises(ParityError, match=r"no engine gives(.|\n)*as exported: (.|\n)*not fused: ") as caught:
        make(bundle)
    assert "lowest token cosine" in str(caught.value)
    assert files(bundle) == []


def test_new_engine_takes_the_place_of_the_old(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    make(bundle, max_batch=2)
    make(bundle, max_batch=8)
    assert find_engine(bundle, find_gpu(), FLAVORS).info.max_batch == 8


def test_failing_gate_leaves_the_old_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    make(bundle)
    before = {name: (bundle.root / "engines" / name).read_bytes() for name in files(bundle)}
    install(monkeypatch, faults=("fused",))
    monkeypatch.setattr(engine_builder, "break_attention", lambda trt, network: 1)
    with pytest.raises(ParityError):
        make(bundle)
    assert {name: (bundle.root / "engines" / name).read_bytes() for name in files(bundle)} == before


def test_disk_that_is_full(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    install(monkeypatch)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"written to .*engines: No space left on device\. It needs 0 MB"):
        make(bundle)
    assert files(bundle) == []


def test_interrupt_stops_the_build(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """While TensorRT builds in its thread, ctrl-C reaches the one that waits for it."""
    machine = install(monkeypatch)
    machine.tensorrt.steps = 1000
    steps = 0

    def progress(stage: str, done: float, total: float, unit: str) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            interrupt_main_thread()
        if steps >= 3:
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt), listening():
        make(bundle, progress=progress)
    assert 3 <= steps < 1000
    assert files(bundle) == []


def test_folder_that_cannot_be_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the engine goes into the user's cache; and if there is none, nothing is built."""
    install(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (bundle.root / "engines").touch()  # a file in the folder's place, which root cannot write either
    built = make(bundle)
    assert built.path.parent == engine_folders(bundle)[1]
    assert find_engine(bundle, find_gpu(), FLAVORS).path == built.path
    monkeypatch.setenv("XDG_CACHE_HOME", str(bundle.model_path))
    with pytest.raises(OutputError, match=r"no folder for engines can be written \(.*XDG_CACHE_HOME"):
        make(bundle)


def test_missing_pycuda_is_said_before_building(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(DeviceError, match="pycuda cannot be used"):
        make(bundle)
    assert machine.tensorrt.built == []


def test_tensorrt_builds_for_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(DeviceError, match="for the GPU that is here alone"):
        choose_target("tensorrt", ("8.6",))


def test_unknown_precision_is_refused_before_building(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = install(monkeypatch)
    edit_manifest(bundle.root, precision="int4")
    with pytest.raises(BundleError, match="'int4'"):
        make(open_bundle(bundle.root))
    assert machine.tensorrt.built == []


# ---- verify ----------------------------------------------------------------------------------


def test_verify_proves_an_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    make(bundle)
    (proof,) = (bundle.root / "engines").glob("proof-*")
    content = json.loads(proof.read_text())
    proof.unlink()
    assert verify(str(bundle.root), "tensorrt").images == 12
    assert json.loads(proof.read_text())["plan_sha256"] == content["plan_sha256"]


def test_verify_of_a_wrong_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    make(bundle)
    for proof in (bundle.root / "engines").glob("proof-*"):
        proof.unlink()
    machine = install(monkeypatch, faults=("fused",))
    with pytest.raises(ParityError, match=r"backend tensorrt on .*(.|\n)*Build it on this device"):
        verify(str(bundle.root), "tensorrt")
    assert not list((bundle.root / "engines").glob("proof-*"))
    assert not machine.tensorrt.late
