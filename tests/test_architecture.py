"""Who may import whom, and what the lean parts may never import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from measure.structure import Module, floors, read_modules
from support.places import ROOT

LEAVES = {"_extras", "_files", "_json", "_linux", "_numbers", "_signatures", "_signing_keys", "_version"}
"""Modules of the package's own folder, which import nothing of it but each other."""

MAY_IMPORT = {
    "kernels": {"kernels"} | LEAVES,
    "runtime": {"runtime", "kernels"} | LEAVES,
    "export": {"export", "runtime", "kernels"} | LEAVES,
    "tools": {"tools", "export", "runtime", "kernels"} | LEAVES,
}
FLOORS = (
    {"cgroups", "errors", "limits", "memory", "parallel", "remote", "settings", "tiling", "timing", "types"},
    {"store"},
    {"images", "scoring"},
    {"verdict"},
    {"gpu", "results", "vit"},
    {"cluster", "forecast", "scorers", "trial"},
    {"beginning", "planning"},
    {"run"},
    {"tiled"},
    {"pipeline", "reference"},
    {"line"},
)
"""Wings and single files of runtime/: each may import what is on the floors before its own, and itself."""
HEAVY = (
    *("torch", "onnx", "open_clip", "timm", "onnxruntime", "tensorrt", "pycuda"),
    *("tensorrt_rtx", "tensorrt_rtx_bindings"),
    *("cryptography", "imagecodecs", "pillow_heif", "tifffile", "sklearn", "paho"),
    "ray",
    *("fsspec", "s3fs", "botocore", "aiohttp"),
    *("starlette", "uvicorn", "prometheus_client", "python_multipart"),
    *("numba", "llvmlite", "matplotlib", "scipy", "torchvision", "onnx_ir", "onnxscript", "safetensors"),
)

SERVE_NEEDS = ("starlette", "uvicorn", "prometheus_client", "python_multipart")
SERVE = tuple(
    f"serve.{name}" for name in ("app", "bodies", "connections", "forms", "metrics", "server", "service")
)
"""What imports the libraries of the extra [serve]: nothing but itself imports it before it is needed."""


def modules(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


def imported_parts(path: Path) -> set[str]:
    """First component, below musc_edge, of everything a module imports from this package."""
    package = path.relative_to(ROOT).parent.parts
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            full = [*base, *(node.module or "").split(".")]
            names = [alias.name for alias in node.names] if not any(full) else [next(p for p in full if p)]
            parts.update(names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(n.split(".")[0] == "musc_edge" for n in names), (
                f"{path}: imports inside are relative"
            )
    return parts


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_import_direction(part: str) -> None:
    assert modules(part)
    for path in modules(part):
        assert imported_parts(path) <= MAY_IMPORT[part], path


def test_the_leaves_import_each_other_alone() -> None:
    assert {path.stem for path in ROOT.glob("_*.py")} == {*LEAVES, "__init__", "__main__"}
    for leaf in LEAVES:
        assert imported_parts(ROOT / f"{leaf}.py") <= LEAVES


@cache
def package() -> dict[str, Module]:
    """Every module of the package, which takes a second to parse."""
    return read_modules(ROOT)


def wing_of(module: str) -> str:
    """'runtime/store/tables' -> 'store', 'runtime/run' -> 'run'."""
    return module.split("/")[1]


@pytest.mark.slow
def test_the_wings_of_the_runtime_stand_on_each_other() -> None:
    floor = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}
    found = {name: module for name, module in package().items() if name.startswith("runtime/")}
    assert {wing_of(name) for name in found} - {"__init__"} == set(floor)
    for name, module in found.items():
        for imported in (each for each in module.imports if each.startswith("runtime/")):
            mine, other = wing_of(name), wing_of(imported)
            lowest = floor[mine] == floor[other] == 0
            assert mine == other or lowest or floor[other] < floor[mine], f"{name} imports {imported}"


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not floors(package())[1]


def test_the_check_sees_imports() -> None:
    assert imported_parts(ROOT / "export" / "make.py") == {
        *("export", "kernels", "runtime", "_signatures", "_version")
    }


def module_names(part: str, leave_out: tuple[str, ...] = ()) -> list[str]:
    names = [".".join(["musc_edge", *p.relative_to(ROOT).with_suffix("").parts]) for p in modules(part)]
    return [n.removesuffix(".__init__") for n in names if not n.endswith(leave_out)]


def import_with_blocked(names: list[str], blocked: tuple[str, ...]) -> None:
    """Import modules in a process in which the blocked ones cannot be imported."""
    code = (
        "import sys, importlib\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("part", ["kernels", "runtime", "tools"])
@pytest.mark.slow
def test_lean_parts_import_without_heavy_libraries(part: str) -> None:
    import_with_blocked(module_names(part, leave_out=("scoring.gram_numba", *SERVE)), HEAVY)


@pytest.mark.slow
def test_serve_needs_nothing_else() -> None:
    """The extra [serve] is enough for it."""
    others = tuple(name for name in HEAVY if name not in SERVE_NEEDS)
    import_with_blocked(module_names("tools", leave_out=()), others)


@pytest.mark.slow
def test_the_faster_scorer_needs_numba_alone() -> None:
    others = tuple(name for name in HEAVY if name not in ("numba", "llvmlite"))
    import_with_blocked(["musc_edge.runtime.scoring.gram_numba"], others)


@pytest.mark.slow
def test_what_export_does_on_the_device_needs_no_onnx() -> None:
    import_with_blocked(["musc_edge.export.verify", "musc_edge.export.engine"], HEAVY)


@pytest.mark.slow
def test_adopting_an_onnx_file_needs_no_torch() -> None:
    """The extra [onnx] is enough for it."""
    torch = ("torch", "torchvision", "open_clip", "timm", "onnxscript", "safetensors")
    import_with_blocked(
        [f"musc_edge.{name}" for name in ("tools.extras", "export.presets", "export.make")], torch
    )


def test_the_package_itself_imports_nothing() -> None:
    import_with_blocked(["musc_edge", "musc_edge._version"], (*HEAVY, "numpy", "cv2", "PIL", "threadpoolctl"))


def test_command_lines_start_without_numpy() -> None:
    names = ["musc_edge.tools.edge", "musc_edge.tools.export", "musc_edge.tools.bench.cli"]
    import_with_blocked(names, (*HEAVY, "numpy", "cv2", "PIL", "threadpoolctl"))


def test_public_names_resolve_and_unknown_ones_do_not() -> None:
    import musc_edge

    assert all(getattr(musc_edge, name) is not None for name in musc_edge.__all__)
    assert set(musc_edge.__all__) == set(dir(musc_edge))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = musc_edge.no_such_name
