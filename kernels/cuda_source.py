"""The kernels' source: its files, the options and GPUs it is compiled for, and its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .._json import shortly

MAIN = "musc.cu"
OPTIONS = ("-std=c++17",)
"""Options for every compiler besides the architecture; no header of CUDA is needed."""

ARCHES = {
    "sm_75": 12,  # Turing
    "sm_80": 12,  # A100
    "sm_86": 12,  # Ampere otherwise
    "sm_87": 12,  # Jetson Orin
    "sm_89": 12,  # Ada
    "sm_90": 12,  # Hopper, and what no other GPU can (HOPPER)
    "sm_90a": 12,
    "sm_110": 13,  # Jetson Thor
    "sm_120": 13,  # Blackwell
}
"""The architectures of a bundle's kernels, each with the latest CUDA whose cubins all its drivers load.  A
driver loads those of its own major version and of earlier ones, and JetPack 6 comes with CUDA 12."""
HOPPER = "sm_90a"
"""A GPU of compute capability 9.0 with all that it can, its warpgroups' products among it (hopper.cuh)."""
NEWEST = 13
"""The latest CUDA for every other architecture."""


def source_files() -> dict[str, bytes]:
    """Read the files of the source, by name; MAIN is the one that includes the others."""
    folder = Path(__file__).parent
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.cu*"))}


def source_digest() -> str:
    """Return the sha256 of source and options, which a result depends on besides the architecture."""
    digest = hashlib.sha256("\0".join(OPTIONS).encode())
    for name, content in source_files().items():
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def arch_number(arch: str) -> int:
    """Return 87 for "sm_87", 90 for HOPPER; ValueError if ``arch`` is not an architecture."""
    prefix, _, number = arch.removesuffix("a" if arch == HOPPER else "").partition("_")
    if prefix != "sm" or not number.isdecimal() or not 10 <= int(number) <= 999:
        raise ValueError(f"{shortly(arch)}: expected an architecture such as sm_87")
    return int(number)


def arch_of(major: int, minor: int) -> str:
    """Return the architecture of a GPU of compute capability ``major``.``minor``."""
    return HOPPER if (major, minor) == (9, 0) else f"sm_{major}{minor}"
