"""The kernels' source: what is compiled, with which options, for which GPUs, and its identity."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .._json import shortly

MAIN = "musc.cu"
OPTIONS = ("-std=c++17",)
"""What every compiler is told besides the architecture; no header of CUDA is needed."""

ARCHES = {
    "sm_75": 12,  # Turing
    "sm_80": 12,  # A100
    "sm_86": 12,  # Ampere otherwise
    "sm_87": 12,  # Jetson Orin
    "sm_89": 12,  # Ada
    "sm_90": 12,  # Hopper
    "sm_110": 13,  # Jetson Thor
    "sm_120": 13,  # Blackwell
}
"""What a bundle's kernels are compiled for, each with the latest CUDA whose cubins all its drivers load: a
driver loads those of its own major version and of earlier ones, and JetPack 6 brings CUDA 12."""
NEWEST = 13
"""That version for every other architecture."""


def source_files() -> dict[str, bytes]:
    """Content of each file of the source by its name, MAIN among them; it includes the others."""
    folder = Path(__file__).parent
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.cu*"))}


def source_digest() -> str:
    """Sha256 of source and options: what a result depends on besides the architecture."""
    digest = hashlib.sha256("\0".join(OPTIONS).encode())
    for name, content in source_files().items():
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def arch_number(arch: str) -> int:
    """87 for "sm_87"; ValueError for what names no architecture."""
    prefix, _, number = arch.partition("_")
    if prefix != "sm" or not number.isdecimal() or not 10 <= int(number) <= 999:
        raise ValueError(f"{shortly(arch)}: expected an architecture such as sm_87")
    return int(number)
