"""Which backend runs the ViT, and what is said of those that cannot."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from musc_edge.export.engine import choose_target, make_engine
from musc_edge.export.verify import verify
from musc_edge.kernels import driver
from musc_edge.runtime.errors import BundleError, DeviceError
from musc_edge.runtime.types import Bundle, Uploaded
from musc_edge.runtime.vit import onnx_backend
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.choose import enter_backend, import_libraries
from musc_edge.runtime.vit.extract import empty_slot
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from support.fake_onnxruntime import CUDA, FakeOnnxRuntime, install_onnxruntime
from support.gpu_machine import SIZE, install, without_tensorrt
from support.sources import pixels, quiet


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def chosen(bundle: Bundle, name: str, batch: int = 4) -> tuple[str, tuple[str, ...]]:
    with ExitStack() as stack:
        backend, notes = enter_backend(stack, name, bundle, 1, batch)
        backend.extract_into(pixels(2, SIZE), empty_slot(bundle, 2))
        return backend.name, notes


# ---- auto ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_gpu_there_is_only_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchcuda.so.1")
    assert chosen(bundle, "auto") == ("cpu", ())


@pytest.mark.slow
def test_engine_is_preferred(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    install(monkeypatch)
    make_engine(bundle, choose_target(None), 4, say=quiet)
    assert chosen(bundle, "auto") == ("tensorrt", ())
    install_onnxruntime(monkeypatch, FakeOnnxRuntime())
    name, notes = chosen(bundle, "auto", batch=5)
    assert name == "cuda"
    assert "takes at most 4 images" in notes[0]


def test_what_is_passed_over_is_noted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    install_onnxruntime(monkeypatch, FakeOnnxRuntime(loads=False))
    name, notes = chosen(bundle, "auto")
    assert name == "cpu"
    assert notes[0].startswith("backend tensorrt was passed over: ")
    assert "has no engine for Fake GPU" in notes[0]
    assert "backend cuda was passed over: asked ONNX Runtime for CUDAExecutionProvider" in notes[1]


def test_what_was_asked_for_has_no_substitute(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    install_onnxruntime(monkeypatch, FakeOnnxRuntime(loads=False))
    with pytest.raises(BundleError, match="has no engine"):
        chosen(bundle, "tensorrt")
    with pytest.raises(DeviceError, match="received"):
        chosen(bundle, "cuda")


# ---- cuda ------------------------------------------------------------------------------------


def test_cuda_runs_in_full_precision_without_fallback(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    expected, found = empty_slot(bundle, 3), empty_slot(bundle, 3)
    with OnnxBackend(bundle) as reference:
        reference.extract_into(pixels(3, SIZE), expected)
    runtime = FakeOnnxRuntime()
    install_onnxruntime(monkeypatch, runtime)
    with OnnxBackend(bundle, name="cuda") as backend:
        backend.extract_into(pixels(3, SIZE), found)
        assert backend.version.endswith(", cuda, attention in pieces")
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-5)
    assert runtime.asked == [([CUDA], [{"use_tf32": "0"}])]
    assert not runtime.fallback
    assert runtime.preloaded
    assert verify(str(bundle.root), "cuda").images == 12


def test_a_batch_on_the_gpu_gives_what_one_on_the_host_gives(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    runtime = FakeOnnxRuntime()
    install_onnxruntime(monkeypatch, runtime)
    expected, found = empty_slot(bundle, 3), empty_slot(bundle, 3)
    with OnnxBackend(bundle, name="cuda") as backend:
        images = pixels(3, SIZE)
        there, other = backend.upload(images), backend.upload(pixels(2, SIZE))
        assert isinstance(there, Uploaded)
        assert (len(there), len(other)) == (3, 2)
        backend.extract_into(images, expected)
        images[:] = 0  # what is there stays
        backend.extract_into(there, found)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.cls, expected.cls)
    assert runtime.uploaded == [("cuda", 0)] * 2


def test_a_batch_that_does_not_fit_on_the_gpu_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory")

    install(monkeypatch)
    runtime = FakeOnnxRuntime()
    monkeypatch.setattr(FakeOnnxRuntime, "OrtValue", SimpleNamespace(ortvalue_from_numpy=full))
    install_onnxruntime(monkeypatch, runtime)
    with (
        OnnxBackend(bundle, name="cuda") as backend,
        pytest.raises(DeviceError, match=r"could not copy 3 images to the GPU: Failed to allocate"),
    ):
        backend.upload(pixels(3, SIZE))


def test_on_the_cpu_a_batch_stays_where_it_is(bundle: Bundle) -> None:
    images = pixels(1, SIZE)
    assert OnnxBackend(bundle).upload(images) is images


@pytest.mark.parametrize(
    ("runtime", "packages", "message"),
    [
        (FakeOnnxRuntime(), ("onnxruntime", "onnxruntime-gpu"), r"both installed.*pip uninstall -y"),
        (FakeOnnxRuntime(listed=False), ("onnxruntime",), r"has no CUDAExecutionProvider.*musc-edge\[gpu\]"),
        (FakeOnnxRuntime(loads=False), (), r"received \['CPUExecutionProvider'\]: CUDA, cuDNN or the driver"),
    ],
)
def test_cuda_that_does_not_work(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    runtime: FakeOnnxRuntime,
    packages: tuple[str, ...],
    message: str,
) -> None:
    install(monkeypatch)
    install_onnxruntime(monkeypatch, runtime, *packages)
    with pytest.raises(DeviceError, match=message), OnnxBackend(bundle, name="cuda"):
        pass


def test_cuda_without_a_driver(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchcuda.so.1")
    with pytest.raises(DeviceError, match="no NVIDIA driver"), OnnxBackend(bundle, name="cuda"):
        pass


def test_installed_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_backend.installed_packages() == {"onnxruntime"}
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert onnx_backend.installed_packages() == {"onnxruntime", "onnxruntime-gpu"}


# ---- libraries -------------------------------------------------------------------------------


def test_board_with_tensorrt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    import_libraries("auto")
    import_libraries("tensorrt")
    with pytest.raises(DeviceError, match="ONNX Runtime cannot be imported"):
        import_libraries("cpu")
    without_tensorrt(monkeypatch)
    with pytest.raises(DeviceError, match="ONNX Runtime cannot be imported"):
        import_libraries("auto")
    with pytest.raises(DeviceError, match="TensorRT is not installed"):
        import_libraries("tensorrt")
