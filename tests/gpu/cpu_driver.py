"""Builds the driver of cuda_driver_cpu.cpp for one build of pycuda, loads it, and asks it for its counts."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gpu.pycuda_build import DRIVER, cuda_root
from support.places import ROOT

CUDA = ROOT / "tests" / "support" / "cuda"
ILLEGAL_ADDRESS = 700
CUBIN = b"\x7fELF, for the driver on the CPU, which holds the kernels itself"


@dataclass(frozen=True)
class Counts:
    """What the driver holds; ``left`` is what was left when the primary context was reset last."""

    memory: int
    page_locked: int
    streams: int
    events: int
    modules: int
    references: int
    current_here: int
    left: int

    @property
    def living(self) -> int:
        """Objects that somebody must still give back."""
        return self.memory + self.page_locked + self.streams + self.events + self.modules


class CpuDriver:
    """The driver, loaded before pycuda, so that pycuda's own dependency is met by it."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulation_set.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_uint64]

    def set_up(self, devices: int = 1, memory: int = 1 << 30, seed: int = 0) -> None:
        """How many devices there are, their memory, and the order of work."""
        self._library.emulation_set(devices, memory, seed)

    def fail(self, kernel: str, code: int = ILLEGAL_ADDRESS) -> None:
        """Let the next run of ``kernel`` fail."""
        self._library.emulation_fail(kernel.encode(), code)

    def retain(self) -> None:
        """Hold the primary context, as another library in the process may."""
        assert self._library.emulation_hold() == 0

    def release(self) -> None:
        """Give up what ``retain`` took."""
        assert self._library.emulation_let_go() == 0

    def counts(self) -> Counts:
        """What the driver holds now, as seen from this thread."""
        found = (ctypes.c_size_t * 8)()
        self._library.emulation_count(found)
        return Counts(*found)


def build_driver(pycuda: Path, folder: Path, kernels: Path = ROOT / "kernels") -> Path:
    """Compile the driver, with a stub for each call that ``pycuda`` is linked to and it does not have."""
    (extension,) = pycuda.glob("pycuda/_driver*.so")
    lines = _run("nm", "-D", "--undefined-only", str(extension)).splitlines()
    calls = {name for line in lines if (name := line.split()[-1]).startswith("cu") and name[2].isupper()}
    library, stubs = folder / DRIVER, folder / "stubs.cpp"
    stubs.write_text("#include <cstdio>\n#include <cstdlib>\n" + "".join(map(_stub, sorted(calls))))
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-DMUSC_CPU", f"-Wl,-soname,{DRIVER}"]
    include = [f"-I{folder}" for folder in (cuda_root() / "include", kernels, CUDA)]
    _run("g++", *options, *include, str(CUDA / "cuda_driver_cpu.cpp"), str(stubs), "-o", str(library))
    return library


def _stub(name: str) -> str:
    """A call that ends the process; weak, so that the driver's own takes its place where it has one."""
    body = f'{{ fputs("{name} is not emulated\\n", stderr); _Exit(97); }}'
    return f'extern "C" __attribute__((weak)) int {name}() {body}\n'


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout
