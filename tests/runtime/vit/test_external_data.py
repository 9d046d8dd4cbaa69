"""Files that a graph names: all are found, as onnx's own parser finds them, and a bundle must list them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from musc_edge.runtime.errors import BundleError
from musc_edge.runtime.vit import external_data
from musc_edge.runtime.vit.bundle import open_bundle
from musc_edge.runtime.vit.external_data import FIELDS, external_files
from support.lots import MANIFEST, make_bundle, sha256

FLOATS = np.arange(4, dtype=np.float32)


# ---- the wire format, by hand ----------------------------------------------------------------


def varint(value: int, length: int = 0) -> bytes:
    """A number, made longer with empty groups of bits up to ``length`` bytes."""
    groups = [value & 0x7F]
    while (value := value >> 7) or len(groups) < length:
        groups.append(value & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def field(number: int, content: bytes, tag_bytes: int = 0, length_bytes: int = 0) -> bytes:
    """A field with a message, a text or bytes."""
    return varint(number << 3 | 2, tag_bytes) + varint(len(content), length_bytes) + content


def group(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 3) + content + varint(number << 3 | 4)


def entry(location: str = "w.data") -> bytes:
    return field(1, b"location") + field(2, location.encode())


def tensor(location: str = "w.data") -> bytes:
    return field(13, entry(location))


def model(location: str = "w.data") -> bytes:
    return field(7, field(5, tensor(location)))


NODE_WITH = {name: field(1, field(5, content)) for name, content in {
    "t": field(5, tensor()),
    "tensors": field(10, tensor()),
    "sparse_tensor": field(22, field(1, tensor())),
    "sparse_tensors": field(23, field(2, tensor())),
    "g": field(6, field(5, tensor())),
    "graphs": field(11, field(1, field(5, field(6, field(5, tensor()))))),
}.items()}  # fmt: skip
PLACES = {
    "initializer": model(),
    "values of a sparse initializer": field(7, field(15, field(1, tensor()))),
    "indices of a sparse initializer": field(7, field(15, field(2, tensor()))),
    **{f"attribute {name}": field(7, node) for name, node in NODE_WITH.items()},
    "node of a function": field(25, field(7, field(5, field(5, tensor())))),
    "default of a function's attribute": field(25, field(11, field(5, tensor()))),
    "initialization of a training": field(20, field(1, field(5, tensor()))),
    "algorithm of a training": field(20, field(2, field(5, tensor()))),
}
TRICKS = {
    "long tags": field(7, field(5, field(13, entry(), tag_bytes=5), tag_bytes=4), tag_bytes=5),
    "long lengths": field(7, field(5, field(13, entry(), length_bytes=5), length_bytes=3), length_bytes=5),
    "graph given twice": field(7, b"") + model() + field(7, b""),
    "attribute's tensor given twice": field(7, field(1, field(5, field(5, tensor()) + field(5, b"")))),
    "value before key": field(7, field(5, field(13, field(2, b"w.data") + field(1, b"location")))),
    "key given twice": field(7, field(5, field(13, field(1, b"offset") + entry()))),
    "value given twice": field(7, field(5, field(13, entry("first") + field(2, b"w.data")))),
    "after an unknown field": field(99, b"\xff" * 300) + model(),
    "after unknown numbers": varint(99 << 3)
    + varint(2**64 - 1)
    + b"\x31"
    + b"8 bytes."
    + b"\x35"
    + b"four"
    + model(),
    "after a group": group(99, group(7, field(7, b"x")) + varint(8 << 3) + b"\x01") + model(),
    "after a group of the graph's number": group(7, b"") + model(),
    "after the graph's number as another type": varint(7 << 3) + b"\x05" + model(),
    "group in an entry": field(7, field(5, field(13, group(9, field(1, b"x")) + entry()))),
    "not said to be external": model() + field(7, field(5, varint(14 << 3) + b"\x00")),
    "another location first": field(7, field(5, field(13, entry("first")) + field(13, entry()))),
}


def found(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return list(external_files(path))


def locations(message: Message) -> Iterator[str]:
    """Every location below a message of onnx's own, as a parser has it."""
    for descriptor, value in message.ListFields():
        if descriptor.type != descriptor.TYPE_MESSAGE:
            continue
        for each in [value] if isinstance(value, Message) else value:
            if descriptor.name == "external_data" and each.key == "location":
                # what is no UTF-8 comes as bytes
                yield each.value if isinstance(each.value, str) else os.fsdecode(each.value)
            yield from locations(each)


@pytest.mark.parametrize("content", [*PLACES.values(), *TRICKS.values()], ids=[*PLACES, *TRICKS])
def test_every_location_is_found(tmp_path: Path, content: bytes) -> None:
    """At least those that onnx finds."""
    ours = found(tmp_path / "model.onnx", content)
    theirs = list(locations(onnx.ModelProto.FromString(content)))
    assert "w.data" in ours
    assert "w.data" in theirs
    assert set(theirs) <= set(ours)


def test_the_fields_are_those_of_onnx() -> None:
    """Every field of every message that leads to a location, by onnx's description of itself."""

    def leads(message: Any) -> dict[int, str]:
        fields = [f for f in message.fields if f.type == f.TYPE_MESSAGE]
        return {f.number: f.message_type.name for f in fields if f.message_type.name in FIELDS}

    messages = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name
    for name in FIELDS.keys() - {"TensorProto"}:
        assert FIELDS[name] == leads(messages[name]), name
    unlisted = {name for name in messages if name not in FIELDS and leads(messages[name])}
    assert unlisted == set()
    assert FIELDS["TensorProto"] == {
        messages["TensorProto"].fields_by_name["external_data"].number: "StringStringEntryProto"
    }


@pytest.mark.long
@pytest.mark.slow
def test_random_messages_are_read_as_onnx_reads_them(tmp_path: Path) -> None:
    """Of damaged files none is taken whose locations onnx would find and this does not."""
    drawn = np.random.default_rng(0)
    base = b"".join([*PLACES.values(), *TRICKS.values()])
    taken = 0
    for _ in range(3000):
        damaged = bytearray(base)
        for place in drawn.integers(len(base), size=drawn.integers(1, 4)):
            damaged[place] = drawn.integers(256)
        try:
            theirs = set(locations(onnx.ModelProto.FromString(bytes(damaged))))
        except DecodeError:
            continue
        try:
            assert theirs <= set(found(tmp_path / "model.onnx", bytes(damaged)))
        except ValueError:
            continue
        taken += 1
    assert taken > 300


def test_a_real_model_with_external_data(tmp_path: Path) -> None:
    weights = [onnx.numpy_helper.from_array(FLOATS, f"w{i}") for i in range(3)]
    graph = onnx.helper.make_graph([], "g", [], [], weights)
    onnx.save(
        onnx.helper.make_model(graph),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    assert set(external_files(tmp_path / "m.onnx")) == {"w"}
    onnx.save(onnx.load(tmp_path / "m.onnx"), tmp_path / "n.onnx")
    assert list(external_files(tmp_path / "n.onnx")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"not a graph",
        model()[:-1],
        b"\x00" + model(),
        varint(7 << 3 | 7),
        varint(7 << 3 | 4),
        varint(7 << 3 | 3),
        varint(7 << 3 | 3) + varint(8 << 3 | 4),
        varint(7 << 3 | 2) + varint(2**63),
        varint(7 << 3 | 2) + b"\xff" * 11,
        b"\xff" * 6,
        field(7, varint(5 << 3 | 2) + varint(50)) + bytes(100),
        b"\x35abc",
        field(7, field(5, field(13, field(2, bytes(100_000))))),
    ],
)  # fmt: skip
def test_no_protobuf_message(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="byte"):
        found(tmp_path / "model.onnx", content)


@pytest.mark.parametrize("kind", ["graphs", "groups"])
def test_nesting_is_bounded(tmp_path: Path, kind: str) -> None:
    content = tensor()
    for _ in range(1000):
        content = group(99, content) if kind == "groups" else field(1, field(5, field(6, content)))
    with pytest.raises(ValueError, match="within 200 others"):
        found(tmp_path / "model.onnx", content if kind == "groups" else field(7, content))


def test_fields_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "_MOST_FIELDS", 1000)
    assert found(tmp_path / "model.onnx", b"\x08\x01" * 1000) == []
    with pytest.raises(ValueError, match="more than 1,000 fields"):
        found(tmp_path / "model.onnx", b"\x08\x01" * 1001)


def test_weights_are_not_read(tmp_path: Path) -> None:
    """A tensor of 100 GB in a file with a hole."""
    path = tmp_path / "model.onnx"
    inside = 100 * 10**9
    weights = varint(9 << 3 | 2) + varint(inside)
    graph = varint(5 << 3 | 2) + varint(len(weights) + inside) + weights
    path.write_bytes(varint(7 << 3 | 2) + varint(len(graph) + inside) + graph)
    os.truncate(path, path.stat().st_size + inside)
    with path.open("ab") as file:
        file.write(model())
    assert list(external_files(path)) == ["w.data"]


# ---- in a bundle -----------------------------------------------------------------------------


def bundle_with(folder: Path, content: bytes, **files: bytes) -> Path:
    """A bundle whose graph is ``content``, and whose manifest lists ``files`` too."""
    hashes = {name.replace("__", "."): sha256(data) for name, data in files.items()}
    make_bundle(folder, files={**MANIFEST.files, "model.onnx": sha256(content), **hashes})
    (folder / "model.onnx").write_bytes(content)
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def test_listed_weights_are_good_and_hashed(tmp_path: Path) -> None:
    folder = bundle_with(tmp_path / "bundle", model("w.data"), w__data=b"weights")
    open_bundle(folder)
    (folder / "w.data").write_bytes(b"Weights")
    with pytest.raises(BundleError, match=r"w\.data was changed"):
        open_bundle(folder)


@pytest.mark.parametrize("content", [*PLACES.values(), *TRICKS.values()], ids=[*PLACES, *TRICKS])
def test_weights_that_the_manifest_does_not_list(tmp_path: Path, content: bytes) -> None:
    folder = bundle_with(tmp_path / "bundle", content)
    (folder / "w.data").write_bytes(b"weights")
    with pytest.raises(BundleError, match=r"takes weights from '.*', which the manifest does not list"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "location",
    [
        "../w.data",
        "{absolute}",
        "./w.data",
        "w.data/",
        "W.data",
        "w.data\0",
        "",
        "*/_ORT_MEM_ADDR_/*",
        "x/../w.data",
    ],
)
def test_another_name_than_the_listed_one(tmp_path: Path, location: str) -> None:
    """However it would be resolved."""
    location = location.format(absolute=tmp_path / "bundle" / "w.data")
    folder = bundle_with(tmp_path / "bundle", model(location), w__data=b"weights")
    with pytest.raises(BundleError, match="does not list"):
        open_bundle(folder)


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    folder = bundle_with(tmp_path / "bundle", b"not a graph")
    with pytest.raises(BundleError, match=r"cannot load .*model\.onnx: it is not an ONNX graph .*export"):
        open_bundle(folder)


def test_the_manifest_may_not_list_what_is_outside(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"weights")
    folder = bundle_with(tmp_path / "bundle", model("../w"))
    data = json.loads((folder / "manifest.json").read_bytes())
    data["files"]["../w"] = sha256(b"weights")
    (folder / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError, match=r"'\.\./w', which lies outside"):
        open_bundle(folder)
