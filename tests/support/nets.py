"""Programs that drive the kernels (battery_*.cpp), built plainly or with a sanitizer, and what they find."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from musc_edge.runtime.parallel import cores
from support.mutants import BOUNDS, MUTANTS, NETS, RACES, VALUES, Mutant
from support.places import ROOT

CUDA = Path(__file__).parent / "cuda"
KERNELS = ROOT / "kernels"
BATTERIES = "pool", "gram", "interval", "pool_int8", "gram_hopper", "near"
SEEDS = "0", "1", "6", "7"
"""Late and early copies, each with the warps in order and in a random one."""
SECONDS = 30
"""Of the processor's time, after which a program counts as one without end: far more than any takes."""
_OPTIONS = {
    VALUES: ["-O0"],  # what takes time is in emulation.cpp
    RACES: ["-O1", "-g1", "-fsanitize=thread"],
    BOUNDS: ["-O1", "-g1", "-fsanitize=address"],
}
_ENV = {
    "TSAN_OPTIONS": "halt_on_error=1:report_bugs=1",
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0",  # the stacks are fibers'
}
_INCLUDED_BEFORE = "#pragma once", "#include "
_CHOICE = """
extern "C" int run_{kernel}(const unsigned* grid, const unsigned* block, unsigned shared, uint64_t seed,
                            void** arguments) {{
  static constexpr decltype(&run_{kernel}) versions[] = {{{all}}};
  return versions[atoi(getenv("MUSC_VERSION"))](grid, block, shared, seed, arguments);
}}
"""


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
    """Programs that drive the kernels, each made once; ``make`` gives the folder that a function has filled.

    ``shared`` is the folder that ``compile_shared`` has filled.
    """

    shared: Path
    make: Callable[[str, Callable[[Path], object]], Path]

    def find(self, name: str, net: str, mutant: Mutant | None = None) -> str:
        """What the battery ``name`` finds in its kernels, as shipped or with a fault; empty for nothing."""
        program = self.make(f"battery_{name}_{net}", partial(self._build, name, net)) / "battery"
        return _findings(program, net, _versions(name, net).index(mutant))

    def _build(self, name: str, net: str, folder: Path) -> None:
        # All versions in one program: parsing the headers and linking takes longer than a kernel.
        source = folder / f"{name}_versions.cpp"
        source.write_text(_program(name, _versions(name, net)), encoding="ascii")
        header = (self.shared if net == VALUES else CUDA) / "cuda_cpu.h"
        objects = self.shared / f"{name}.o", self.shared / f"{net}.o"
        headers = "-include", header, f"-I{KERNELS}"
        _compile(*_OPTIONS[net], *headers, source, *objects, "-o", folder / "battery")


def _versions(name: str, net: str) -> list[Mutant | None]:
    """The kernels of a battery: as shipped, and with each fault that ``net`` is to catch."""
    return [None, *(m for m in MUTANTS if (Path(m.file).stem, m.net) == (name, net))]


def _program(name: str, versions: Sequence[Mutant | None]) -> str:
    """All versions of the kernels in ``name``.cuh; $MUSC_VERSION chooses one when the program runs."""
    runs = (CUDA / f"{name}_cpu.cpp").read_text(encoding="ascii")
    kernels = re.findall(r"^RUN\((\w+)\)$", runs, re.MULTILINE)
    shipped = (KERNELS / f"{name}.cuh").read_text(encoding="ascii")
    parts = [*re.findall(r"^#include .*$", shipped, re.MULTILINE), '#include "run_kernel.h"']
    for number, mutant in enumerate(versions):
        code = mutant.apply(shipped) if mutant else shipped
        names = [f"{prefix}{kernel}" for kernel in kernels for prefix in ("", "run_")]
        # A kernel is extern "C", which no namespace keeps apart.
        parts += [f"#define {own} {own}_{number}" for own in names]
        parts += [f"namespace version_{number} {{", f'#line 1 "{name}.cuh: {number}"']
        parts += [line for line in code.splitlines() if not line.startswith(_INCLUDED_BEFORE)]
        parts += [*(f"RUN({kernel})" for kernel in kernels), "}", *(f"#undef {own}" for own in names)]
    parts += [_CHOICE.format(kernel=kernel, all=_all(kernel, len(versions))) for kernel in kernels]
    return "\n".join(parts) + "\n"


def _all(kernel: str, count: int) -> str:
    return ", ".join(f"version_{number}::run_{kernel}_{number}" for number in range(count))


def _compile(*options: str | Path) -> None:
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-DMUSC_CPU", f"-I{CUDA}", *map(str, options)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def _findings(program: Path, net: str, version: int) -> str:
    """What a battery finds, in a line; empty if all is right."""
    sizes = "values" if net == VALUES else "watched"
    seeds = SEEDS if net == VALUES else SEEDS[2:]
    # Of the processor's time: on a busy machine the clock says nothing.
    run = subprocess.run(
        [str(program), sizes, *seeds], env={**os.environ, **_ENV, "MUSC_VERSION": str(version)},
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
    )  # fmt: skip
    if run.returncode == 0:
        return ""
    if run.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"no end within {SECONDS} s of the processor's time"
    printed = (run.stdout + run.stderr).splitlines()
    told = [line for line in printed if "ERROR: " in line or "WARNING: " in line] or printed
    return told[0].strip() if told else f"ended by signal {-run.returncode}"
