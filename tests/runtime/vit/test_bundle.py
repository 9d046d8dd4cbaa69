"""Opening bundles: a valid one opens, and every damage is named together with what to do about it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from musc_edge.runtime.errors import BundleError, OutputError
from musc_edge.runtime.vit.bundle import default_pointer, find_bundle, open_bundle, set_default
from musc_edge.runtime.vit.hashes import check_hash
from support.lots import CONTENT, MANIFEST, edit_manifest, make_bundle, sha256

NEXT_STEP = re.compile(r"Make one with|Copy|[Ee]xport the bundle|Upgrade|Do not use|use -b")


def refused(bundle: Path, *named: str) -> str:
    """The message with which ``bundle`` is refused; it names the bundle, ``named``, and a next step."""
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    message = str(caught.value)
    for text in (str(bundle), *named):
        assert text in message
    assert NEXT_STEP.search(message)
    return message


# ---- valid -----------------------------------------------------------------------------------


def test_valid_bundle_opens(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    bundle = open_bundle(folder)
    assert bundle.root == folder
    assert bundle.manifest == MANIFEST
    assert bundle.manifest.patches == 6
    assert bundle.digest == sha256((folder / "manifest.json").read_bytes())
    assert bundle.model_path.read_bytes() == CONTENT["model.onnx"]
    assert bundle.probe_path.read_bytes() == CONTENT["probe.npz"]


def test_identity_is_that_of_the_content(tmp_path: Path) -> None:
    first, same = (open_bundle(make_bundle(tmp_path / name)) for name in ("a", "b"))
    other = open_bundle(make_bundle(tmp_path / "c", backbone="another ViT"))
    assert first.digest == same.digest != other.digest


@pytest.mark.parametrize("kind", [str, Path])
def test_folder_as_text_or_path(tmp_path: Path, kind: type[str] | type[Path]) -> None:
    assert open_bundle(kind(make_bundle(tmp_path / "bundle"))).manifest == MANIFEST


def test_relative_and_linked_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "bundle")
    (tmp_path / "link").symlink_to("bundle")
    assert open_bundle(tmp_path / "link").manifest == MANIFEST
    monkeypatch.chdir(tmp_path / "bundle")
    assert open_bundle(".").manifest == MANIFEST


@pytest.mark.parametrize("whole", [False, True])
def test_further_files_in_subfolders(tmp_path: Path, whole: bool) -> None:
    files = {**MANIFEST.files, "kernels/sm_87.cubin": sha256(b"cubin")}
    folder = make_bundle(tmp_path / "bundle", files=files)
    (folder / "kernels").mkdir()
    (folder / "kernels" / "sm_87.cubin").write_bytes(b"cubin")
    open_bundle(folder, whole)
    (folder / "kernels" / "sm_87.cubin").write_bytes(b"Cubin")
    with pytest.raises(BundleError, match=r"sm_87\.cubin was changed"):
        open_bundle(folder, whole)


def test_whole_numbers_are_good_where_decimals_are_expected(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    edit_manifest(folder, "preprocess.mean", [0, 0.5, 1])
    assert open_bundle(folder).manifest.preprocess.mean == (0.0, 0.5, 1.0)


# ---- no bundle -------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere")


def test_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    refused(tmp_path / "model.onnx", "is not a bundle")


def test_no_manifest(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "manifest.json").unlink()
    refused(folder, "is not a bundle", "manifest.json", "No such file")


def test_manifest_that_is_a_folder(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    refused(folder, "manifest.json")


# ---- manifest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"schema_version: 1", id="YAML"),
        pytest.param(b'{"backbone": "\xe9"}', id="not UTF-8"),
        pytest.param(bytes(2000), id="zeros"),
        pytest.param(b"[" * 200_000, id="nested without end"),
    ],
)
def test_manifest_that_is_not_json(tmp_path: Path, text: bytes) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "manifest.json").write_bytes(text)
    refused(folder, "manifest.json", "is not JSON")


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, True], ids=repr)
def test_manifest_that_is_other_json(tmp_path: Path, value: Any) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "manifest.json").write_text(json.dumps(value), encoding="utf-8")
    refused(folder, "manifest.json")


@pytest.mark.parametrize("version", [2, 99])
def test_newer_schema(tmp_path: Path, version: int) -> None:
    folder = make_bundle(tmp_path / "bundle", schema_version=version)
    edit_manifest(folder, "a_field_of_later", {"with": "content"})
    refused(folder, "manifest.json", f"schema version {version}", "reads 1", "Upgrade")


@pytest.mark.parametrize("version", [0, -1])
def test_schema_that_never_was(tmp_path: Path, version: int) -> None:
    refused(make_bundle(tmp_path / "bundle", schema_version=version), "manifest.json", str(version))


FIELDS = sorted(json.loads(json.dumps(MANIFEST.__dict__, default=vars)))
NESTED = ["preprocess.size", "preprocess.resize", "preprocess.std", "input.name", "cls.dtype"]


@pytest.mark.parametrize("field", [*FIELDS, *NESTED])
def test_missing_field(tmp_path: Path, field: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    data = json.loads((folder / "manifest.json").read_bytes())
    *parents, last = field.split(".")
    owner = data
    for name in parents:
        owner = owner[name]
    del owner[last]
    (folder / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    refused(folder, "manifest.json", last)


@pytest.mark.parametrize("field", ["colour", "preprocess.crop", "cls.shape"])
def test_unknown_field(tmp_path: Path, field: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    edit_manifest(folder, field, 1)
    refused(folder, "manifest.json", field.rsplit(".", maxsplit=1)[-1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", "1"),
        ("schema_version", True),
        ("schema_version", 1.0),
        ("backbone", None),
        ("backbone", 5),
        ("precision", ["fp32"]),
        ("preprocess", "squash"),
        ("preprocess.size", 224),
        ("preprocess.size", [224]),
        ("preprocess.size", [224, 224, 3]),
        ("preprocess.size", [224.0, 224]),
        ("preprocess.size", {"height": 224}),
        ("preprocess.mean", [0.5, 0.5]),
        ("preprocess.std", ["0.5", "0.5", "0.5"]),
        ("preprocess.std", [True, True, True]),
        ("patch_size", "14"),
        ("patch_size", True),
        ("grid", "2x3"),
        ("token_width", 8.5),
        ("layers", 2),
        ("layers", ["0", "2"]),
        ("layers", {"0": 2}),
        ("input", "pixels"),
        ("input", ["pixels", "float32"]),
        ("input.dtype", 32),
        ("tokens", {"name": "tokens_0", "dtype": "float32"}),
        ("tokens", ["tokens_0", "tokens_2"]),
        ("files", ["model.onnx", "probe.npz"]),
        ("files", {"model.onnx": 1, "probe.npz": 2}),
        ("parity", 0.001),
        ("made_with", {"torch": None}),
    ],
)
def test_wrong_typed_field(tmp_path: Path, field: str, value: Any) -> None:
    folder = make_bundle(tmp_path / "bundle")
    edit_manifest(folder, field, value)
    message = refused(folder, "manifest.json", field)
    assert "expected" in message


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("grid", [3, 2], "grid"),
        ("grid", [2, 4], "grid"),
        ("patch_size", 0, "patch"),
        ("patch_size", -4, "patch"),
        ("token_width", 0, "widths"),
        ("cls_width", -1, "widths"),
        ("layers", [0], "layers"),
        ("layers", [], "layers"),
        ("tokens", [], "token outputs"),
        ("preprocess.size", [8, 16], "size"),
        ("preprocess.size", [0, 0], "size"),
        ("preprocess.size", [-8, -12], "size"),
        ("preprocess.resize", "crop", "crop"),
        ("preprocess.interpolation", "lanczos", "lanczos"),
        ("preprocess.std", [0.2, 0.0, 0.2], "std"),
        ("preprocess.mean", [0.2, float("nan"), 0.2], "mean"),
        ("input.dtype", "float33", "float33"),
    ],
)
def test_contradictory_manifest(tmp_path: Path, field: str, value: Any, named: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    edit_manifest(folder, field, value)
    refused(folder, "manifest.json", named)


@pytest.mark.parametrize("value", [10**9, 10**400, -(10**400)], ids=["large", "huge", "negative"])
@pytest.mark.parametrize(
    "field",
    [
        *("schema_version", "patch_size", "grid", "token_width", "cls_width", "layers"),
        *("preprocess.size", "preprocess.mean", "preprocess.std"),
    ],
)
def test_absurd_numbers(tmp_path: Path, field: str, value: int) -> None:
    folder = make_bundle(tmp_path / "bundle")
    lengths = {"grid": 2, "preprocess.size": 2, "layers": 2, "preprocess.mean": 3, "preprocess.std": 3}
    edit_manifest(folder, field, [value] * lengths[field] if field in lengths else value)
    assert len(refused(folder, "manifest.json")) < 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preprocess.std", [1e-300, 1, 1]),
        ("preprocess.std", [0.2, float("inf"), 0.2]),
        ("preprocess.mean", [1e300, 0, 0]),
        ("parity.cls", float("nan")),
        ("parity.cls", {"a": [float("inf")]}),
        ("layers", [-1, 2]),
        ("tokens", [{"name": "a", "dtype": "float32"}] * 2),
        ("tokens", [{"name": name, "dtype": "float32"} for name in ("cls", "a")]),
        ("files", {**MANIFEST.files, **{f"f{k}": "0" for k in range(100)}}),
        ("files", {**MANIFEST.files, "x": None}),
        ("files", {**MANIFEST.files, "x": ["0"]}),
        ("made_with", {"torch": {"a": "b"}}),
    ],
)
def test_what_no_export_writes(tmp_path: Path, field: str, value: Any) -> None:
    folder = make_bundle(tmp_path / "bundle")
    edit_manifest(folder, field, value)
    assert "expected" in refused(folder, "manifest.json")


def test_sizes_that_together_are_absurd(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", grid=(4096, 4096), token_width=16384)
    edit_manifest(folder, "preprocess.size", [16384, 16384])
    refused(folder, "manifest.json", "numbers for an image")


@pytest.mark.parametrize("levels", [40, 900])
def test_deeply_nested_manifest(tmp_path: Path, levels: int) -> None:
    """What Python can read, but not write again, as inspect --json does."""
    folder = make_bundle(tmp_path / "bundle")
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    deep = '{"a":' * levels + "1" + "}" * levels
    (folder / "manifest.json").write_text(text.replace("1e-06", deep), encoding="utf-8")
    refused(folder, "manifest.json", "nested deeper than 32")


def test_manifest_that_is_no_file_of_its_size(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    path = folder / "manifest.json"
    os.truncate(path, 50 * 2**30)
    refused(folder, "manifest.json", "larger than 1 MB")
    for make, said in (
        (os.mkfifo, "not a regular file"),
        (lambda p: p.symlink_to("/dev/zero"), "not a regular"),
    ):
        path.unlink()
        make(path)
        refused(folder, "manifest.json", said)


# ---- files -----------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_one_bit_flipped_in_the_model(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    flip_a_bit(folder / "model.onnx")
    message = refused(folder, str(folder / "model.onnx"), "was changed", "Copy or export")
    assert MANIFEST.files["model.onnx"][:16] in message
    assert sha256((folder / "model.onnx").read_bytes())[:16] in message


@pytest.mark.parametrize("change", [b"", CONTENT["model.onnx"][:-1], CONTENT["model.onnx"] + b"\n"])
def test_model_of_another_length(tmp_path: Path, change: bytes) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "model.onnx").write_bytes(change)
    refused(folder, "model.onnx", "was changed")


def test_probe_is_checked_when_the_whole_bundle_is(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    open_bundle(folder, whole=True)
    flip_a_bit(folder / "probe.npz")
    open_bundle(folder)
    with pytest.raises(BundleError, match=r"probe\.npz was changed.*Copy or export"):
        open_bundle(folder, whole=True)


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / name).unlink()
    refused(folder, f"lacks {name}", "Copy the bundle again")


def test_folder_or_broken_link_in_place_of_a_file(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "probe.npz").unlink()
    (folder / "probe.npz").mkdir()
    refused(folder, "lacks probe.npz")
    (folder / "probe.npz").rmdir()
    (folder / "probe.npz").symlink_to("gone.npz")
    refused(folder, "lacks probe.npz")


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz"])
def test_unlisted_file(tmp_path: Path, name: str) -> None:
    files = {other: digest for other, digest in MANIFEST.files.items() if other != name}
    refused(make_bundle(tmp_path / "bundle", files=files), f"lists no {name}")


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "kernels/../../x", "kernels/../model.onnx", "{absolute}", "..", "/"]
)
def test_file_outside_of_the_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"x")
    name = name.format(absolute=tmp_path / "x")
    folder = make_bundle(tmp_path / "bundle", files={**MANIFEST.files, name: sha256(b"x")})
    refused(folder, repr(name), "outside", "Do not use")


def test_link_that_leads_outside(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    refused(folder, "model.onnx", "outside", "Do not use")


def test_linked_subfolder_that_leads_outside(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", files={**MANIFEST.files, "kernels/x": sha256(b"x")})
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "x").write_bytes(b"x")
    (folder / "kernels").symlink_to(tmp_path / "kernels")
    refused(folder, "kernels/x", "outside")


def test_link_within_the_bundle_is_good(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "model.onnx").rename(folder / "graph")
    (folder / "model.onnx").symlink_to("graph")
    assert open_bundle(folder, whole=True).model_path.read_bytes() == CONTENT["model.onnx"]


@pytest.mark.parametrize("name", ["model.onnx", "probe.npz", "x"])
@pytest.mark.parametrize("links", [1200, 0], ids=["many", "loop"])
def test_links_without_end(tmp_path: Path, name: str, links: int) -> None:
    folder = make_bundle(tmp_path / "bundle", files={**MANIFEST.files, "x": sha256(b"")})
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("link0")
    for k in range(links):
        (folder / f"link{k}").symlink_to(f"link{k + 1}")
    (folder / f"link{links}").symlink_to("link0")
    refused(folder, name)


def test_pipe_in_place_of_a_file(tmp_path: Path) -> None:
    for name in ("model.onnx", "probe.npz"):
        folder = make_bundle(tmp_path / name)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        refused(folder, f"lacks {name}")


def ascii_id(name: str) -> str:
    return ascii(name)[:12]


@pytest.mark.parametrize("name", ["", ".", "a\0b", "\ud800", "a" * 300], ids=ascii_id)
def test_impossible_file_name(tmp_path: Path, name: str) -> None:
    refused(make_bundle(tmp_path / "bundle", files={**MANIFEST.files, name: sha256(b"")}))


def test_check_hash_accepts_what_it_should(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one read
    (tmp_path / "x").write_bytes(content)
    check_hash(tmp_path / "x", sha256(content))
    with pytest.raises(BundleError, match=r"x was changed since it was written"):
        check_hash(tmp_path / "x", sha256(content[:-1]))


# ---- which bundle ----------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder of the user, who has set no bundle."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MUSC_EDGE_BUNDLE", raising=False)
    return tmp_path / "config"


def test_explicit_then_environment_then_default_then_error(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle(None)
    message = str(caught.value)
    assert all(way in message for way in ("-b BUNDLE", "$MUSC_EDGE_BUNDLE", "--default", "musc-export"))
    set_default(tmp_path / "default")
    assert find_bundle(None) == tmp_path / "default"
    monkeypatch.setenv("MUSC_EDGE_BUNDLE", "from/environment")
    assert find_bundle(None) == Path("from/environment")
    assert find_bundle("explicit") == Path("explicit")


def test_empty_names_name_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSC_EDGE_BUNDLE", "")
    with pytest.raises(BundleError, match="no bundle given"):
        find_bundle("")


@pytest.mark.parametrize("text", ["", "\n"], ids=["empty", "empty line"])
def test_empty_pointer_names_nothing(config: Path, text: str) -> None:
    default_pointer().parent.mkdir(parents=True)
    default_pointer().write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="no bundle given"):
        find_bundle(None)


@pytest.mark.parametrize(
    "raw",
    [b"bundle", b"two words", "bündel 束".encode(), b"space at the end ", b"caf\xe9"],
    ids=["plain", "space", "unicode", "trailing space", "not UTF-8"],
)
def test_default_round_trip(config: Path, tmp_path: Path, raw: bytes) -> None:
    bundle = make_bundle(tmp_path / os.fsdecode(raw))
    set_default(bundle)
    assert find_bundle(None) == bundle
    assert open_bundle(find_bundle(None)).manifest == MANIFEST
    assert [path.name for path in default_pointer().parent.iterdir()] == ["default-bundle"]


def test_default_is_stored_absolute_and_the_last_one_counts(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_default(tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    set_default(Path("second"))
    monkeypatch.chdir("/")
    assert find_bundle(None) == tmp_path / "second"


def test_pointer_lies_in_the_home_folder_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", None):
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert default_pointer() == tmp_path / ".config" / "musc-edge" / "default-bundle"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "huge"])
def test_pointer_that_is_no_file_of_its_size(config: Path, kind: str) -> None:
    pointer = default_pointer()
    pointer.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(pointer)
    elif kind == "folder":
        pointer.mkdir()
    elif kind == "device":
        pointer.symlink_to("/dev/zero")
    else:
        pointer.touch()
        os.truncate(pointer, 2**40)
    with pytest.raises(BundleError, match=r"default-bundle, which .*cannot be read.*use -b"):
        find_bundle(None)


def test_default_takes_the_place_of_a_link(config: Path, tmp_path: Path) -> None:
    """Not of what somebody let it point to."""
    (tmp_path / "other").write_text("precious", encoding="ascii")
    default_pointer().parent.mkdir(parents=True)
    default_pointer().symlink_to(tmp_path / "other")
    set_default(tmp_path / "bundle")
    assert (tmp_path / "other").read_text(encoding="ascii") == "precious"
    assert find_bundle(None) == tmp_path / "bundle"


def test_default_that_is_gone_is_named(config: Path, tmp_path: Path) -> None:
    set_default(tmp_path / "gone")
    refused(find_bundle(None), "gone", "no such folder")


def test_default_that_cannot_be_stored(config: Path, tmp_path: Path) -> None:
    config.write_text("a file is in the way", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        set_default(tmp_path / "bundle")
    assert str(default_pointer()) in str(caught.value)
    assert config.read_text(encoding="utf-8") == "a file is in the way"
