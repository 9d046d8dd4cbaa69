"""A small lot, a bundle for it, and the bytes of results: what the scripts about faults begin with."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from support.forks import Run, run_forked
from support.places import DATA
from support.random_vit import Shape, random_vit
from support.references import write_lot

EDGE, EXPORT = "musc_edge.tools.edge", "musc_edge.tools.export"
BUNDLE = DATA / "schema1" / "bundle"
_START = "import sys, importlib; sys.exit(importlib.import_module({!r}).main(sys.argv[1:]))"
TIMED = ("lot.json", "report.html")
"""Files of results that hold times."""


def small_lot(folder: Path, images: int = 24) -> Path:
    """A lot of 24 parts of 40 x 40 pixels in two subfolders, the last one with a spot."""
    write_lot(folder / "a", images // 2)
    write_lot(folder / "b", images // 2, first=images // 2)
    return folder


def tool(module: str, *arguments: object) -> list[str]:
    """The command that calls the ``main`` of a module of tools."""
    return [sys.executable, "-c", _START.format(module), *map(str, arguments)]


def run_tool(module: str, *arguments: object, env: dict[str, str] | None = None) -> Run:
    """Run it in a process of its own."""
    return run_forked(tool(module, *arguments), env=env)


def digests(folder: Path, left_out: Sequence[str] = TIMED) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path, but for those that hold times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in left_out)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def onnx_source(folder: Path) -> list[str]:
    """A random ViT as an ONNX file, and the arguments of ``musc-export`` that make a bundle of it."""
    import onnx

    onnx.save(random_vit(Shape(64, 2, 2, 14, 56)), folder / "vit.onnx")
    options = ["--layers", "0,1", "--taps", "block_{layer}", "--cls", "cls", "--image-size", "56"]
    return ["onnx", str(folder / "vit.onnx"), *options]


def fresh(folder: Path) -> Path:
    """An empty folder in place of whatever is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
