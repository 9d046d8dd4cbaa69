"""Checking a bundle where it is: files, probe, manifest and numbers."""

from __future__ import annotations

import io
import json
import shutil
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from musc_edge.export.make import make_bundle
from musc_edge.export.probe import load_probe
from musc_edge.export.verify import verify
from musc_edge.runtime.errors import BundleError, ParityError
from musc_edge.runtime.vit.bundle import open_bundle
from support.sources import Array, change_weight, edit_manifest, quiet, rehash, tiny_source
from support.tiny_vit import WIDTH, tiny_vit

pytestmark = pytest.mark.slow

SIZE = (16, 24)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same form from a ViT with other weights."""
    folder = tmp_path_factory.mktemp("other")
    make_bundle(tiny_source(folder, SIZE, model=tiny_vit(seed=1)), folder / "bundle", say=quiet)
    return folder / "bundle"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_model_of_another_vit(bundle: Path, other: Path) -> None:
    """The hashes fit, the probe does not: nobody could tell from the files alone."""
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(other / name, bundle)
    rehash(bundle)
    open_bundle(bundle, whole=True)
    with pytest.raises(
        ParityError,
        match=r"cpu on .*bundle, attention in pieces, does not(.|\n)*layer 0(.|\n)*layer 2(.|\n)*CLS",
    ):
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


def zipped(
    bundle: Path,
    members: Sequence[tuple[str | zipfile.ZipInfo, bytes]],
    compression: int = zipfile.ZIP_DEFLATED,
) -> None:
    """A probe made by hand, with the manifest's hash brought up to date; a ``ZipInfo`` is not compressed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        with zipfile.ZipFile(bundle / "probe.npz", "w", compression) as archive:
            for name, content in members:
                archive.writestr(name, content)
    rehash(bundle)


def members_of(bundle: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(bundle / "probe.npz") as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


@pytest.mark.parametrize(
    "change",
    [
        lambda members: [*members, ("more.npy", saved(np.zeros(3)))],
        lambda members: [*members, members[0]],
        lambda members: [("images", members[0][1]), *members[1:]],
        lambda members: [("../images.npy", members[0][1]), *members[1:]],
        lambda members: [*members, *((zipfile.ZipInfo(f"{k}.npy"), b"") for k in range(70_000))],
        lambda members: [(name, content + b"more") for name, content in members],
        lambda members: [(name, content[:-1]) for name, content in members],
        lambda members: [(name, b"") for name, _ in members],
    ],
    ids=["one more", "one twice", "suffix", "path", "many", "longer", "shorter", "empty"],
)
@pytest.mark.slow
def test_probe_of_other_members(bundle: Path, change: Callable[[Any], Any]) -> None:
    zipped(bundle, change(members_of(bundle)))
    with pytest.raises(BundleError, match=r"probe\.npz is not a probe that can be read: .*Export"):
        verify(str(bundle))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_probe_in_another_compression(bundle: Path, compression: int) -> None:
    """Only what numpy writes is unpacked."""
    zipped(bundle, members_of(bundle), compression)
    with pytest.raises(BundleError, match="compressed in a way that numpy does not use"):
        verify(str(bundle))


def test_encrypted_probe(bundle: Path) -> None:
    path = bundle / "probe.npz"
    zipped(bundle, members_of(bundle))
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 8] |= 1
    path.write_bytes(content)
    rehash(bundle)
    with pytest.raises(BundleError, match="encrypted"):
        verify(str(bundle))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokens", lambda a: a.astype(np.float64)),
        ("tokens", lambda a: a.astype(np.float16)),
        ("images", lambda a: a.astype(np.int8)),
        ("token_index", lambda a: a.astype(np.float64)),
        ("token_index", lambda a: a[None]),
        ("token_index", lambda a: a[0]),
        ("token_index", lambda a: a[:0]),
        ("images", lambda a: a[0, 0, 0, 0]),
        ("cls", lambda a: a.astype("S8")),
        ("cls", lambda a: a.astype(">f4")),
        ("raw_scores", lambda a: a.astype("M8[s]")),
        ("raw_scores", lambda a: np.zeros(len(a), [("a", "<f8")])),
    ],
)
def test_probe_of_another_type(bundle: Path, name: str, change: Callable[[Array], Array]) -> None:
    with np.load(bundle / "probe.npz") as data:
        changed = change(data[name])
    edit_probe(bundle, **{name: changed})
    with pytest.raises(BundleError, match=r"probe\.npz (is not a probe|does not fit)"):
        verify(str(bundle))


def header(shape: str) -> bytes:
    """That of an array of bytes."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("start", "zeros"),
    [
        (header("(12, 16, 24, 3)"), 3 * 10**7),
        (header("(12, 1000, 1000, 3)"), 12 * 1000 * 1000 * 3),
        (header("(4611686018427387904,)"), 0),
        (header("(100000000, 16, 24, 3)"), 0),
        (b"\x93NUMPY\x02\x00\x00\x00\x00\x10", 3 * 10**7),
    ],
    ids=["data behind the data", "large and there", "4 EiB", "many images", "header"],
)
@pytest.mark.slow
def test_probe_that_unpacks_to_more_than_the_manifest_says(bundle: Path, start: bytes, zeros: int) -> None:
    bomb = start + bytes(zeros)
    zipped(bundle, [(n, bomb if n == "images.npy" else content) for n, content in members_of(bundle)])
    assert (bundle / "probe.npz").stat().st_size < 1_000_000
    del bomb
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"probe\.npz (is not a probe|does not fit).*images"):
        verify(str(bundle))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_images_without_end(bundle: Path) -> None:
    """Arrays that fit each other and the manifest, but are of more images than any probe has."""
    with np.load(bundle / "probe.npz") as data:
        arrays = {n: data[n] for n in ("images", "cls", "raw_scores")}
        tokens = np.repeat(data["tokens"], 6, axis=1)
    edit_probe(bundle, tokens=tokens, **{name: np.repeat(array, 6, axis=0) for name, array in arrays.items()})
    with pytest.raises(BundleError, match=r"images \(72, 16, 24, 3\), expected \(64, 16, 24, 3\)"):
        verify(str(bundle))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_probe_with_a_hash_that_fits(bundle: Path, seed: int) -> None:
    """Of any byte that is changed comes a BundleError, or the numbers differ, or it did not matter."""
    path, drawn = bundle / "probe.npz", np.random.default_rng(seed)
    original = path.read_bytes()
    manifest = open_bundle(bundle).manifest
    refused = 0
    for _ in range(200):
        damaged = bytearray(original)
        for place in drawn.integers(len(original) - 400, len(original), 2):
            damaged[place] = drawn.integers(256)
        path.write_bytes(damaged)
        try:
            load_probe(path, manifest)
        except BundleError:
            refused += 1
    assert refused > 50


def test_manifest_is_what_was_written(tiny_bundle: Path) -> None:
    """The parity in the manifest is that of the whole token maps; verify's is never worse."""
    stored = json.loads((tiny_bundle / "manifest.json").read_text())["parity"]
    found = verify(str(tiny_bundle)).as_dict()
    for a, b in zip(stored["layers"], found["layers"], strict=True):
        assert b["max_abs"] <= a["max_abs"]
        assert b["min_cosine"] >= a["min_cosine"]
