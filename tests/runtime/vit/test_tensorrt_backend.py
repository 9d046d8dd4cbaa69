"""The TensorRT backend against a strict fake: results, order of calls, lifetime, and what can go wrong."""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.export.engine import choose_target, make_engine
from musc_edge.kernels import driver
from musc_edge.kernels.gpu import DeviceArray
from musc_edge.kernels.pycuda_gpu import PycudaGpu
from musc_edge.kernels.thread import GpuThread
from musc_edge.runtime.errors import BundleError, DeviceError
from musc_edge.runtime.store.features import DeviceStore
from musc_edge.runtime.types import Bundle
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.choose import enter_backend
from musc_edge.runtime.vit.extract import empty_slot
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from musc_edge.runtime.vit.tensorrt_backend import TensorRtBackend
from musc_edge.tools.summary import bundle_json, bundle_text
from support.fake_pycuda import Error as DriverError
from support.fake_tensorrt import FakeRuntime
from support.gpu_machine import SIZE, Machine, install, without_tensorrt
from support.sources import pixels, quiet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a proven engine for batches of up to 4."""
    root = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("engine") / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        make_engine(open_bundle(root), choose_target(None), 4, say=quiet)
    return open_bundle(root)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return install(monkeypatch)


def test_results_are_those_of_onnx_runtime(bundle: Bundle, machine: Machine) -> None:
    """For full and partial batches, in a slot whose layers do not lie side by side."""
    images = pixels(7, (16, 24))
    expected, found = empty_slot(bundle, 7), empty_slot(bundle, 7)
    with OnnxBackend(bundle) as reference:
        reference.extract_into(images, expected)
    with TensorRtBackend(bundle) as backend:
        for start, stop in ((0, 4), (4, 7)):
            part = type(found)(found.tokens[:, start:stop], found.cls[start:stop])
            backend.extract_into(images[start:stop], part)
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-5)
    np.testing.assert_allclose(found.cls, expected.cls, atol=1e-6)


def test_tokens_are_written_where_the_scorer_wants_them(bundle: Bundle, machine: Machine) -> None:
    """Into an arena of the device, whose other images stay as they were; only CLS comes to the host."""
    images, expected = pixels(5, SIZE), empty_slot(bundle, 5)
    with OnnxBackend(bundle) as reference:
        reference.extract_into(images, expected)
    layers, _, patches, width = expected.tokens.shape
    memory = np.full((layers, 9, patches, width), np.nan, np.float32)
    machine.pycuda.living[memory.ctypes.data] = memory.reshape(-1).view(np.uint8)
    arena = DeviceArray(memory.ctypes.data, memory.shape, memory.dtype)
    store = DeviceStore(GpuThread(PycudaGpu), arena, np.zeros((9, expected.cls.shape[1]), np.float32), 9)
    with TensorRtBackend(bundle) as backend:
        backend.extract_into(images[:4], store.slot(2, 6))
        backend.extract_into(images[4:], store.slot(6, 7))
        assert machine.count("memcpy_dtoh") == 2
        there = empty_slot(bundle, 3)
        backend.extract_into(images[:3], there)
    del machine.pycuda.living[memory.ctypes.data]
    np.testing.assert_allclose(memory[:, 2:7], expected.tokens, atol=1e-5)
    assert np.isnan(memory[:, [0, 1, 7, 8]]).all()
    np.testing.assert_allclose(store.cls[2:7], expected.cls, atol=1e-6)
    np.testing.assert_allclose(there.tokens, expected.tokens[:, :3], atol=1e-5)


def test_engine_of_other_types(bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens in half would be read as singles where they are written."""
    monkeypatch.setattr("support.fake_tensorrt.FakeEngine.get_tensor_dtype", lambda self, name: "half")
    with pytest.raises(BundleError, match=r"'float16'.* the manifest .*'float32'"), TensorRtBackend(bundle):
        pass


def test_order_and_lifetime(bundle: Bundle, machine: Machine) -> None:
    with TensorRtBackend(bundle) as backend:
        for _ in range(2):
            backend.extract_into(pixels(3, (16, 24)), empty_slot(bundle, 3))
    gc.collect()
    calls, threads = machine.calls, machine.pycuda.threads
    assert not machine.tensorrt.late
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    made = [call for call in calls if call.startswith("make")]
    assert made == ["make FakeRuntime", "make FakeEngine", "make FakeExecution"]
    gone = [call for call in calls if call.startswith("delete")]
    assert gone == ["delete FakeExecution", "delete FakeEngine", "delete FakeRuntime"]
    assert calls.index("push") < calls.index(made[0])
    assert calls.index(gone[-1]) < calls.index("pop")
    assert calls[-2:] == ["pop", "detach"]
    assert machine.count("address") == 4  # the pixels, two layers, CLS
    assert max(k for k, call in enumerate(calls) if call.startswith("address")) < calls.index("execute")
    assert machine.count("mem_alloc") == 4
    assert machine.pycuda.living == {}


def test_nothing_is_touched_before_it_is_entered(bundle: Bundle, machine: Machine) -> None:
    TensorRtBackend(bundle)
    assert machine.calls == []


def test_everything_is_freed_after_an_error_too(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch, memory=False)
    with pytest.raises(DeviceError, match="too little memory") as caught, TensorRtBackend(bundle):
        pass
    gc.collect()  # the error is still there, with its traceback
    assert caught.value.__traceback__ is not None
    assert not machine.tensorrt.late
    assert machine.count("delete") == machine.count("make") == 3
    assert machine.calls[-1] == "detach"


def test_failed_run_says_so(bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.fake_tensorrt.FakeExecution.execute_async_v3", lambda self, handle: False)
    with TensorRtBackend(bundle) as backend, pytest.raises(DeviceError, match="could not run the engine"):
        backend.extract_into(pixels(1, (16, 24)), empty_slot(bundle, 1))
    assert not machine.tensorrt.late


def test_gpu_that_fails_at_the_end(bundle: Bundle, machine: Machine) -> None:
    """The driver's last word is an error of ours, and the context is given back all the same."""
    with pytest.raises(DeviceError, match="ending the work on the GPU failed"), TensorRtBackend(bundle):
        machine.pycuda.sticky = DriverError("an illegal memory access")
    assert machine.calls[-2:] == ["pop", "detach"]
    assert machine.pycuda.retained == 0


def test_more_images_than_it_was_opened_for(bundle: Bundle, machine: Machine) -> None:
    with TensorRtBackend(bundle, 2) as backend, pytest.raises(DeviceError, match="3 images at once"):
        backend.extract_into(pixels(3, (16, 24)), empty_slot(bundle, 3))


def test_batch_above_the_profile(bundle: Bundle, machine: Machine) -> None:
    message = r"at most 4 images at once, but 9 were asked for.*engine .* --max-batch 9, or take at most 4"
    with pytest.raises(BundleError, match=message), TensorRtBackend(bundle, 9):
        pass
    assert machine.calls == []


def test_another_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpu="Other GPU")
    message = r"no engine for Other GPU .*, only TensorRT for Fake GPU.*musc-export engine "
    with pytest.raises(BundleError, match=message), TensorRtBackend(bundle):
        pass


def test_another_version(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, version="10.7.0")
    message = r"built by TensorRT 10.3.0, this is TensorRT 10.7.0.*Build it again with: musc-export engine "
    with pytest.raises(BundleError, match=message), TensorRtBackend(bundle):
        pass


def test_version_that_is_too_old(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, version="8.6.1")
    with (
        pytest.raises(DeviceError, match=r"TensorRT 8\.6\.1 is too old: expected 10\.3"),
        TensorRtBackend(bundle),
    ):
        pass


def test_no_tensorrt(bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    without_tensorrt(monkeypatch)
    message = r"not installed.*JetPack.*musc-edge\[tensorrt\].*musc-edge\[rtx\]"
    with pytest.raises(DeviceError, match=message), TensorRtBackend(bundle):
        pass


def test_no_driver(bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked before TensorRT, whose objects would crash the process."""
    monkeypatch.undo()
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchcuda.so.1")
    with pytest.raises(DeviceError, match="no NVIDIA driver"), TensorRtBackend(bundle):
        pass


def damage(bundle: Bundle, what: str) -> None:
    (plan,) = (bundle.root / "engines").glob("*.plan")
    data = bytearray(plan.read_bytes())
    if what == "flipped":
        data[len(data) // 2] ^= 1
    plan.write_bytes(data[: len(data) // 2] if what == "truncated" else data)
    if what == "missing":
        plan.unlink()


@pytest.mark.parametrize("what", ["flipped", "truncated", "missing"])
def test_damaged_plan(tmp_path: Path, bundle: Bundle, machine: Machine, what: str) -> None:
    own = open_bundle(shutil.copytree(bundle.root, tmp_path / "own"))
    damage(own, what)
    message = r"was changed since it was built.*Build it again with: musc-export engine "
    with pytest.raises(BundleError, match=message), TensorRtBackend(own):
        pass
    assert machine.calls == []


def test_sidecar_that_cannot_be_read(tmp_path: Path, bundle: Bundle, machine: Machine) -> None:
    own = open_bundle(shutil.copytree(bundle.root, tmp_path / "own"))
    (sidecar,) = (own.root / "engines").glob("*.plan.json")
    content = json.loads(sidecar.read_text())
    for text, problem in (
        ("{", "cannot be read"),
        (json.dumps({**content, "gpu": 5}), "cannot be read"),
        (json.dumps({**content, "format": 2}), "format 2 and flavor 'tensorrt', expected 1"),
        (json.dumps({**content, "flavor": "other"}), "flavor 'other', expected .* tensorrt, rtx"),
    ):
        sidecar.write_text(text)
        with pytest.raises(BundleError, match=problem), TensorRtBackend(own):
            pass


def test_engine_of_another_graph(tmp_path: Path, bundle: Bundle, machine: Machine) -> None:
    own = open_bundle(shutil.copytree(bundle.root, tmp_path / "own"))
    (sidecar,) = (own.root / "engines").glob("*.plan.json")
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "graph": {"model.onnx": "0" * 64}}))
    with pytest.raises(BundleError, match="built from another graph"), TensorRtBackend(own):
        pass


def test_engine_that_was_never_proven(tmp_path: Path, bundle: Bundle, machine: Machine) -> None:
    own = open_bundle(shutil.copytree(bundle.root, tmp_path / "own"))
    for proof in (own.root / "engines").glob("proof-*"):
        proof.unlink()
    message = r"not yet proven on Fake GPU.*musc-export verify .* --backend tensorrt"
    with pytest.raises(BundleError, match=message), TensorRtBackend(own):
        pass
    with TensorRtBackend(own, proven=False) as backend:
        assert backend.max_batch == 4


def test_plan_that_tensorrt_does_not_take(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.fake_tensorrt.FakeRuntime.deserialize_cuda_engine", lambda self, plan: None)
    with pytest.raises(BundleError, match=r"cannot load .*\.plan.*Build it again"), TensorRtBackend(bundle):
        pass
    gc.collect()
    assert not machine.tensorrt.late


# ---- engines that others could have written --------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, bundle: Bundle) -> Bundle:
    """A copy of the bundle with its engine, which a test may change."""
    return open_bundle(shutil.copytree(bundle.root, tmp_path / "own"))


def never_deserialised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, plan: bytes) -> None:
        raise AssertionError("a stranger's plan was loaded")

    monkeypatch.setattr("support.fake_tensorrt.FakeRuntime.deserialize_cuda_engine", fail)


@pytest.mark.parametrize("what", ["", "*.plan", "*.plan.json"])
def test_plan_that_others_could_have_written(
    own: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Its hash is in a file beside it, which they could have written too."""
    folder = own.root / "engines"
    (path,) = folder.glob(what) if what else [folder]
    path.chmod(0o777)
    never_deserialised(monkeypatch)
    message = f"everybody may write {path}, .*chmod -R go-w {folder}.*build it again with: musc-export engine"
    with pytest.raises(BundleError, match=message), TensorRtBackend(own):
        pass
    assert machine.calls == []
    with ExitStack() as stack:
        backend, (note, *_) = enter_backend(stack, "auto", own, 1, 1)
        assert backend.name == "cpu"
    assert note.startswith("backend tensorrt was passed over")
    assert f"everybody may write {path}" in note


@pytest.mark.parametrize("what", ["", "*.plan"])
def test_plan_behind_a_link(
    own: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    folder = own.root / "engines"
    (path,) = folder.glob(what) if what else [folder]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    never_deserialised(monkeypatch)
    with pytest.raises(BundleError, match=f"{path} is a link"), TensorRtBackend(own):
        pass


def test_proof_that_others_could_have_written(own: Bundle, machine: Machine) -> None:
    (proof,) = (own.root / "engines").glob("proof-*")
    proof.chmod(0o666)
    message = f"not yet proven on Fake GPU.*everybody may write {proof}.*musc-export verify"
    with pytest.raises(BundleError, match=message), TensorRtBackend(own):
        pass


def test_own_engine_in_the_cache_is_used_in_place_of_a_strangers(
    own: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (own.root / "engines").chmod(0o777)
    built = make_engine(own, choose_target(None), 2, say=quiet)
    assert built.path.is_relative_to(tmp_path / "cache")
    with TensorRtBackend(own) as backend:
        assert backend.engine.path == built.path


@pytest.mark.long
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o000])
@pytest.mark.parametrize("in_cache", [False, True])
def test_what_is_built_is_used_whatever_the_umask(
    own: Bundle,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    umask: int,
    in_cache: bool,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.rmtree(own.root / "engines")
    if in_cache:
        (own.root / "engines").touch()
    before = os.umask(umask)
    try:
        built = make_engine(own, choose_target(None), 2, say=quiet)
    finally:
        os.umask(before)
    assert built.path.is_relative_to(tmp_path / "cache") == in_cache
    with TensorRtBackend(own) as backend:
        assert backend.max_batch == 2


def test_what_is_deserialised_is_what_was_hashed(
    own: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the file is another one by then."""
    (plan,) = (own.root / "engines").glob("*.plan")
    original = FakeRuntime.deserialize_cuda_engine
    loaded = []

    def load(self: FakeRuntime, content: bytes) -> Any:
        loaded.append(content)
        return original(self, content)

    def swap(*_: object) -> None:
        plan.write_bytes(b"another")

    expected = plan.read_bytes()
    monkeypatch.setattr("support.fake_tensorrt.FakeRuntime.deserialize_cuda_engine", load)
    monkeypatch.setattr("musc_edge.runtime.vit.tensorrt_backend.require_proof", swap)
    with TensorRtBackend(own):
        pass
    assert loaded == [expected]


@pytest.mark.parametrize(
    "content",
    [b"[" * 500 + b"]" * 500, b"{}", b"\xff", b" " * 2_000_000, None],
    ids=["nested", "empty", "text", "huge", "pipe"],
)
def test_one_broken_sidecar_does_not_hide_the_others(
    own: Bundle, machine: Machine, content: bytes | None
) -> None:
    broken = own.root / "engines" / "a.plan.json"
    if content is None:
        os.mkfifo(broken)
    else:
        broken.write_bytes(content)
    with TensorRtBackend(own) as backend:
        assert backend.max_batch == 4
    for path in (own.root / "engines").glob("tensorrt-*"):
        path.unlink()
    with pytest.raises(BundleError, match=f"has no engine for Fake GPU.*{broken} cannot be read"):
        TensorRtBackend(own).__enter__()
    text, facts = bundle_text(own), json.loads(bundle_json(own))
    assert f"{broken} cannot be read" in text
    assert facts["engines"] == [
        {"path": str(broken.with_suffix("")), "broken": facts["engines"][0]["broken"]}
    ]


@pytest.mark.parametrize("field", ["format", "max_batch", "plan_bytes", "build_seconds"])
def test_absurd_numbers_in_a_sidecar(own: Bundle, machine: Machine, field: str) -> None:
    (sidecar,) = (own.root / "engines").glob("*.plan.json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), field: 10**400}))
    with pytest.raises(BundleError, match=r"expected.*Remove it"), TensorRtBackend(own):
        pass
    assert "cannot be used" in bundle_text(own)
