"""Compile the kernels for one architecture, with NVRTC or nvcc, whichever this machine has.

cuda_source.py lists which version of CUDA may compile for which architecture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from .._extras import install
from .cuda_source import ARCHES, HOPPER, NEWEST, OPTIONS, arch_number, source_files
from .errors import KernelError
from .nvcc import installed_nvcc
from .nvrtc import installed_nvrtc

_FIRST_WITH_HOPPER = 12  # CUDA's first major version with sm_90a; 11.8 knows sm_90 alone
_INSTALL = install("kernels")
_FUNCTION = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '\w+'.*?"
    r"(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Compiler(Protocol):
    """A CUDA compiler on this machine."""

    name: str
    """Name and version, such as "NVRTC 12.6.85"."""
    major: int
    """Major version of its CUDA."""
    arches: frozenset[str]
    """The architectures that it can compile for, as it lists them: sm_90 without sm_90a."""

    def compile(self, arch: str, options: tuple[str, ...], files: Mapping[str, bytes]) -> tuple[bytes, str]:
        """Compile ``files`` into a cubin, with the report of ptxas; KernelError with the compiler's log."""
        ...


@dataclass(frozen=True)
class Resources:
    """Resources of one thread of a kernel; spills and stack are memory used for want of registers."""

    registers: int
    spill_bytes: int
    stack_bytes: int


@dataclass(frozen=True)
class Compiled:
    """The kernels, compiled for one architecture."""

    arch: str
    code: bytes
    compiler: str
    kernels: dict[str, Resources]


def compilers() -> Iterator[Compiler]:
    """Yield the compilers of this machine: NVRTC from PyPI, the system's NVRTC, nvcc."""
    yield from installed_nvrtc()
    yield from installed_nvcc()


def compiler_for(arch: str, *, portable: bool) -> Compiler:
    """Choose the compiler for ``arch``.

    Parameters
    ----------
    portable : whether the cubin must load on every machine with such a GPU, not only on this one.

    Raises
    ------
    KernelError
        If this machine has none.
    """
    # A cubin that travels must not come from a newer CUDA than the oldest driver in use (cuda_source.py).
    # For this machine alone any compiler will do that knows the architecture.
    latest = ARCHES.get(arch, NEWEST)
    found = []
    for compiler in compilers():
        if _knows(compiler, arch) and compiler.major <= latest:
            return compiler
        found.append(compiler)
    able = [compiler for compiler in found if _knows(compiler, arch)]
    if able and not portable:
        return able[0]
    needed = f"one of CUDA {latest}" + (" or older, so that such drivers load its cubins" if able else "")
    names = ", ".join(compiler.name for compiler in found) or "none"
    names += "" if able or not found else ", which do not know it"
    raise KernelError(f"no compiler for {arch}: expected {needed}; found {names}. Install one: {_INSTALL}")


def _knows(compiler: Compiler, arch: str) -> bool:
    """Return whether a compiler compiles for ``arch``; sm_90a, which none lists, came after sm_90."""
    if arch == HOPPER and compiler.major < _FIRST_WITH_HOPPER:
        return False
    return f"sm_{arch_number(arch)}" in compiler.arches


def uncompilable(arches: Iterable[str]) -> str:
    """Why this machine cannot compile for one of ``arches`` what travels in a bundle; empty if it can."""
    try:
        for arch in arches:
            compiler_for(arch, portable=True)
    except KernelError as error:
        return str(error)
    return ""


def compile_kernels(arch: str, compiler: Compiler, files: Mapping[str, bytes] | None = None) -> Compiled:
    """Compile the kernels for ``arch``; KernelError with the compiler's log if that fails.

    ``files`` is the source by file name; None for the kernels' own.
    """
    try:
        code, report = compiler.compile(arch, OPTIONS, source_files() if files is None else files)
    except KernelError as error:
        raise KernelError(
            f"{compiler.name} does not compile the kernels for {arch}:\n{error}\n"
            f"If the source is as it was installed, use another compiler: {_INSTALL}"
        ) from error
    return Compiled(arch, code, compiler.name, read_report(report))


def read_report(text: str) -> dict[str, Resources]:
    """Parse what ptxas prints with -v into resources by kernel."""
    return {
        found["name"]: Resources(
            int(found["registers"]), int(found["stores"]) + int(found["loads"]), int(found["stack"])
        )
        for found in sorted(_FUNCTION.finditer(text), key=lambda found: found["name"])
    }
