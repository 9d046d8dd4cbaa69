"""open_clip's ViTs: what is run, what decides its parts, and the proof that a bundle has its numbers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from musc_edge.export import clip as clip_module
from musc_edge.export import make, onnx_file, tower, weights
from musc_edge.export.clip import ClipSource
from musc_edge.export.make import make_bundle
from musc_edge.export.verify import verify
from musc_edge.runtime.errors import BundleError, OutputError, ParityError
from musc_edge.runtime.images.reading import preprocess, read_image
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.onnx_backend import import_onnxruntime
from support.tiny_clip import (
    BLOCKS,
    GRID,
    NAME,
    PATCH,
    SIDE,
    SIZE,
    TAG,
    WIDTH,
    StoredGraph,
    open_clip_with_tiny,
    quiet,
    tiny_clip,
    tiny_state,
)

pytestmark = pytest.mark.long

NATIVE = (SIDE, SIDE)
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_clip_with_tiny(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def checkpoint(open_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(tiny_state(open_clip), path)
    return path


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model: the one test of this file that waits for torch's exporter."""
    out = tmp_path_factory.mktemp("made") / "bundle"
    make_bundle(tiny_clip(checkpoint=checkpoint), out, say=quiet)
    return out


@pytest.fixture
def quick(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graph of ``made`` for whatever is exported."""
    monkeypatch.setattr(tower, "to_onnx", StoredGraph(made / "model.onnx"))


def visual_of(source: ClipSource) -> Any:
    tower: Any = source.load(quiet).tower
    return tower.visual


# ---- the bundle ------------------------------------------------------------------------------


def test_bundle(made: Path) -> None:
    manifest = open_bundle(made, whole=True).manifest
    assert (manifest.backbone, manifest.pretrained, manifest.activation) == (
        NAME,
        "file tiny.safetensors",
        "gelu",
    )
    assert (manifest.tap, manifest.precision, manifest.layers) == ("residual", "fp32", (0, 1))
    assert (manifest.patch_size, manifest.grid) == (PATCH, GRID)
    assert (manifest.token_width, manifest.cls_width) == (WIDTH, 24)
    assert (manifest.preprocess.size, manifest.preprocess.mean) == (SIZE, OPENAI_MEAN)
    assert manifest.made_with["position_embedding"] == "bicubic, antialias off, 4x4 to 4x6"
    assert manifest.made_with["weights"].startswith("sha256 ")
    assert manifest.parity["pixels"]["max_abs"] < 1e-6
    assert all(layer["max_abs"] < 2e-5 for layer in manifest.parity["layers"])
    assert verify(str(made)).images == 12


def test_graph_keeps_layer_norms_whole_and_says_nothing_of_this_machine(made: Path) -> None:
    data = (made / "model.onnx").read_bytes()
    graph = onnx.load_from_string(data).graph
    assert sum(node.op_type == "LayerNormalization" for node in graph.node) == 2 * BLOCKS + 2
    assert not any(node.op_type == "Pow" for node in graph.node)
    assert [value.name for value in graph.output] == ["tokens_0", "tokens_1", "cls"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert b"site-packages" not in data
    assert str(Path.home()).encode() not in data


def test_the_batch_is_free(made: Path) -> None:
    session = import_onnxruntime().InferenceSession(str(made / "model.onnx"))
    for batch in (1, 5):
        tokens, _, cls = session.run(None, {"pixels": np.zeros((batch, 3, *SIZE), np.float32)})
        assert (tokens.shape, cls.shape) == ((batch, GRID[0] * GRID[1], WIDTH), (batch, 24))


@pytest.mark.usefixtures("quick")
def test_the_weights_are_gone_when_the_bundle_is_proven(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever still holds the model or its graph: the exporter's rewriting rules do."""
    held: list[Any] = []

    def remember(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            held.append(method(*arguments))
            return held[-1]

        return call

    def left(folder: Path, *arguments: Any) -> Any:
        loaded, graph = held
        assert all(tensor.numel() == 0 for tensor in loaded.tower.state_dict().values())
        assert all(value.const_value is None for value in graph.model.graph.initializers.values())
        return prove(folder, *arguments)

    prove = make._prove
    monkeypatch.setattr(make, "_prove", left)
    monkeypatch.setattr(ClipSource, "load", remember(ClipSource.load))
    monkeypatch.setattr(tower.LoadedTower, "graph", remember(tower.LoadedTower.graph))
    assert make_bundle(tiny_clip(checkpoint=checkpoint), tmp_path / "bundle", say=quiet).images == 12


# ---- what is computed ------------------------------------------------------------------------


def test_tokens_are_the_residual_stream_and_cls_is_projected(open_clip: Any, checkpoint: Path) -> None:
    """Against a forward pass that is written out here, as the authors' is: no final norm on the tokens."""
    loaded = tiny_clip(size=NATIVE, checkpoint=checkpoint).load(quiet)
    visual = open_clip.create_model(NAME, load_weights=False).visual.eval()
    state = {
        k.removeprefix("visual."): v for k, v in tiny_state(open_clip).items() if k.startswith("visual.")
    }
    visual.load_state_dict(state)
    pixels = torch.randn(2, 3, *NATIVE)
    with torch.no_grad():
        x = visual.conv1(pixels).flatten(2).permute(0, 2, 1)
        x = torch.cat([visual.class_embedding.expand(2, 1, -1), x], 1) + visual.positional_embedding
        x = visual.ln_pre(x)
        wanted = []
        for block in visual.transformer.resblocks:
            attended, _ = block.attn(block.ln_1(x), block.ln_1(x), block.ln_1(x), need_weights=True)
            x = x + attended
            x = x + block.mlp(block.ln_2(x))
            wanted.append(x[:, 1:])
        wanted.append(visual.ln_post(x[:, 0]) @ visual.proj)
        found = loaded.tower(pixels)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [NATIVE, SIZE, (56, 40)])
def test_pixels_of_both_ways_are_equal(open_clip: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    """open_clip's transform and the runtime's, on an image that is neither square nor small."""
    noise = np.random.default_rng(0).integers(0, 256, (211, 97, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    loaded = tiny_clip(size=size).load(quiet)
    found = preprocess(read_image(tmp_path / "a.png"), loaded.description.preprocess)
    wanted = loaded.transform(Image.open(tmp_path / "a.png")).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "quick_gelu"),
    [
        ({"pretrained": TAG, "size": NATIVE}, True),
        ({"pretrained": TAG, "size": SIZE}, False),
        ({"pretrained": TAG, "size": NATIVE, "preset": "openclip"}, False),
        ({"pretrained": TAG, "size": NATIVE, "activation": "gelu"}, False),
        ({"pretrained": TAG, "size": SIZE, "activation": "quickgelu"}, True),
        ({"pretrained": "none", "size": NATIVE}, False),
    ],
)
def test_activation(open_clip: Any, checkpoint: Path, changes: dict[str, Any], quick_gelu: bool) -> None:
    """The authors' code: QuickGELU for OpenAI's weights at the model's own size, GELU at every other."""
    loaded = tiny_clip(checkpoint=checkpoint, **changes).load(quiet)
    tower: Any = loaded.tower
    kinds = {type(block.mlp.gelu).__name__ for block in tower.visual.transformer.resblocks}
    assert kinds == {"QuickGELU" if quick_gelu else "GELU"}
    assert loaded.description.activation == ("quickgelu" if quick_gelu else "gelu")


def test_presets_differ_in_the_position_embedding(open_clip: Any, checkpoint: Path) -> None:
    """The preset openclip is what upstream makes of a checkpoint; the authors' is not."""
    upstream = open_clip.create_model(NAME, pretrained=str(checkpoint), force_image_size=SIZE)
    wanted = upstream.visual.positional_embedding
    found = {
        preset: visual_of(tiny_clip(checkpoint=checkpoint, preset=preset)).positional_embedding
        for preset in ("authors", "openclip")
    }
    torch.testing.assert_close(found["openclip"], wanted, rtol=0, atol=1e-6)
    assert float((found["authors"] - wanted).detach().abs().max()) > 0.01


@pytest.mark.parametrize("kind", ["whole", "tower", "half", "wrapped"])
def test_checkpoints(open_clip: Any, tmp_path: Path, kind: str) -> None:
    state = tiny_state(open_clip)
    visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    content: Any = {
        "whole": state,
        "tower": visual,
        "half": {name: value.half() for name, value in visual.items()},
        "wrapped": {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
    }[kind]
    torch.save(content, tmp_path / "weights.pt")
    source = tiny_clip(size=NATIVE, checkpoint=tmp_path / "weights.pt")
    assert source.load(quiet).description.pretrained == "file weights.pt"
    for name, value in visual_of(source).state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, visual[name], rtol=0, atol=2e-3 if kind == "half" else 0)


def test_seed_decides_random_weights(open_clip: Any) -> None:
    first, again, other = (visual_of(tiny_clip(seed=s)).conv1.weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ---- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ViT-L-14-337"}, r"no model 'ViT-L-14-337'. Similar names: ViT-L-14-336"),
        ({"model": "RN50"}, "no ViT of open_clip's own.*musc-export timm"),
        ({"model": "ViT-B-16-SigLIP"}, "no ViT of open_clip's own.*musc-export timm"),
        ({"pretrained": "openia"}, f"no weights 'openia' for {NAME}. Similar names: openai"),
        ({"size": (33, 48)}, "33x48 is not a multiple of the patch size 8; try 32x48"),
        ({"layers": (0, 2)}, r"no block \[2\]; it has blocks 0 to 1"),
        ({"layers": (1, 1)}, "different block indices"),
        ({"pretrained": TAG}, r"cannot be downloaded \(HF_HUB_OFFLINE.*nobody/tiny/.*--checkpoint FILE"),
        ({"checkpoint": Path("/no/such/file.pt")}, "no checkpoint /no/such/file.pt"),
    ],
)
def test_unusable(open_clip: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        make_bundle(tiny_clip(**changes), tmp_path / "bundle", say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_does_not_answer(open_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own client would retry for a minute."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = r"127\.0\.0\.1:9 cannot be reached: .*refused.*fetch http.*safetensors.*--pretrained openai"
    with pytest.raises(BundleError, match=message):
        tiny_clip(pretrained=TAG).load(quiet)


def test_weights_of_another_architecture(open_clip: Any, tmp_path: Path) -> None:
    state = tiny_state(open_clip)
    state["visual.conv1.weight"] = torch.zeros(WIDTH, 3, 4, 4)
    del state["visual.proj"]
    torch.save(state, tmp_path / "other.pt")
    message = r"another architecture: 2 of \d+ .*conv1.weight is \(32, 3, 4, 4\), expected \(32, 3, 8, 8\)"
    with pytest.raises(BundleError, match=message):
        tiny_clip(checkpoint=tmp_path / "other.pt").load(quiet)


class Opens:
    """What a harmful checkpoint holds: loading it without care would call this."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("/tmp/written-by-a-checkpoint", "w")


@pytest.mark.parametrize("content", [{"a": Opens()}, [1, 2], {"a": "text"}])
def test_checkpoints_that_are_not_tensors(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(
        BundleError, match=r"bad.pt (is not a checkpoint that can be read safely|holds no tensors)"
    ):
        weights.load_weights(tmp_path / "bad.pt")


@pytest.mark.parametrize("name", ["bad.pt", "bad.safetensors"])
def test_checkpoints_that_are_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(BundleError, match=r"cannot? be read safely|can be read safely"):
        weights.load_weights(tmp_path / name)


# ---- the proof -------------------------------------------------------------------------------


def changed_build(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> ClipSource:
    """A source of which one weight of the first block was changed after it was loaded."""

    def changed(visual: Any, *arguments: Any) -> None:
        weights.assign(visual, *arguments)
        visual.transformer.resblocks[0].mlp.c_fc.weight.data[3, 5] += 1.0

    monkeypatch.setattr(clip_module, "assign", changed)
    return tiny_clip(checkpoint=checkpoint)


def changed_transform(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, **changes: Any) -> ClipSource:
    """A source whose own transform is another than the one that the manifest will state."""
    transform = clip_module._transform
    monkeypatch.setattr(
        clip_module, "_transform", lambda spec: transform(dataclasses.replace(spec, **changes))
    )
    return tiny_clip(checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (changed_build, r"layer 0: lowest token cosine 0\.\d+"),
        (
            lambda m, c: tiny_clip(checkpoint=c, activation="quickgelu"),
            r"layer 0: lowest token cosine 0\.\d+",
        ),
        (lambda m, c: tiny_clip(checkpoint=c, preset="openclip"), r"layer 0: lowest token cosine 0\.\d+"),
        (lambda m, c: changed_transform(m, c, mean=(0.48, 0.46, 0.41)), "preprocessing: images differ by"),
        (lambda m, c: changed_transform(m, c, interpolation="bilinear"), "preprocessing: images differ by"),
    ],
    ids=["one weight", "activation", "position embedding", "mean", "resize"],
)
def test_a_bundle_that_differs_from_its_source(
    quick: None,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[pytest.MonkeyPatch, Path], ClipSource],
    message: str,
) -> None:
    """The graph is the unchanged one; its source is perturbed in one part."""
    with pytest.raises(ParityError, match=message):
        make_bundle(source(monkeypatch, checkpoint), tmp_path / "bundle", say=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.47, 0.4578275, 0.40821073]}, "layer 0"),
        ({"interpolation": "bilinear"}, "preprocessing: images differ by"),
    ],
)
def test_verify_finds_a_manifest_that_preprocesses_otherwise(
    made: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(made, tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["preprocess"].update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ParityError, match=message):
        verify(str(tmp_path / "bundle"))


# ---- half precision, disk, interrupts --------------------------------------------------------


def test_half_precision(
    quick: None, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its weights in a file of their own, as a large model has them."""
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)
    parity = make_bundle(tiny_clip(checkpoint=checkpoint), tmp_path / "bundle", "fp16", say=quiet)
    assert all(layer.min_cosine > 0.9999 for layer in parity.layers)
    assert parity.attention_as_nodes is not None
    assert all(layer.min_cosine > 0.9999 for layer in parity.attention_as_nodes.layers)
    nodes = onnx.load(tmp_path / "bundle" / "model.attention.onnx").graph.node
    assert sum(node.op_type == "Cast" for node in nodes) < 10  # the residual stream is in half
    manifest = open_bundle(tmp_path / "bundle", whole=True).manifest
    assert (manifest.precision, manifest.input.dtype, manifest.cls.dtype) == ("fp16", "float32", "float32")
    assert {tokens.dtype for tokens in manifest.tokens} == {"float16"}
    assert "model.onnx.data" in manifest.files
    onnx.checker.check_model(str(tmp_path / "bundle" / "model.onnx"), full_check=True)
    verify(str(tmp_path / "bundle"))


def test_a_disk_that_is_too_full(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(OutputError, match=r"0\.00 GB free; the bundle needs 0\.05 GB"):
        make_bundle(tiny_clip(), tmp_path / "bundle", say=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["to_onnx", "_joined"])
def test_interrupt_leaves_nothing(
    open_clip: Any, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tower, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_bundle(tiny_clip(), tmp_path / "bundle", say=quiet)
    assert list(tmp_path.iterdir()) == []
