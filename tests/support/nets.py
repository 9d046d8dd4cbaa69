"""Programs that drive the kernels (battery_*.cpp), built plainly or with a sanitizer, and what they find."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from musc_edge.runtime.parallel import cores
from support.mutants import BOUNDS, NETS, RACES, VALUES
from support.places import ROOT

CUDA = Path(__file__).parent / "cuda"
KERNELS = ROOT / "kernels"
BATTERIES = "pool", "gram", "interval"
SEEDS = "0", "1", "6", "7"
"""Late and early copies, each with the warps in order and in a random one."""
SECONDS = 120
_OPTIONS = {
    VALUES: ["-O0"],  # what takes time is in emulation.cpp
    RACES: ["-O1", "-g1", "-fsanitize=thread"],
    BOUNDS: ["-O1", "-g1", "-fsanitize=address"],
}
_ENV = {
    "TSAN_OPTIONS": "halt_on_error=1:report_bugs=1",
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0",  # the stacks are fibers'
}


def compile_shared(folder: Path) -> None:
    """Compile into ``folder`` what all programs share."""
    header = folder / "cuda_cpu.h.gch"
    jobs = [[*_OPTIONS[VALUES], "-w", "-x", "c++-header", CUDA / "cuda_cpu.h", "-o", header]]
    jobs += [["-O2", "-c", CUDA / f"battery_{k}.cpp", "-o", folder / f"{k}.o"] for k in BATTERIES]
    jobs += [["-O2", *_OPTIONS[n][1:], "-c", CUDA / "emulation.cpp", "-o", folder / f"{n}.o"] for n in NETS]
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda job: _compile(*job), jobs))


@dataclass(frozen=True)
class Nets:
    """Builds programs from ``folder``, which ``compile_shared`` has filled."""

    folder: Path

    def build(self, name: str, net: str, target: Path, kernels: Path = KERNELS) -> Path:
        """The battery called ``name`` with the kernels of the folder ``kernels``."""
        header = self.folder if net == VALUES else CUDA
        objects = self.folder / f"{name}.o", self.folder / f"{net}.o"
        _compile(
            *_OPTIONS[net], "-include", header / "cuda_cpu.h", f"-I{kernels}",
            CUDA / f"{name}_cpu.cpp", *objects, "-o", target,
        )  # fmt: skip
        return target


def _compile(*options: str | Path) -> None:
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-DMUSC_CPU", f"-I{CUDA}", *map(str, options)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def findings(program: Path, net: str) -> str:
    """What a battery finds, in a line; empty if all is right."""
    sizes = "values" if net == VALUES else "watched"
    seeds = SEEDS if net == VALUES else SEEDS[2:]
    try:
        run = subprocess.run(
            [str(program), sizes, *seeds], env={**os.environ, **_ENV}, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s"
    if run.returncode == 0:
        return ""
    printed = (run.stdout + run.stderr).splitlines()
    told = [line for line in printed if "ERROR: " in line or "WARNING: " in line] or printed
    return told[0].strip() if told else f"ended by signal {-run.returncode}"
