"""From an ONNX file to a bundle, with proof, and with nothing left behind where that fails."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from musc_edge._version import __version__
from musc_edge.export import adopt as adopt_module
from musc_edge.export import make as make_module
from musc_edge.export import onnx_file
from musc_edge.export.adopt import OnnxSource
from musc_edge.export.graph import BundleGraph, make_graph
from musc_edge.export.make import make_bundle
from musc_edge.export.probe import load_probe
from musc_edge.export.verify import verify
from musc_edge.runtime.errors import BundleError, OutputError, ParityError
from musc_edge.runtime.images.reading import normalise
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.onnx_backend import OnnxBackend
from support.sources import (
    CLS,
    LAYERS,
    MEAN,
    STD,
    Array,
    block,
    change_weight,
    edit_manifest,
    expected,
    quiet,
    run,
    tiny_source,
)
from support.tiny_vit import INPUT, WIDTH, tiny_vit

pytestmark = pytest.mark.slow

SIZE, PATCHES = (16, 24), 24
FILES = ["manifest.json", "model.attention.onnx", "model.onnx", "model.onnx.data", "probe.npz"]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the bundle goes; its folder holds nothing else."""
    (tmp_path / "bundles").mkdir()
    return tmp_path / "bundles" / "tiny"


@pytest.fixture
def source(tmp_path: Path) -> OnnxSource:
    return tiny_source(tmp_path, SIZE)


@pytest.fixture
def existing(tiny_bundle: Path, out: Path) -> Path:
    """``out`` with the bundle of ``source`` in it."""
    return Path(shutil.copytree(tiny_bundle, out))


# ---- what is written -------------------------------------------------------------------------


@pytest.mark.slow
def test_bundle(source: OnnxSource, out: Path) -> None:
    said: list[str] = []
    parity = make_bundle(source, out, say=said.append)
    assert sorted(content(out)) == FILES
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    manifest = open_bundle(out, whole=True).manifest
    assert manifest.schema_version == 1
    assert (manifest.backbone, manifest.tap, manifest.precision) == ("tiny ViT", "residual", "fp32")
    assert manifest.preprocess == source.preprocess
    assert (manifest.patch_size, manifest.grid) == (4, (4, 6))
    assert (manifest.token_width, manifest.cls_width, manifest.layers) == (WIDTH, WIDTH, LAYERS)
    assert (manifest.input.name, manifest.input.dtype) == ("pixels", "float32")
    assert [(t.name, t.dtype) for t in manifest.tokens] == [("tokens_0", "float32"), ("tokens_2", "float32")]
    assert (manifest.cls.name, manifest.cls.dtype) == ("cls", "float32")
    assert sorted(manifest.files) == FILES[1:]
    for name in manifest.files:
        assert manifest.files[name] == hashlib.sha256((out / name).read_bytes()).hexdigest()
    assert manifest.made_with["musc-edge"] == __version__
    assert manifest.made_with["source_sha256"] == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert manifest.parity == json.loads(json.dumps(parity.as_dict()))
    assert manifest.parity["images"] == 12
    assert [layer["layer"] for layer in manifest.parity["layers"]] == list(LAYERS)
    assert all(0.999999 < layer["min_cosine"] < 1.000001 for layer in manifest.parity["layers"])
    assert manifest.parity["raw_score_rank_correlation"] == pytest.approx(1)
    assert "tiny ViT" in "\n".join(said)
    assert parity.lines() == said[-len(parity.lines()) :]


def test_verify_passes(tiny_bundle: Path) -> None:
    parity = verify(str(tiny_bundle))
    assert parity.images == 12
    assert all(layer.max_abs < 1e-5 for layer in parity.layers)


@pytest.mark.slow
def test_backend_gives_the_numbers_of_the_source(tiny_bundle: Path) -> None:
    """The runtime's own backend, for a batch that the probe does not use."""
    bundle = open_bundle(tiny_bundle)
    images = normalise(load_probe(bundle.probe_path).images[:7], bundle.manifest.preprocess)
    store = HostStore(np.full((2, 7, PATCHES, WIDTH), np.nan, np.float32), np.empty((7, WIDTH), np.float32))
    with OnnxBackend(bundle) as backend:
        backend.extract_into(images, store.slot(0, 7))
    wanted = expected(tiny_vit(), [block(layer) for layer in LAYERS], CLS, images, PATCHES)
    for tokens, layer in zip(store.tokens, wanted.tokens, strict=True):
        np.testing.assert_allclose(tokens, layer, rtol=0, atol=1e-5)
    np.testing.assert_allclose(store.cls, wanted.cls, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_probe_holds_the_numbers_of_the_source(tiny_bundle: Path) -> None:
    probe = load_probe(tiny_bundle / "probe.npz")
    assert probe.images.shape == (12, *SIZE, 3)
    assert probe.images.dtype == np.uint8
    assert len({image.tobytes() for image in probe.images}) == 12
    scaled = (probe.images / 255 - np.array(MEAN)) / np.array(STD)
    images = np.moveaxis(scaled, -1, 1).astype(np.float32)
    wanted = expected(tiny_vit(), [block(layer) for layer in LAYERS], CLS, images, PATCHES)
    for tokens, layer in zip(probe.numbers.tokens, wanted.tokens, strict=True):
        np.testing.assert_allclose(tokens, layer[:, probe.token_index], rtol=0, atol=1e-5)
    np.testing.assert_allclose(probe.numbers.cls, wanted.cls, rtol=0, atol=1e-5)
    assert probe.numbers.raw_scores.shape == (12,)
    assert (probe.numbers.raw_scores > 0).all()


@pytest.mark.parametrize(("size", "kept"), [((16, 24), 24), ((40, 40), 64)])
def test_probe_keeps_at_most_64_tokens_of_an_image(
    tmp_path: Path, out: Path, size: tuple[int, int], kept: int
) -> None:
    make_bundle(tiny_source(tmp_path, size), out, say=quiet)
    probe = load_probe(out / "probe.npz")
    patches = size[0] * size[1] // 16
    assert probe.numbers.tokens.shape == (2, 12, kept, WIDTH)
    assert len(set(probe.token_index.tolist())) == kept
    assert (probe.token_index[0], probe.token_index[-1]) == (0, patches - 1)


@pytest.mark.long
@pytest.mark.parametrize("options", [{"opset": 18, "registers": 4}, {"opset": 17, "fused_norm": True}])
def test_other_exports(tmp_path: Path, out: Path, options: dict[str, Any]) -> None:
    make_bundle(tiny_source(tmp_path, (12, 20), (1,), tiny_vit(**options)), out, say=quiet)
    assert open_bundle(out).manifest.layers == (1,)
    verify(str(out))


def test_given_names_are_in_the_manifest(tmp_path: Path, out: Path) -> None:
    pattern = "/encoder/layer.{layer}/Add_output_0"
    make_bundle(tiny_source(tmp_path, SIZE, (1,), taps=pattern, cls=CLS), out, say=quiet)
    assert open_bundle(out).manifest.tap == pattern


@pytest.mark.long
@pytest.mark.slow
def test_half_precision_source(tmp_path: Path, out: Path) -> None:
    """A source that takes float16 gives a bundle that runs, whatever its input is then called."""
    model = tiny_vit()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in model.graph.node:
        node.input[:] = ["as_float" if name == INPUT else name for name in node.input]
    nodes = [helper.make_node("Cast", [INPUT], ["as_float"], to=TensorProto.FLOAT), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    make_bundle(tiny_source(tmp_path, SIZE, model=model), out, say=quiet)
    verify(str(out))


# ---- the same again --------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_two_exports_are_equal(source: OnnxSource, tiny_bundle: Path, out: Path) -> None:
    make_bundle(source, out, say=quiet)
    assert content(out) == content(tiny_bundle)
    assert open_bundle(out).digest == open_bundle(tiny_bundle).digest


@pytest.mark.slow
def test_another_source_has_another_digest(existing: Path, tmp_path: Path) -> None:
    first = open_bundle(existing).digest
    make_bundle(tiny_source(tmp_path, SIZE, model=tiny_vit(seed=1)), existing, overwrite=True, say=quiet)
    assert open_bundle(existing).digest != first


# ---- external data ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose weights are in a file of their own, for ``large``."""
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)
        make_bundle(tiny_source(folder, SIZE), folder / "bundle", say=quiet)
    return folder / "bundle"


@pytest.fixture
def large(made_large: Path, out: Path) -> Path:
    """A bundle whose weights are in a file of their own."""
    return Path(shutil.copytree(made_large, out))


@pytest.mark.long
@pytest.mark.slow
def test_external_data(large: Path, tmp_path: Path) -> None:
    assert sorted(content(large)) == FILES
    files = open_bundle(large, whole=True).manifest.files
    assert files["model.onnx.data"] == hashlib.sha256((large / "model.onnx.data").read_bytes()).hexdigest()
    assert verify(str(large)).images == 12
    moved = large.rename(tmp_path / "moved")
    assert verify(str(moved)).images == 12


def test_external_data_that_is_missing(large: Path) -> None:
    (large / "model.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"lacks model.onnx.data"):
        open_bundle(large)


@pytest.mark.parametrize("check", [{}, {"whole": True}], ids=["as infer opens it", "everything"])
def test_external_data_that_was_changed(large: Path, check: dict[str, Any]) -> None:
    """The weights will be read, so their hash is compared whenever the bundle is opened."""
    data = bytearray((large / "model.onnx.data").read_bytes())
    data[5000] ^= 1
    (large / "model.onnx.data").write_bytes(data)
    with pytest.raises(BundleError, match=r"model.onnx.data was changed"):
        open_bundle(large, **check)


# ---- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (lambda: tiny_vit(static_batch=True), {}, "any batch"),
        (tiny_vit, {"layers": (0, 3)}, r"no block \[3\]"),
        (tiny_vit, {"taps": "blocks.{layer}"}, "no tensor matches"),
        (tiny_vit, {"cls": "pooled"}, "no tensor 'pooled'"),
        (tiny_vit, {"path": Path("/no/such/model.onnx")}, "no ONNX file /no/such/model.onnx"),
    ],
)
def test_unusable_sources(
    tmp_path: Path,
    out: Path,
    model: Callable[[], onnx.ModelProto],
    changes: dict[str, Any],
    message: str,
) -> None:
    source = dataclasses.replace(tiny_source(tmp_path, SIZE, model=model()), **changes)
    with pytest.raises(BundleError, match=message):
        make_bundle(source, out, say=quiet)
    assert list(out.parent.iterdir()) == []


def test_batch_of_one_in_the_last_block_only(tmp_path: Path, out: Path) -> None:
    """No shape is computed behind it, so it is found when the source has to run with several images."""
    model = tiny_vit()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, PATCHES + 1, WIDTH]), "one_image"))
    last = block(2)
    (place,) = [k for k, node in enumerate(model.graph.node) if last in node.output]
    model.graph.node[place].output[0] = "free"
    model.graph.node.insert(place + 1, helper.make_node("Reshape", ["free", "one_image"], [last]))
    with pytest.raises(BundleError, match=r"images of shape \([^1](.|\n)*any batch"):
        make_bundle(tiny_source(tmp_path, SIZE, model=model), out, say=quiet)
    assert list(out.parent.iterdir()) == []


def test_source_that_is_not_finite(tmp_path: Path, out: Path) -> None:
    """It is the source that is at fault, not the number of images or the backend."""
    model = tiny_vit()
    make_nan(model)
    with pytest.raises(BundleError, match=r"source.* not finite"):
        make_bundle(tiny_source(tmp_path, SIZE, model=model), out, say=quiet)
    assert list(out.parent.iterdir()) == []


# ---- a graph that is wrong -------------------------------------------------------------------


def change_patch_weight(model: onnx.ModelProto) -> None:
    index = next(k for k, w in enumerate(model.graph.initializer) if w.name.endswith("projection.weight"))
    weight = np.array(numpy_helper.to_array(model.graph.initializer[index]))
    weight[0, 0, 0, 0] += 0.5
    change_weight(model, index, weight)


def mirror_position_embedding(model: onnx.ModelProto) -> None:
    shape = [1, PATCHES + 1, WIDTH]
    index = next(k for k, w in enumerate(model.graph.initializer) if list(w.dims) == shape)
    position = np.array(numpy_helper.to_array(model.graph.initializer[index]))
    position[:, 1:] = position[:, :0:-1]
    change_weight(model, index, position)


def keep_cls_among_the_patches(model: onnx.ModelProto) -> None:
    for name, value in (("tokens_0.start", 0), ("tokens_0.end", PATCHES)):
        index = next(k for k, w in enumerate(model.graph.initializer) if w.name == name)
        change_weight(model, index, np.array([value]))


def leave_the_mean(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Sub" and node.output[0] == "tokens_2":
            node.op_type = "Add"


def take_a_patch_for_cls(model: onnx.ModelProto) -> None:
    index = next(k for k, w in enumerate(model.graph.initializer) if w.name == "cls.index")
    change_weight(model, index, np.array(1))


def make_nan(model: onnx.ModelProto) -> None:
    index = next(k for k, w in enumerate(model.graph.initializer) if w.name.endswith("projection.bias"))
    change_weight(model, index, np.full(WIDTH, np.nan, np.float32))


Change = Callable[[onnx.ModelProto], None]


def perturb(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    def perturbed(*arguments: Any) -> BundleGraph:
        graph = make_graph(*arguments)
        change(graph.model)
        return graph

    monkeypatch.setattr(adopt_module, "make_graph", perturbed)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_patch_weight, r"layer 0: lowest token cosine 0\.\d+.*\n.*layer 2"),
        (mirror_position_embedding, r"layer 0: lowest token cosine -?0\.\d+"),
        (keep_cls_among_the_patches, r"layer 0: lowest token cosine"),
        (leave_the_mean, r"layer 2: lowest token cosine"),
        (take_a_patch_for_cls, r"CLS: lowest cosine"),
        (make_nan, r"layer 0: lowest token cosine nan"),
    ],
)
@pytest.mark.slow
def test_a_wrong_graph_is_no_bundle(
    source: OnnxSource, out: Path, monkeypatch: pytest.MonkeyPatch, change: Change, message: str
) -> None:
    perturb(monkeypatch, change)
    with pytest.raises(ParityError, match=message):
        make_bundle(source, out, say=quiet)
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_a_wrong_graph_leaves_the_old_bundle(
    source: OnnxSource, existing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(existing)
    perturb(monkeypatch, change_patch_weight)
    with pytest.raises(ParityError):
        make_bundle(source, existing, overwrite=True, say=quiet)
    assert content(existing) == before
    assert [path.name for path in existing.parent.iterdir()] == ["tiny"]


# ---- the folder ------------------------------------------------------------------------------


def test_existing_bundle_is_not_replaced_unasked(source: OnnxSource, existing: Path) -> None:
    before = content(existing)
    with pytest.raises(OutputError, match="--overwrite"):
        make_bundle(source, existing, say=quiet)
    assert content(existing) == before


@pytest.mark.slow
def test_overwrite(existing: Path, tmp_path: Path) -> None:
    (existing / "model.onnx.data").write_bytes(b"left by another export, and longer than the weights" * 1000)
    make_bundle(tiny_source(tmp_path, (8, 8), (1,)), existing, overwrite=True, say=quiet)
    assert sorted(content(existing)) == FILES
    assert open_bundle(existing, whole=True).manifest.grid == (2, 2)
    assert [path.name for path in existing.parent.iterdir()] == ["tiny"]


@pytest.mark.long
@pytest.mark.slow
def test_overwrite_of_a_damaged_bundle(source: OnnxSource, existing: Path) -> None:
    edit_manifest(existing, schema_version=99)
    make_bundle(source, existing, overwrite=True, say=quiet)
    verify(str(existing))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(source: OnnxSource, out: Path, overwrite: bool) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not ours"):
        make_bundle(source, out, overwrite=overwrite, say=quiet)
    assert content(out) == {"thesis.tex": b"years of work"}


def test_a_file_in_the_way(source: OnnxSource, out: Path) -> None:
    out.write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        make_bundle(source, out, overwrite=True, say=quiet)
    assert out.read_text() == "a file"


def test_folders_above_are_made(source: OnnxSource, out: Path) -> None:
    make_bundle(source, out / "a" / "b", say=quiet)
    open_bundle(out / "a" / "b", whole=True)


def test_empty_folder_is_used(source: OnnxSource, out: Path) -> None:
    out.mkdir()
    make_bundle(source, out, say=quiet)
    open_bundle(out, whole=True)


@pytest.mark.long
@pytest.mark.parametrize(
    "where", ["save_graph", "probe_images", "numbers_of", "save_probe", "write_manifest", "compare"]
)
@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
@pytest.mark.slow
def test_interrupt_leaves_nothing(
    source: OnnxSource, tiny_bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch, where: str, old: bool
) -> None:
    if old:
        shutil.copytree(tiny_bundle, out)
    before = content(out) if old else {}
    done: list[str] = []

    def interrupted(*arguments: Any) -> None:
        done.extend(path.name for path in out.parent.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(make_module, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_bundle(source, out, overwrite=True, say=quiet)
    assert any(name.endswith(".partial") for name in done)  # it was at work on a folder
    assert [path.name for path in out.parent.iterdir()] == (["tiny"] if old else [])
    assert (content(out) if old else {}) == before


def test_full_disk_is_an_output_error(source: OnnxSource, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_module, "save_probe", full)
    with pytest.raises(OutputError, match="No space left on device"):
        make_bundle(source, out, say=quiet)
    assert list(out.parent.iterdir()) == []


def test_outputs_of_the_written_graph(tiny_bundle: Path) -> None:
    """Anybody can run the file without this package."""
    model = onnx.load(tiny_bundle / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    images: Array = np.zeros((3, 3, *SIZE), np.float32)
    assert {name: value.shape for name, value in run(model, images).items()} == {
        "tokens_0": (3, PATCHES, WIDTH),
        "tokens_2": (3, PATCHES, WIDTH),
        "cls": (3, WIDTH),
    }
