"""``musc-export kernels``: kernels in a bundle, all of them or none."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from musc_edge.export import make
from musc_edge.kernels import compiler as compiler_module
from musc_edge.kernels.cubins import find_cubin
from musc_edge.kernels.cuda_source import ARCHES
from musc_edge.kernels.errors import KernelError
from musc_edge.runtime.results import output
from musc_edge.tools import edge, export
from support.lots import make_bundle, tree
from support.places import listen_to_interrupts
from support.sources import quiet, tiny_source

pytestmark = pytest.mark.long


class Compiler:
    """Compiles anything at once."""

    name, major, arches = "NVRTC 12.6.85", 12, frozenset({*ARCHES, "sm_72"})

    def compile(self, arch: str, options: tuple[str, ...], files: Mapping[str, bytes]) -> tuple[bytes, str]:
        report = f"""Compiling entry function 'gram_min' for '{arch}'
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
Used 126 registers"""
        return f"\x7fELF for {arch}".encode(), report


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """The only compiler of this machine."""
    only = Compiler()
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([only]))
    return only


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kernels(bundle: Path, *options: str) -> int:
    return export.main(["kernels", str(bundle), *options])


def process(commands: Path, bundle: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    """The command in a process of its own; ``limit`` bytes are the most that a file may grow to."""

    def prepare() -> None:
        listen_to_interrupts()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [str(commands / "musc-export"), "kernels", str(bundle), *options]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, env=env, preexec_fn=prepare, stdout=pipe, stderr=pipe)


# ---- what is written -------------------------------------------------------------------------


def test_on_a_host_as_a_user_does_it(bundle: Path, commands: Path) -> None:
    """With the real compilers; the kernels are there for a device without one, and the manifest stays."""
    before = tree(bundle)
    run = process(commands, bundle, "--arch", "sm_87,sm_120")
    said, error = run.communicate()
    assert run.returncode == 0, error
    assert "sm_87, sm_120, by NVRTC 12.6" in said
    assert "0 bytes spilled" in said
    assert names(bundle / "kernels") == ["kernels.json", "sm_120.cubin.z", "sm_87.cubin.z"]
    assert {name: content for name, content in tree(bundle).items() if "kernels" not in name} == before
    found = find_cubin("sm_87", bundle)
    assert (found.origin, found.code[:4], found.code[8]) == ("bundle", b"\x7fELF", 7)
    assert find_cubin("sm_121", bundle).arch == "sm_120"


def test_for_every_gpu_unless_told_otherwise(
    bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kernels(bundle) == 0
    assert "sm_110, sm_120, by NVRTC 12.6.85" in capsys.readouterr().out
    assert set(names(bundle / "kernels")) == {"kernels.json", *(f"{arch}.cubin.z" for arch in ARCHES)}


def test_what_was_there_is_replaced(bundle: Path, compiler: Compiler) -> None:
    assert kernels(bundle, "--arch", "sm_72,sm_87") == 0
    assert kernels(bundle, "--arch", "sm_86,sm_86") == 0
    assert names(bundle / "kernels") == ["kernels.json", "sm_86.cubin.z"]
    assert names(bundle) == ["kernels", "manifest.json", "model.onnx", "probe.npz"]


def test_for_machines(bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels(bundle, "--arch", "sm_87", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["kernels"]["current"]
    (entry,) = data["kernels"]["cubins"].values()
    assert entry["compiler"] == "NVRTC 12.6.85"
    assert entry["kernels"] == {"gram_min": {"registers": 126, "spill_bytes": 8, "stack_bytes": 8}}


# ---- inspect and verify ----------------------------------------------------------------------


def inspect(bundle: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    capsys.readouterr()
    assert edge.main(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert edge.main(["inspect", str(bundle), "--json"]) == 0
    return text, json.loads(capsys.readouterr().out)["kernels"]


def test_inspect(
    bundle: Path,
    compiler: Compiler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, facts = inspect(bundle, capsys)
    assert "kernels" not in text
    assert facts is None
    assert kernels(bundle, "--arch", "sm_87") == 0
    text, facts = inspect(bundle, capsys)
    assert "kernels     sm_87, by NVRTC 12.6.85; 0 KB, hashes ok\n" in text
    assert facts["current"]
    monkeypatch.setattr("musc_edge.kernels.cubin_files.source_digest", lambda: "f" * 64)
    text, facts = inspect(bundle, capsys)
    assert (
        f"of another source than this musc-edge's, not used. Make them anew: musc-export kernels {bundle}"
        in text
    )
    assert not facts["current"]


@pytest.mark.slow
def test_verify(compiler: Compiler, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also that a bundle with kernels can be overwritten: they go with it."""
    bundle = tmp_path / "bundle"
    source = tiny_source(tmp_path, (16, 24))
    make.make_bundle(source, bundle, say=quiet)
    assert kernels(bundle, "--arch", "sm_87") == 0
    capsys.readouterr()
    assert export.main(["verify", str(bundle)]) == 0
    assert "kernels: sm_87, by NVRTC 12.6.85" in capsys.readouterr().out
    assert export.main(["verify", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"]["current"]
    make.make_bundle(source, bundle, overwrite=True, say=quiet)
    assert export.main(["verify", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"] is None


@pytest.mark.parametrize("command", [edge.main, export.main])
def test_damage_is_found(
    bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str], command: object
) -> None:
    assert kernels(bundle, "--arch", "sm_87") == 0
    path = bundle / "kernels" / "sm_87.cubin.z"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    name = "inspect" if command is edge.main else "verify"
    assert callable(command)
    assert command([name, str(bundle)]) == 4
    error = capsys.readouterr().err
    assert f"{path} was changed" in error
    assert f"musc-export kernels {bundle}" in error
    assert kernels(bundle, "--arch", "sm_87") == 0
    assert edge.main(["inspect", str(bundle)]) == 0


# ---- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_interrupted_between_two_architectures(
    bundle: Path, commands: Path, number: signal.Signals, code: int
) -> None:
    before = tree(bundle)
    run = process(commands, bundle)
    assert run.stdout is not None
    assert "sm_75" in run.stdout.readline()
    run.send_signal(number)
    run.communicate()
    assert run.returncode == code
    assert tree(bundle) == before


def test_full_disk_keeps_what_was_there(bundle: Path, commands: Path, compiler: Compiler) -> None:
    assert kernels(bundle, "--arch", "sm_87") == 0
    before = tree(bundle)
    run = process(commands, bundle, "--arch", "sm_86", limit=5_000)
    _, error = run.communicate()
    assert run.returncode == 7, error
    assert "File too large. What was there before is unchanged" in error
    assert tree(bundle) == before


def test_read_only_bundle(
    bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(output._Partial, "_take_lock", refuse)  # permissions do not keep root from writing
    before = tree(bundle)
    assert kernels(bundle) == 7
    assert "Read-only file system. Copy the bundle to where it can be written." in capsys.readouterr().err
    assert tree(bundle) == before


def test_files_of_others_stay(bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels(bundle, "--arch", "sm_87") == 0
    (bundle / "kernels" / "notes.txt").write_text("mine", encoding="ascii")
    before = tree(bundle)
    assert kernels(bundle) == 7
    assert "files that are not ours (notes.txt)" in capsys.readouterr().err
    assert tree(bundle) == before


def test_no_compiler_for_one_of_them(
    bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(bundle)
    assert kernels(bundle, "--arch", "sm_87,sm_99") == 5
    assert "no compiler for sm_99" in capsys.readouterr().err
    assert tree(bundle) == before


def test_source_that_does_not_compile(
    bundle: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[bytes, str]:
        raise KernelError("musc.cu(1): error: the log")

    monkeypatch.setattr(compiler, "compile", fail)
    before = tree(bundle)
    assert kernels(bundle) == 5
    error = capsys.readouterr().err
    assert "musc.cu(1): error: the log" in error
    assert "Traceback" not in error
    assert tree(bundle) == before


@pytest.mark.parametrize("arch", ["sm_8x", "87", "", "sm_87,", "../../x"])
def test_no_architecture(bundle: Path, arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        kernels(bundle, "--arch", arch)
    assert caught.value.code == 2
    assert "expected an architecture such as sm_87" in capsys.readouterr().err


def test_no_bundle(tmp_path: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels(tmp_path) == 4
    assert "is not a bundle" in capsys.readouterr().err
    assert names(tmp_path) == []
