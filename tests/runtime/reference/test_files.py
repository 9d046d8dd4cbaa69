"""What may be in the folder of a reference that a stranger made, or that was damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge import Checker, LotError, ReferenceFolderError, Resources, open_bundle, open_reference
from musc_edge.runtime.reference.files import check_all, is_reference, open_bank, read_thumbnails
from musc_edge.runtime.reference.manifest import LEVEL, manifest_facts
from support.references import BUNDLE, reference, write_lot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    write_lot(root / "lot", 10)
    return reference(root / "lot", root / "ref").root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "ref"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def open_all(folder: Path) -> None:
    open_bank(open_reference(folder))
    read_thumbnails(open_reference(folder))


def test_what_was_written_is_read(folder: Path) -> None:
    open_all(folder)
    check_all(open_reference(folder))
    assert is_reference(folder)
    assert not is_reference(BUNDLE)
    assert not is_reference(folder / "nothing")


def test_the_folder_holds_what_its_manifest_lists(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *files}
    for name, expected in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected


FILES = (
    "layer_0.npy",
    "layer_2.npy",
    "lengths.npy",
    "cls.npy",
    "looks.npy",
    "calibration.npy",
    "thumbnails.npy",
)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_noticed(name: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 0x10
    (folder / name).write_bytes(content)
    with pytest.raises(ReferenceFolderError, match=rf"{name} was changed"):
        open_all(folder)
    if "layer" in name or name in ("lengths.npy", "thumbnails.npy"):  # the others are read at once
        with pytest.raises(ReferenceFolderError, match=rf"{name} was changed"):
            check_all(open_reference(folder))


@pytest.mark.parametrize("name", FILES)
def test_missing_cut_and_grown_files_are_noticed(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    for damage in (content[:-1], content[:60], b"", content + b"\0"):
        (folder / name).write_bytes(damage)
        with pytest.raises(ReferenceFolderError, match=rf"{name} is damaged"):
            open_all(folder)
    (folder / name).unlink()
    with pytest.raises(ReferenceFolderError, match=rf"{name} cannot be read"):
        open_all(folder)


def rewrite(folder: Path, name: str, values: object) -> None:
    """Put another array into a file, with its hash."""
    np.save(folder / name, values, allow_pickle=True)  # type: ignore[arg-type]
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edit(folder, lambda content: content["files"].update({name: digest}))


def test_another_array_with_its_own_hash_is_refused(folder: Path) -> None:
    cls = np.load(folder / "cls.npy")
    for values in (cls[:-1], cls.astype(np.float64), cls.T, np.array([{"a": 1}] * 9, object)):
        rewrite(folder, "cls.npy", values)
        with pytest.raises(ReferenceFolderError, match=r"cls.npy is damaged"):
            open_reference(folder)
    rewrite(folder, "cls.npy", np.where(np.arange(cls.size).reshape(cls.shape) == 5, np.nan, cls))
    with pytest.raises(ReferenceFolderError, match="not finite"):
        open_reference(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 0},
        {"schema_version": True},
        {"grid": [0, 8]},
        {"grid": [1 << 40, 8]},
        {"token_width": 1 << 20},
        {"cls_width": 0},
        {"layers": []},
        {"layers": [0, 0]},
        {"layers": [-1, 2]},
        {"layers": list(range(5000))},
        {"degrees": [2]},
        {"degrees": [1, 1]},
        {"degrees": []},
        {"interval": [0.3, 0.1]},
        {"interval": [0, 0.00001]},
        {"bit_depth": 9},
        {"max_pixels": 0},
        {"patches": 0},
        {"patches": 65},
        {"patches": 30},
        {"precision": "float64"},
        {"images": ["a"]},
        {"images": "abcdefgh"},
        {"images": ["a", "b", 3, "d", "e"]},
        {"cls_width": 1 << 14, "others": [""] * (1 << 15)},
        {"calibration": None},
        {"scale": [1, 0]},
        {"scale": [0, float("inf")]},
        {"files": {}},
        {"files": {"../../etc/passwd": "00"}},
        {"made_with": None},
        {"more": 1},
    ],
    ids=lambda change: str(change)[:40],
)
def test_impossible_manifests_are_refused(change: dict[str, Any], folder: Path) -> None:
    edit(folder, lambda content: content.update(change))
    with pytest.raises(ReferenceFolderError):
        open_all(folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b"[" * 100_000, b"{}", b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_refused(text: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(text)
    assert not is_reference(folder)
    with pytest.raises(ReferenceFolderError):
        open_reference(folder)


def test_a_level_is_of_schema_2(made: Path) -> None:
    manifest = open_reference(made).manifest
    assert LEVEL not in manifest.files
    assert manifest_facts(manifest)["schema_version"] == 1
    leveled = replace(manifest, files={**manifest.files, LEVEL: "ab" * 32})
    assert manifest_facts(leveled)["schema_version"] == 2


def test_a_newer_schema_says_what_to_do(folder: Path) -> None:
    edit(folder, lambda content: content.update(schema_version=4, something_new=1))
    with pytest.raises(ReferenceFolderError, match="Upgrade musc-edge"):
        open_reference(folder)


def test_a_bundle_is_no_reference() -> None:
    with pytest.raises(ReferenceFolderError, match="is no reference"):
        open_reference(BUNDLE)


def test_pipes_are_not_waited_for(folder: Path) -> None:
    for name in ("layer_0.npy", "manifest.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(ReferenceFolderError, match="not a regular file"):
            open_all(folder)


def test_a_huge_sparse_file_is_not_read_into_memory(folder: Path) -> None:
    """A manifest that claims 15 GB, and a file that seems to have them: the memory budget comes first."""
    edit(folder, lambda content: content.update(grid=[128, 128], patches=1 << 14, token_width=1 << 14))
    os.truncate(folder / "layer_0.npy", 1 << 35)
    with pytest.raises(LotError, match="memory budget"):
        open_bank(open_reference(folder), Resources(memory_budget=1_000_000_000))


def test_a_reference_of_another_bundle_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content.update(bundle="0" * 64))
    with pytest.raises(ReferenceFolderError, match="made with another bundle"):
        Checker(folder, BUNDLE)


def test_a_reference_that_names_the_bundle_and_does_not_fit_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content.update(grid=[4, 16]))
    with pytest.raises(ReferenceFolderError, match="do not fit"):
        open_reference(folder).require(open_bundle(BUNDLE))
