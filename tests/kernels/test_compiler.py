"""Compiling the kernels: what every compiler here makes of them, held to what they were written for."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from musc_edge.kernels import compiler as compiler_module
from musc_edge.kernels.compiler import (
    Compiled,
    Resources,
    compile_kernels,
    compiler_for,
    compilers,
    read_report,
)
from musc_edge.kernels.cuda_source import ARCHES, HOPPER, MAIN, OPTIONS, source_digest, source_files
from musc_edge.kernels.errors import KernelError
from musc_edge.kernels.nvcc import Nvcc, installed_nvcc
from musc_edge.kernels.nvrtc import Nvrtc, installed_nvrtc

pytestmark = pytest.mark.long

KERNELS = {
    *("centre_half", "centre_float", "pool_half", "pool_float", "pool_half_int8", "pool_float_int8"),
    *(
        "column_mean",
        "gram_min",
        "gram_min_int8",
        "interval_mean",
        "burn_out_mean",
        "peak_products",
        "peak_copy",
        "gather_rows",
        "exclude_patches",
        "gram_min_near",
        "gram_min_int8_near",
        "burn_out_mean_near",
    ),
}
COMPARING = "gram_min", "gram_min_int8", "gram_min_int8_near", "gram_min_near"
BY_WARPGROUPS = "gram_min_128", "gram_min_192", "gram_min_near_128"
ABI = {12: 7, 13: 8}
"""Byte 8 of a cubin, by the major version of CUDA."""


@pytest.fixture(scope="module")
def made() -> dict[str, Compiled]:
    """The kernels for every architecture, as a bundle has them."""
    with ThreadPoolExecutor(2) as pool:
        work = pool.map(lambda arch: compile_kernels(arch, compiler_for(arch, portable=True)), ARCHES)
        return dict(zip(ARCHES, work, strict=True))


def too_much(arch: str, kernels: dict[str, Resources]) -> list[str]:
    """What is beyond the limits that the kernels were written for."""
    limits = dict.fromkeys(KERNELS, 64) | dict.fromkeys(COMPARING, 128 if arch != "sm_75" else 255)
    limits |= dict.fromkeys(BY_WARPGROUPS, 168)  # at the start; warpgroups then hand registers to each other
    return [
        f"{name}: {kernel}"
        for name, kernel in kernels.items()
        if kernel.registers > limits[name] or kernel.spill_bytes or kernel.stack_bytes
    ]


def kernels_for(arch: str) -> set[str]:
    """What a cubin holds: the kernels, and for Hopper those that only it can run."""
    return KERNELS.union(BY_WARPGROUPS if arch == HOPPER else ())


def nvidia_tool(name: str, cubin: Path, *options: str) -> str:
    """Output of cuobjdump or nvdisasm, from their packages."""
    (program,) = (f for f in metadata.files(f"nvidia-cuda-{name}") or [] if f.name == name)
    command = [str(program.locate()), *options, str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# ---- what is compiled ------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.slow
def test_no_kernel_spills_or_takes_too_many_registers(made: dict[str, Compiled], arch: str) -> None:
    assert set(made[arch].kernels) == kernels_for(arch)
    assert too_much(arch, made[arch].kernels) == []


@pytest.mark.parametrize("arch", ARCHES)
def test_what_the_cubin_says_of_itself(made: dict[str, Compiled], arch: str, tmp_path: Path) -> None:
    """The compiler's report is that of the cubin, which loads where it is meant to."""
    code = made[arch].code
    assert code[:4] == b"\x7fELF"
    assert code[8] == ABI[ARCHES[arch]]
    (tmp_path / "cubin").write_bytes(code)
    text = nvidia_tool("cuobjdump", tmp_path / "cubin", "--dump-resource-usage")
    found = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert {name: int(registers) for name, registers, *_ in found} == {
        name: kernel.registers for name, kernel in made[arch].kernels.items()
    }
    assert {tuple(rest) for _, _, *rest in found} == {("0", "0")}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.slow
def test_instructions(made: dict[str, Compiled], arch: str, tmp_path: Path) -> None:
    """Products run on tensor cores, fed by ldmatrix and asynchronous copies, and nothing lies in memory."""
    (tmp_path / "cubin").write_bytes(made[arch].code)
    text = nvidia_tool("nvdisasm", tmp_path / "cubin", "-c")
    parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)[1:]
    by_kernel = {
        name: set(re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z0-9]+)", body, re.MULTILINE))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
    assert set(by_kernel) == kernels_for(arch)
    wanted = {"LDSM"} | ({"LDGSTS"} if arch != "sm_75" else set())
    assert wanted | {"HMMA"} <= by_kernel["gram_min"]
    assert wanted | {"IMMA"} <= by_kernel["gram_min_int8"]
    assert not set.union(*by_kernel.values()) & {"LDL", "STL"}
    for name in kernels_for(arch) - KERNELS:
        assert {"HGMMA", "UBLKCP", "USETMAXREG", "REDG"} <= by_kernel[name]
        assert not by_kernel[name] & {"HMMA", "LDSM"}


def test_the_limits_can_be_exceeded() -> None:
    """With room for four CTAs on a multiprocessor, gram_min has no registers for its tile."""
    files = source_files()
    files["gram.cuh"] = files["gram.cuh"].replace(b"GRAM_CTAS = 2;", b"GRAM_CTAS = 4;")
    kernels = compile_kernels("sm_87", compiler_for("sm_87", portable=True), files).kernels
    assert sorted(text.split(":")[0] for text in too_much("sm_87", kernels)) == sorted(COMPARING)


@pytest.mark.slow
def test_every_compiler_of_this_machine() -> None:
    """Also those that a bundle would not take: each compiles for the GPU that it runs beside."""
    found = list(compilers())
    assert {compiler.major for compiler in found} >= {12, 13}
    for compiler in found:
        made = compile_kernels("sm_90", compiler)
        assert made.compiler == compiler.name
        assert set(made.kernels) == KERNELS
        assert too_much("sm_90", made.kernels) == []
        assert made.code[8] == ABI[compiler.major]


def test_no_compiler_lets_a_warpgroup_wait_after_each_product() -> None:
    """Which ptxas does, and says, where it does not see that nothing else touches the sums meanwhile."""
    for compiler in compilers():
        _, report = compiler.compile(HOPPER, OPTIONS, source_files())
        made = read_report(report)
        assert set(made) == kernels_for(HOPPER)
        assert too_much(HOPPER, made) == []
        assert "wgmma" not in report


def test_a_compilation_can_be_repeated(made: dict[str, Compiled]) -> None:
    """So that two who compile the same put the same into the cache."""
    assert compile_kernels("sm_87", compiler_for("sm_87", portable=True)) == made["sm_87"]


# ---- which compiler --------------------------------------------------------------------------


class Fake:
    """A compiler that knows some architectures."""

    def __init__(self, name: str, major: int, *arches: str) -> None:
        self.name, self.major, self.arches = name, major, frozenset(arches)

    def compile(self, *_: object) -> tuple[bytes, str]:
        raise KernelError("musc.cu(1): error: this is the log")


OLD, NEW = Fake("old 12.6", 12, "sm_87", "sm_90"), Fake("new 13.0", 13, "sm_87", "sm_90", "sm_120")


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """The compilers of this machine; a test fills the list."""
    found: list[Fake] = []
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter(found))
    return found


def test_older_first_and_newer_where_it_must_be(present: list[Fake]) -> None:
    present += [NEW, OLD]
    assert compiler_for("sm_87", portable=True) is OLD
    assert compiler_for("sm_87", portable=False) is OLD
    assert compiler_for("sm_120", portable=True) is NEW


def test_newer_for_this_machine_alone(present: list[Fake]) -> None:
    present += [NEW]
    assert compiler_for("sm_87", portable=False) is NEW
    with pytest.raises(KernelError, match=r"expected one of CUDA 12 or older, .*; found new 13\.0\. Install"):
        compiler_for("sm_87", portable=True)


@pytest.mark.parametrize("portable", [False, True])
def test_no_compiler(present: list[Fake], portable: bool) -> None:
    with pytest.raises(KernelError, match=r"one of CUDA 12; found none\. .*'musc-edge\[kernels\]'"):
        compiler_for("sm_87", portable=portable)
    present += [OLD]
    with pytest.raises(KernelError, match=r"one of CUDA 13; found old 12\.6, which do not know it"):
        compiler_for("sm_120", portable=portable)


# ---- errors and reports ----------------------------------------------------------------------


def test_source_that_does_not_compile() -> None:
    """The log names file and line, whichever compiler it is."""
    broken = {**source_files(), "pool.cuh": b"#pragma once\n__device__ int x = ;\n"}
    for compiler in compilers():
        with pytest.raises(
            KernelError, match=r"(?s)does not compile .* for sm_90:.*pool\.cuh\(2\): error"
        ) as caught:
            compile_kernels("sm_90", compiler, broken)
        assert compiler.name in str(caught.value)
        assert "pip install 'musc-edge[kernels]'" in str(caught.value)


def test_report() -> None:
    text = """ptxas info    : 64 bytes gmem
ptxas info    : Compiling entry function 'b' for 'sm_90'
ptxas info    : Function properties for b
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers
ptxas info    : Compiling entry function 'a' for 'sm_90'
ptxas info    : Function properties for a
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 9 registers
"""
    assert read_report(text) == {"a": Resources(9, 0, 0), "b": Resources(255, 20, 16)}
    assert read_report("") == {}


def fake_nvcc(folder: Path, body: str) -> str:
    program = folder / "nvcc"
    program.write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
    program.chmod(0o755)
    return str(program)


_ASKED = """case "$1" in
--version) echo "Cuda compilation tools, release 12.6, V12.6.77";;
--list-gpu-code) printf 'sm_87\\nsm_90\\n';;
"""


def test_nvcc_says_what_it_is(tmp_path: Path) -> None:
    compiler = Nvcc(fake_nvcc(tmp_path, _ASKED + "esac"))
    assert (compiler.name, compiler.major, compiler.arches) == (
        "nvcc 12.6.77",
        12,
        frozenset({"sm_87", "sm_90"}),
    )


def test_nvcc_is_given_the_source_and_its_words_are_passed_on(tmp_path: Path) -> None:
    body = f"""*) for out; do :; done
for file; do case "$file" in *{MAIN}) cat "$file" > "$out";; esac; done; echo "report of $2" >&2;; esac"""
    compiler = Nvcc(fake_nvcc(tmp_path, _ASKED + body))
    assert compiler.compile("sm_87", (), {MAIN: b"source"}) == (b"source", "report of -arch=sm_87")
    failing = Nvcc(fake_nvcc(tmp_path, _ASKED + "*) echo 'no g++' >&2; exit 1;; esac"))
    with pytest.raises(KernelError, match="no g\\+\\+"):
        failing.compile("sm_87", (), {MAIN: b"source"})


def test_nvcc_that_does_not_run_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(installed_nvcc()) == []
    fake_nvcc(tmp_path, _ASKED + "esac")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert [compiler.name for compiler in installed_nvcc()] == ["nvcc 12.6.77"]


def test_a_library_is_named_once_and_others_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded library answers to its plain name too, and some other library is not NVRTC."""
    monkeypatch.setattr("musc_edge.kernels.nvrtc._SYSTEM", ("libnvrtc.so.12", "libm.so.6", "nothing.so"))
    assert [compiler.major for compiler in installed_nvrtc()] == [12, 13]
    with pytest.raises(OSError, match=r"nothing\.so"):
        Nvrtc("nothing.so")


def test_identity_is_source_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_digest()
    assert source_digest() == before
    assert MAIN in source_files()
    monkeypatch.setattr("musc_edge.kernels.cuda_source.OPTIONS", ("-std=c++20",))
    assert source_digest() != before
    monkeypatch.undo()
    files = {**source_files(), "pool.cuh": b""}
    monkeypatch.setattr("musc_edge.kernels.cuda_source.source_files", lambda: files)
    assert source_digest() != before
