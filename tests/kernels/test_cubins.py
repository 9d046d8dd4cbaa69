"""Where kernels come from: the bundle, the cache, a compiler; and what is damaged on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from musc_edge.kernels import compiler as compiler_module
from musc_edge.kernels.compiler import Compiled, Resources
from musc_edge.kernels.cubin_files import INDEX, open_cubins, write_cubins
from musc_edge.kernels.cubins import best_match, cache_folder, cached_cubins, find_cubin
from musc_edge.kernels.errors import KernelError

CODE = {arch: f"\x7fELF stands for {arch}".encode() * 50 for arch in ("sm_80", "sm_86", "sm_87", "sm_90")}


class Compiler:
    """Compiles anything at once, and counts."""

    def __init__(self, name: str = "NVRTC 12.6.85") -> None:
        self.name, self.major, self.arches = name, 12, frozenset(CODE)
        self.runs = 0

    def compile(self, arch: str, options: tuple[str, ...], files: Mapping[str, bytes]) -> tuple[bytes, str]:
        self.runs += 1
        return CODE[arch], ""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "musc-edge" / "kernels"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """The only compiler of this machine."""
    only = Compiler()
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([only]))
    return only


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([]))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with kernels, as far as these tests look."""
    folder = tmp_path / "bundle"
    make(folder / "kernels", "sm_86", "sm_87", "sm_80")
    return folder


def make(folder: Path, *arches: str) -> Path:
    folder.mkdir(parents=True)
    write_cubins(folder, [Compiled(a, CODE[a], "NVRTC 12.6.85", {"k": Resources(9, 0, 0)}) for a in arches])
    return folder


def other_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this musc-edge's kernels are others."""
    for module in ("cubin_files", "cubins"):
        monkeypatch.setattr(f"musc_edge.kernels.{module}.source_digest", lambda: "f" * 64)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ---- which cubin -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "available", "best"),
    [
        ("sm_86", "sm_80 sm_86 sm_89", "sm_86"),
        ("sm_89", "sm_80 sm_86 sm_90", "sm_86"),
        ("sm_89", "sm_80 sm_86 sm_87", "sm_86"),  # a Jetson's runs on no card
        ("sm_87", "sm_80 sm_86", None),  # nor a card's on a Jetson
        ("sm_110", "sm_100 sm_120", None),
        ("sm_121", "sm_90 sm_120", "sm_120"),
        ("sm_80", "sm_75 sm_86", None),  # neither a later minor revision nor another major one
        ("sm_90", "", None),
        ("sm_90a", "sm_89 sm_90 sm_90a", "sm_90a"),
        ("sm_90a", "sm_89 sm_90 sm_100", "sm_90"),
        ("sm_90", "sm_90a", None),  # what only Hopper can, a GPU that is treated as any other cannot
        ("sm_91", "sm_90a", None),
    ],
)
def test_best_match(arch: str, available: str, best: str | None) -> None:
    assert best_match(arch, available.split()) == best


@pytest.mark.parametrize("arch", ["sm_", "87", "sm_8x", "compute_87", "sm_87a", "../sm_87", ""])
def test_no_architecture(arch: str, compiler: Compiler) -> None:
    with pytest.raises(ValueError, match="such as sm_87"):
        best_match(arch, ["sm_80"])


# ---- from where ------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_compiler")
def test_a_device_without_a_compiler_uses_the_bundle(bundle: Path, cache: Path) -> None:
    found = find_cubin("sm_87", bundle)
    assert (found.code, found.origin, found.notes) == (CODE["sm_87"], "bundle", ())
    assert str(found) == "sm_87 by NVRTC 12.6.85, from the bundle"
    assert find_cubin("sm_89", bundle).code == CODE["sm_86"]
    assert find_cubin("sm_89", bundle).arch == "sm_86"
    assert not cache.exists()


def test_the_bundle_comes_before_cache_and_compiler(bundle: Path, compiler: Compiler) -> None:
    assert find_cubin("sm_87").origin == "compiler"
    assert find_cubin("sm_87", bundle).origin == "bundle"
    assert compiler.runs == 1


def test_compiled_once_for_each_architecture(cache: Path, compiler: Compiler) -> None:
    assert [find_cubin("sm_87").origin for _ in range(3)] == ["compiler", "cache", "cache"]
    assert find_cubin("sm_90").origin == "compiler"
    assert find_cubin("sm_87").code == CODE["sm_87"]
    assert compiler.runs == 2
    assert [path.name.split("-")[0] for path in sorted(cache.iterdir())] == ["sm_87", "sm_90"]


def test_another_compiler_or_source_compiles_anew(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [find_cubin("sm_87").origin]
    compiler.name = "NVRTC 12.6.77"
    places += [find_cubin("sm_87").origin]
    other_source(monkeypatch)
    places += [find_cubin("sm_87").origin]
    assert places == ["compiler"] * 3
    assert [cubins.current for cubins in cached_cubins("sm_87")].count(True) == 1


def test_the_cache_remains_when_the_compiler_goes(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_cubin("sm_87")
    compiler.arches = frozenset()
    assert find_cubin("sm_87").origin == "cache"
    other_source(monkeypatch)
    with pytest.raises(KernelError, match="no compiler for sm_87"):
        find_cubin("sm_87")


@pytest.mark.usefixtures("no_compiler")
def test_nothing_anywhere(bundle: Path) -> None:
    with pytest.raises(KernelError) as caught:
        find_cubin("sm_90", bundle)
    text = str(caught.value)
    assert "no compiler for sm_90" in text
    assert "pip install 'musc-edge[kernels]'" in text
    assert f"musc-export kernels {bundle} --arch sm_90" in text
    assert "has kernels for sm_80, sm_86, sm_87, not for sm_90" in text
    with pytest.raises(KernelError, match="musc-export kernels BUNDLE --arch sm_90"):
        find_cubin("sm_90")


def test_a_bundle_of_another_source_is_passed_over_and_said(
    bundle: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_source(monkeypatch)
    found = find_cubin("sm_87", bundle)
    assert found.origin == "compiler"
    (note,) = found.notes
    assert "of another source" in note
    assert f"musc-export kernels {bundle}" in note


def test_a_bundle_without_kernels_needs_no_note(tmp_path: Path, compiler: Compiler) -> None:
    assert find_cubin("sm_87", tmp_path).notes == ()


def test_hopper_needs_a_compiler_that_knows_it(compiler: Compiler) -> None:
    """CUDA 11.8 lists sm_90, but not what sm_90a came with."""
    compiler.arches |= {"sm_90"}
    assert compiler_module.compiler_for("sm_90a", portable=False) is compiler
    compiler.major = 11
    assert compiler_module.compiler_for("sm_90", portable=False) is compiler
    with pytest.raises(KernelError, match=r"no compiler for sm_90a: .*; found NVRTC 12\.6"):
        compiler_module.compiler_for("sm_90a", portable=False)


# ---- damage ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("name", [INDEX, "sm_87.cubin.z"])
def test_one_flipped_bit_is_an_error(bundle: Path, name: str) -> None:
    """Of either file, wherever it is: never other kernels, never a silent compilation."""
    path = bundle / "kernels" / name
    original = path.read_bytes()
    drawn = random.Random(0)
    for _ in range(200):
        place, bit = drawn.randrange(len(original)), 1 << drawn.randrange(8)
        path.write_bytes(original[:place] + bytes([original[place] ^ bit]) + original[place + 1 :])
        with pytest.raises(KernelError) as caught:
            find_cubin("sm_87", bundle)
        assert str(path) in str(caught.value)
        assert f"musc-export kernels {bundle}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b'{"sha256": 1}', b"[" * 100_000, b"\xff"])
def test_an_index_that_is_none(bundle: Path, content: bytes) -> None:
    (bundle / "kernels" / INDEX).write_bytes(content)
    with pytest.raises(KernelError, match=r"kernels\.json is not as it was written .*musc-export kernels"):
        find_cubin("sm_87", bundle)


def rewrite(bundle: Path, packed: bytes, arch: str = "sm_87") -> None:
    """A bundle made by somebody else, with hashes that are right."""
    path = bundle / "kernels" / INDEX
    content = json.loads(path.read_bytes())
    del content["sha256"]
    content["cubins"] = {arch: {**content["cubins"]["sm_87"], "sha256": hashlib.sha256(packed).hexdigest()}}
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content), encoding="ascii")
    (bundle / "kernels" / "sm_87.cubin.z").write_bytes(packed)


@pytest.mark.parametrize(
    "packed", [b"", b"anything", zlib.compress(b"cubin")[:-1], zlib.compress(bytes(1 << 26))]
)
def test_no_cubin_although_the_hash_is_right(bundle: Path, packed: bytes) -> None:
    rewrite(bundle, packed)
    with pytest.raises(KernelError, match=r"sm_87\.cubin\.z holds no cubin of at most 33554432 bytes"):
        find_cubin("sm_87", bundle)


def test_a_name_that_leads_outside(bundle: Path) -> None:
    rewrite(bundle, zlib.compress(b"cubin"), "../../sm_87")
    with pytest.raises(KernelError, match=r"not as it was written .*such as sm_87"):
        find_cubin("sm_87", bundle)


def test_an_index_of_the_future(bundle: Path) -> None:
    path = bundle / "kernels" / INDEX
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema_version": 2}), encoding="ascii")
    with pytest.raises(KernelError, match="schema version 2; this musc-edge reads 1"):
        find_cubin("sm_87", bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {**c, "schema_version": "1"},
        lambda c: {**c, "schema_version": 10**400},
        lambda c: {**c, "source": 5},
        lambda c: {**c, "cubins": []},
        lambda c: {**c, "cubins": {"sm_87": 5}},
        lambda c: {**c, "cubins": {"sm_87": {**c["cubins"]["sm_87"], "sha256": 5}}},
        lambda c: {**c, "cubins": {"sm_87": {**c["cubins"]["sm_87"], "compiler": None}}},
        lambda c: {**c, "cubins": {"sm_87": {**c["cubins"]["sm_87"], "kernels": {"k": 5}}}},
        lambda c: {**c, "cubins": {"sm_87": {**c["cubins"]["sm_87"], "kernels": {"k": {"registers": "9"}}}}},
        lambda c: {**c, "cubins": {"sm_87": {**c["cubins"]["sm_87"], "more": 5}}},
        lambda c: {**c, "cubins": {"sm_" + "9" * 5000: c["cubins"]["sm_87"]}},
        lambda c: {**c, "more": 5},
        lambda c: {**c, "source": json.loads("[" * 100 + "]" * 100)},
    ],
)
def test_an_index_of_other_types_whose_hash_is_right(bundle: Path, change: Callable[[Any], Any]) -> None:
    path = bundle / "kernels" / INDEX
    content = json.loads(path.read_bytes())
    del content["sha256"]
    content = change(content)
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content), encoding="ascii")
    with pytest.raises(
        KernelError, match=r"kernels\.json (is not as it was written|has schema version)"
    ) as caught:
        find_cubin("sm_87", bundle)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [INDEX, "sm_87.cubin.z"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "huge"])
def test_what_is_no_file_of_its_size(bundle: Path, name: str, kind: str) -> None:
    path = bundle / "kernels" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2**40)
    with pytest.raises(KernelError, match=f"{name} cannot be read: .*musc-export kernels"):
        find_cubin("sm_87", bundle)


def test_a_cubin_that_is_gone(bundle: Path) -> None:
    (bundle / "kernels" / "sm_87.cubin.z").unlink()
    with pytest.raises(KernelError, match=r"sm_87\.cubin\.z cannot be read.*musc-export kernels"):
        find_cubin("sm_87", bundle)


def test_a_damaged_cache_says_how_to_make_it_anew(cache: Path, compiler: Compiler) -> None:
    find_cubin("sm_87")
    (folder,) = cache.iterdir()
    file = folder / "sm_87.cubin.z"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(KernelError, match=f"{file} was changed .*Make it anew: rm -r {folder}"):
        find_cubin("sm_87")
    assert find_cubin("sm_90").origin == "compiler"
    shutil.rmtree(folder)
    assert find_cubin("sm_87").origin == "compiler"


# ---- the cache -------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_noted(cache: Path, compiler: Compiler) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file is in the way", encoding="ascii")
    found = find_cubin("sm_87")
    assert (found.code, found.origin) == (CODE["sm_87"], "compiler")
    (note,) = found.notes
    assert str(cache) in note
    assert "cannot be written" in note


def test_what_is_no_entry_of_the_cache_is_said(cache: Path, compiler: Compiler) -> None:
    find_cubin("sm_87")
    (folder,) = cache.iterdir()
    (folder / INDEX).unlink()
    found = find_cubin("sm_87")
    assert found.origin == "compiler"
    assert f"{folder} cannot be written: Directory not empty" in found.notes[0]


def test_nothing_half_written_where_writing_fails(
    cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = find_cubin("sm_87")
    assert found.code == CODE["sm_87"]
    assert "No space left on device" in found.notes[0]
    assert tree(cache) == []


def test_whose_cache_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache" / "musc-edge" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "musc-edge" / "kernels"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(KernelError, match="XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.parametrize("what", ["", ".", INDEX, "sm_87.cubin.z"])
def test_a_cache_that_others_could_have_written_is_not_used(
    cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """With a compiler they are compiled, for this run alone; without one it is an error.  Both say why."""
    find_cubin("sm_87")
    (folder,) = cache.iterdir()
    path = folder / what if what else cache
    path.chmod(0o777)
    before = tree(cache)
    found = find_cubin("sm_87")
    assert (found.code, found.origin) == (CODE["sm_87"], "compiler")
    (note,) = found.notes
    assert f"everybody may write {path}" in note
    assert f"rm -r {folder}; chmod go-w {cache}" in note
    assert tree(cache) == before
    compiler.arches = frozenset()
    with pytest.raises(KernelError, match=f"no compiler for sm_87(.|\n)*everybody may write {path}"):
        find_cubin("sm_87")
    path.chmod(0o755)
    assert find_cubin("sm_87").origin == "cache"


@pytest.mark.parametrize("umask", [0o002, 0o000])
def test_what_is_kept_is_used_again_whatever_the_umask(cache: Path, compiler: Compiler, umask: int) -> None:
    before = os.umask(umask)
    try:
        places = [find_cubin("sm_87").origin for _ in range(2)]
    finally:
        os.umask(before)
    assert places == ["compiler", "cache"]


def test_one_damaged_entry_of_the_cache_does_not_hide_the_others(cache: Path, compiler: Compiler) -> None:
    find_cubin("sm_87")
    find_cubin("sm_90")
    next(cache.glob("sm_90-*/kernels.json")).write_bytes(b"{")
    notes: list[str] = []
    (kept,) = cached_cubins(notes=notes)
    assert list(kept.cubins) == ["sm_87"]
    assert "kernels.json is not as it was written" in notes[0]


def test_an_entry_of_the_cache_without_its_cubin(cache: Path, compiler: Compiler) -> None:
    find_cubin("sm_87")
    find_cubin("sm_90")
    own, other = next(cache.glob("sm_87-*")), next(cache.glob("sm_90-*"))
    shutil.rmtree(own)
    other.rename(own)
    with pytest.raises(KernelError, match="holds no cubin for sm_87"):
        find_cubin("sm_87")


@pytest.mark.long
def test_several_processes_at_once(cache: Path) -> None:
    """Each with the real compiler: all get the same, and one entry is left."""
    code = (
        "import hashlib, sys\n"
        "from musc_edge.kernels.cubins import find_cubin\n"
        "sys.stdin.read(1)\n"
        "found = find_cubin('sm_87')\n"
        "assert not found.notes, found.notes\n"
        "print(hashlib.sha256(found.code).hexdigest())\n"
    )
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("!")
        run.stdin.flush()
    answers = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(answers) == 1
    (entry,) = cache.iterdir()
    kept = open_cubins(entry, "")
    assert kept is not None
    assert kept.read("sm_87")[:4] == b"\x7fELF"
