"""Compile with nvcc, the compiler of a CUDA toolkit."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .cuda_source import MAIN
from .errors import KernelError

_USUAL = "/usr/local/cuda/bin/nvcc"


def installed_nvcc() -> Iterator[Nvcc]:
    """Yield nvcc from $PATH, else from the usual folder, if it runs."""
    path = shutil.which("nvcc") or shutil.which(_USUAL)
    if path:
        try:
            yield Nvcc(path)
        except (OSError, KernelError):
            return


class Nvcc:
    """A ``Compiler``: the program nvcc at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path
        version = re.search(r"V((\d+)\.[\d.]+)", self._run("--version").stdout)
        if version is None:
            raise KernelError(f"{path} --version names no version.")
        self.name = f"nvcc {version[1]}"
        self.major = int(version[2])
        self.arches = frozenset(self._run("--list-gpu-code").stdout.split())

    def compile(self, arch: str, options: tuple[str, ...], files: Mapping[str, bytes]) -> tuple[bytes, str]:
        """Compile ``files`` into a cubin, with the report of ptxas; KernelError with the compiler's log."""
        with tempfile.TemporaryDirectory(prefix="musc-edge-") as name:
            folder = Path(name)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            cubin = folder / "musc.cubin"
            run = self._run(
                "-cubin", f"-arch={arch}", "-Xptxas=-v", *options, str(folder / MAIN), "-o", str(cubin)
            )
            return cubin.read_bytes(), run.stderr.strip()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        run = subprocess.run([self._path, *arguments], capture_output=True, text=True, check=False)
        if run.returncode:
            raise KernelError((run.stderr + run.stdout).strip() or f"exit code {run.returncode}")
        return run
