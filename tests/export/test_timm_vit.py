"""ViTs of timm: taps, position embedding, weights by file, and a bundle of a tiny one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save_file

from musc_edge.export.make import make_bundle
from musc_edge.export.position import AUTHORS_DINO, resample
from musc_edge.export.timm_vit import TimmSource
from musc_edge.export.torch_setup import import_models
from musc_edge.export.verify import verify
from musc_edge.runtime.errors import BundleError
from musc_edge.runtime.vit.bundle import open_bundle
from support.tiny_clip import quiet

pytestmark = pytest.mark.long

DINO, SIGLIP = "vit_tiny_dino_test", "vit_tiny_siglip_test"
SIZE = (32, 48)


@pytest.fixture(scope="module")
def timm() -> Any:
    """The module timm, to which a tiny DINO and a tiny SigLIP are known."""
    found = import_models("timm", quiet)
    _register(found, DINO, init_values=0.1)
    _register(found, SIGLIP, class_token=False, global_pool="map", act_layer="gelu_tanh")
    return found


def _register(timm: Any, name: str, **own: Any) -> None:
    def make(pretrained: bool = False, **options: Any) -> Any:
        shape = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
        known = {"num_classes": 0, **shape, **own}
        kind = timm.models.vision_transformer.VisionTransformer
        return timm.models.build_model_with_cfg(kind, name, pretrained, **known, **_without(options, known))

    make.__name__, make.__module__ = name, "timm.models.vision_transformer"
    if not timm.is_model(name):
        timm.models.register_model(make)


def _without(options: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in known}


def dino(**changes: Any) -> TimmSource:
    options: dict[str, Any] = {"model": DINO, "size": SIZE, "pretrained": False, **changes}
    return TimmSource(**options)


def tower_of(source: TimmSource) -> Any:
    return source.load(quiet).tower


@pytest.mark.parametrize("tap", ["residual", "norm"])
def test_taps(timm: Any, tap: str) -> None:
    """The stream after a block, as it is or with the final norm; CLS has that norm either way."""
    loaded = dino(tap=tap).load(quiet)
    vit: Any = loaded.tower.vit
    pixels = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(pixels)))
        wanted = []
        for block in vit.blocks:
            x = block(x)
            wanted.append((vit.norm(x) if tap == "norm" else x)[:, 1:])
        found = loaded.tower(pixels)
    for a, b in zip(found, [*wanted, vit.norm(x)[:, 0]], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert loaded.description.tap == tap


def test_position_embedding_is_that_of_dino(timm: Any) -> None:
    """The resampling of timm is antialiased; DINO's code scales by (grid+0.1)/stored and is not."""
    torch.manual_seed(0)
    stored = timm.create_model(DINO).pos_embed.detach()
    found = tower_of(dino()).vit.pos_embed
    torch.testing.assert_close(found[0], resample(stored[0], (4, 4), (4, 6), AUTHORS_DINO))
    resized = timm.create_model(DINO)
    resized.pos_embed = torch.nn.Parameter(stored)
    resized.set_input_size(img_size=SIZE)
    assert not torch.allclose(found, resized.pos_embed, atol=1e-3)


def test_weights_by_file(timm: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = timm.create_model(DINO)
    save_file(model.state_dict(), tmp_path / "dino.safetensors")
    source = dino(checkpoint=tmp_path / "dino.safetensors", size=(32, 32))
    assert source.load(quiet).description.pretrained == "file dino.safetensors"
    for name, value in tower_of(source).vit.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_weights_of_another_architecture(timm: Any, tmp_path: Path) -> None:
    torch.save({"blocks.0.norm1.weight": torch.zeros(8)}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=rf"other.pt is of another architecture than {DINO}"):
        dino(checkpoint=tmp_path / "other.pt").load(quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vit_small_patch14_dino"}, "Similar names: vit_small_patch14_dinov2"),
        ({"model": "resnet18"}, "resnet18 is a ResNet: expected one of timm's VisionTransformer"),
        ({"size": (33, 32)}, "try 32x32"),
        ({"layers": (2,)}, r"no block \[2\]"),
        ({"model": "vit_small_patch14_dinov2", "pretrained": True}, r"cannot be downloaded.*dinov2\.lvd142m"),
        ({"pretrained": True}, "timm has no weights"),
    ],
)
def test_unusable(timm: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        dino(**changes).load(quiet)


def test_bundle(timm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through torch's exporter without open_clip, with the tap and resize that the authors use for DINO."""
    monkeypatch.setitem(sys.modules, "open_clip", None)  # cannot be imported
    make_bundle(dino(tap="norm", interpolation="bilinear"), tmp_path / "bundle", say=quiet)
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (manifest.tap, manifest.preprocess.interpolation) == ("norm", "bilinear")
    assert manifest.preprocess.mean == (0.485, 0.456, 0.406)
    assert (manifest.grid, manifest.layers, manifest.token_width) == ((4, 6), (0, 1), 16)
    assert manifest.parity["pixels"]["max_abs"] < 1e-6
    assert verify(str(tmp_path / "bundle")).layers[1].max_abs < 2e-5


@pytest.mark.parametrize("model", [DINO, SIGLIP])
def test_half_precision(timm: Any, tmp_path: Path, model: str) -> None:
    """Casts are at the ends alone of what a GPU runs; attention, norms and GELU are one node each."""
    said: list[str] = []
    source = TimmSource(model=model, size=SIZE, pretrained=False)
    parity = make_bundle(source, tmp_path / "bundle", "fp16", say=said.append).attention_as_nodes
    assert parity is not None
    assert min(layer.min_cosine for layer in parity.layers) > 0.9999
    assert "  model.attention.onnx with its residual stream in float16" in said
    found = [node.op_type for node in onnx.load(tmp_path / "bundle" / "model.attention.onnx").graph.node]
    assert found.count("Cast") < 10
    assert found.count("Attention") == found.count("Gelu") == (2 if model == DINO else 3)
    assert not {"Pow", "Erf", "Tanh", "Softmax"}.intersection(found)
    assert max(found.count("Transpose"), found.count("Reshape")) <= 2
