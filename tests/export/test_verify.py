"""Checking a bundle where it is: files, probe, manifest and numbers."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers_export import Array, change_weight, edit_manifest, quiet, rehash, tiny_source
from musc_edge.export.make import make_bundle
from musc_edge.export.probe import load_probe
from musc_edge.export.verify import verify
from musc_edge.runtime.bundle import open_bundle
from musc_edge.runtime.errors import BundleError, ParityError
from tiny_vit import WIDTH, tiny_vit

SIZE = (16, 24)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_bundle(tiny_source(folder, SIZE), folder / "bundle", say=quiet)
    return folder / "bundle"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same form from a ViT with other weights."""
    folder = tmp_path_factory.mktemp("other")
    make_bundle(tiny_source(folder, SIZE, model=tiny_vit(seed=1)), folder / "bundle", say=quiet)
    return folder / "bundle"


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def edit_probe(bundle: Path, **arrays: Any) -> None:
    """Replace arrays of the probe (None: leave out), with the manifest's hash brought up to date."""
    path = bundle / "probe.npz"
    with np.load(path) as data:
        new: dict[str, Any] = {**data, **arrays}
    np.savez(path, **{name: array for name, array in new.items() if array is not None})
    rehash(bundle)


def test_passes(bundle: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    parity = verify(str(bundle))
    assert (parity.images, [layer.layer for layer in parity.layers]) == (12, [0, 2])
    assert parity.raw_score_rank_correlation == pytest.approx(1)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


# ---- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_bit(bundle: Path, name: str, place: float) -> None:
    flip(bundle / name, place)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        verify(str(bundle))


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz", "manifest.json"])
def test_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        verify(str(bundle))


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        verify(str(tmp_path / "nothing"))


# ---- the model -------------------------------------------------------------------------------


def test_model_of_another_vit(bundle: Path, other: Path) -> None:
    """The hashes fit, the probe does not: nobody could tell from the files alone."""
    shutil.copy(other / "model.onnx", bundle)
    rehash(bundle)
    open_bundle(bundle, whole=True)
    with pytest.raises(ParityError, match=r"cpu on .*bundle does not(.|\n)*layer 0(.|\n)*layer 2(.|\n)*CLS"):
        verify(str(bundle))


def test_probe_of_another_vit(bundle: Path, other: Path) -> None:
    shutil.copy(other / "probe.npz", bundle)
    rehash(bundle)
    with pytest.raises(ParityError, match="lowest token cosine"):
        verify(str(bundle))


def test_one_changed_weight(bundle: Path) -> None:
    path = bundle / "model.onnx"
    model = onnx.load(path)
    index = next(k for k, w in enumerate(model.graph.initializer) if w.name == "layernorm.bias")
    weight = np.array(numpy_helper.to_array(model.graph.initializer[index]))
    weight[0] += 0.1
    change_weight(model, index, weight)
    onnx.save(model, path)
    rehash(bundle)
    with pytest.raises(
        ParityError, match=r"numbers:\n  CLS: lowest cosine 0\.99\d+, expected at least 0\.99999$"
    ):
        verify(str(bundle))


def test_model_that_gives_nan(bundle: Path) -> None:
    path = bundle / "model.onnx"
    model = onnx.load(path)
    index = next(k for k, w in enumerate(model.graph.initializer) if w.name.endswith("projection.bias"))
    change_weight(model, index, np.full(WIDTH, np.nan, np.float32))
    onnx.save(model, path)
    rehash(bundle)
    with pytest.raises(ParityError, match="nan"):
        verify(str(bundle))


def test_model_that_is_not_onnx(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"not a graph")
    rehash(bundle)
    with pytest.raises(BundleError, match=r"cannot load .*model.onnx"):
        verify(str(bundle))


# ---- the manifest ----------------------------------------------------------------------------


def output(name: str, dtype: str = "float32") -> dict[str, str]:
    return {"name": name, "dtype": dtype}


@pytest.mark.parametrize(
    ("changes", "unexpected", "missing"),
    [
        ({"tokens": [output("tokens_0"), output("tokens_1")]}, "tokens_2 float32", "tokens_1 float32"),
        ({"tokens": [output("tokens_0"), output("x", "float16")]}, "tokens_2 float32", "x float16"),
        ({"cls": output("embedding")}, r"cls float32 \(B, 16\)", r"embedding float32 \(B, 16\)"),
        ({"input": output("image")}, r"pixels float32 \(B, 3, 16, 24\)", r"image float32 \(B, 3, 16, 24\)"),
        ({"input": output("pixels", "float16")}, "pixels float32", "pixels float16"),
    ],
)
def test_manifest_that_does_not_fit_the_graph(
    bundle: Path, changes: dict[str, Any], unexpected: str, missing: str
) -> None:
    edit_manifest(bundle, **changes)
    message = f"unexpected are .*{unexpected}.*; missing are .*{missing}"
    with pytest.raises(BundleError, match=message):
        verify(str(bundle))


@pytest.mark.parametrize("field", ["token_width", "cls_width"])
def test_widths_that_do_not_fit(bundle: Path, field: str) -> None:
    edit_manifest(bundle, **{field: 8})
    with pytest.raises(BundleError, match="does not fit"):
        verify(str(bundle))


def test_unknown_precision(bundle: Path) -> None:
    edit_manifest(bundle, precision="int4")
    with pytest.raises(BundleError, match=r"'int4'.*fp32"):
        verify(str(bundle))


# ---- the probe -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokens", lambda a: a[:1]),
        ("tokens", lambda a: a[:, :11]),
        ("tokens", lambda a: a[:, :, :5]),
        ("tokens", lambda a: a[..., :8]),
        ("tokens", lambda a: a[0]),
        ("images", lambda a: a[:11]),
        ("images", lambda a: a[:, :8]),
        ("images", lambda a: a.swapaxes(1, 2)),
        ("images", lambda a: a[..., 0]),
        ("token_index", lambda a: a[:5]),
        ("token_index", lambda a: a + 1000),
        ("cls", lambda a: a[:11]),
        ("cls", lambda a: a[:, :8]),
        ("raw_scores", lambda a: a[:11]),
    ],
)
def test_probe_of_another_form(bundle: Path, name: str, change: Callable[[Array], Array]) -> None:
    with np.load(bundle / "probe.npz") as data:
        changed = change(data[name])
    edit_probe(bundle, **{name: changed})
    with pytest.raises(BundleError, match=r"probe.npz"):
        verify(str(bundle))


def test_message_says_which_form_was_expected(bundle: Path) -> None:
    with np.load(bundle / "probe.npz") as data:
        changed = data["tokens"][..., :8]
    edit_probe(bundle, tokens=changed)
    with pytest.raises(BundleError) as caught:
        verify(str(bundle))
    assert "(2, 12, 24, 8)" in str(caught.value)
    assert "(2, 12, 24, 16)" in str(caught.value)


@pytest.mark.parametrize("name", ["images", "token_index", "tokens", "cls", "raw_scores"])
def test_probe_without_an_array(bundle: Path, name: str) -> None:
    edit_probe(bundle, **{name: None})
    with pytest.raises(BundleError, match=f"probe.npz is not a probe.*{name}"):
        verify(str(bundle))


def saved(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        lambda data: b"",
        lambda data: b"not a probe",
        lambda data: data[: len(data) // 2],
        lambda data: data[:100] + bytes(len(data) - 100),
        lambda data: data[:2000] + bytes(64) + data[2064:],
        lambda data: saved(np.zeros(3)),
    ],
    ids=["empty", "text", "truncated", "zeros", "damaged inside", "npy"],
)
def test_file_that_is_no_probe(bundle: Path, content: Callable[[bytes], bytes]) -> None:
    path = bundle / "probe.npz"
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(BundleError, match=r"probe.npz is not a probe that can be read"):
        load_probe(path)


def test_probe_with_pickled_objects_is_not_read(bundle: Path) -> None:
    """Reading a pickle would run what is in it."""
    edit_probe(bundle, cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BundleError, match="is not a probe that can be read"):
        verify(str(bundle))


def test_manifest_is_what_was_written(made: Path) -> None:
    """The parity in the manifest is that of the whole token maps; verify's is never worse."""
    stored = json.loads((made / "manifest.json").read_text())["parity"]
    found = verify(str(made)).as_dict()
    for a, b in zip(stored["layers"], found["layers"], strict=True):
        assert b["max_abs"] <= a["max_abs"]
        assert b["min_cosine"] >= a["min_cosine"]
