"""What to install is said in one place, and as pyproject.toml has it."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from musc_edge import _extras
from musc_edge.runtime.errors import DeviceError
from musc_edge.tools.extras import need
from support.command_line import run_here
from support.places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BROUGHT: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"demo", "test"}
PACKAGE_OF = {
    "onnx_ir": "onnx-ir",
    "sklearn": "scikit-learn",
    "open_clip": "open_clip_torch",
    "python_multipart": "python-multipart",
}
SOURCES = [path for part in ("export", "kernels", "runtime", "tools") for path in (ROOT / part).rglob("*.py")]


def packages(extra: str) -> set[str]:
    """The packages that an extra brings, by itself or by others."""
    found = set()
    for requirement in BROUGHT[extra]:
        name, others = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()  # type: ignore[union-attr]
        if name == "musc-edge":
            found |= {package for other in others.split(",") for package in packages(other)}
        else:
            found.add(name)
    return found


def test_every_extra_is_described() -> None:
    assert set(_extras.EXTRAS) == set(BROUGHT) - FOR_DEVELOPERS


@pytest.mark.parametrize("command", _extras.NEEDS)
def test_the_extra_that_is_named_brings_the_module(command: str) -> None:
    for module, extra in _extras.NEEDS[command].items():
        assert PACKAGE_OF.get(module, module) in packages(extra)


def test_nothing_else_says_what_to_install() -> None:
    assert SOURCES
    hints = [str(path) for path in SOURCES if re.search(r"musc-edge\[\w", path.read_text(encoding="utf-8"))]
    assert hints == []


def test_every_hint_names_one_extra_that_there_is() -> None:
    given = [
        name
        for path in SOURCES
        for name in re.findall(
            r"\binstall\(\"(.*?)\"\)|\binstall\('(.*?)'\)", path.read_text(encoding="utf-8")
        )
    ]
    assert len(given) >= 9
    assert {name for pair in given for name in pair if name} <= set(_extras.EXTRAS)


def test_readme_says_who_needs_which_extra() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [
        name for name in _extras.EXTRAS if not re.search(rf"`\[?{name}\]?`|\[[\w,]*\b{name}\b", text)
    ] == []


# ---- a machine that lacks some ---------------------------------------------------------------


def lacking(*modules: str) -> Any:
    """A machine without these modules."""
    return mock.patch.object(_extras, "find_spec", lambda name: None if name in modules else find_spec(name))


@pytest.mark.parametrize(
    ("command", "modules", "says"),
    [
        ("musc-export timm", ["timm"], "timm. Install what is missing with: pip install 'musc-edge[export]'"),
        ("musc-export timm", ["onnx_ir"], "pip install 'musc-edge[onnx]'"),
        ("musc-export timm", ["onnx", "torch"], "pip install 'musc-edge[export]'"),
        ("musc-export clip", ["open_clip"], "open_clip. Install what"),
        ("musc-export onnx", ["onnx"], "pip install 'musc-edge[onnx]'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_the_smallest_extra(
    command: str, modules: list[str], says: str
) -> None:
    with lacking(*modules), pytest.raises(DeviceError) as raised:
        need(command)
    assert says in str(raised.value)
    assert command in str(raised.value)


@pytest.mark.parametrize(("command", "module"), [("timm", "open_clip"), ("clip", "timm"), ("onnx", "torch")])
def test_no_command_asks_for_what_it_does_not_import(command: str, module: str) -> None:
    with lacking(module):
        need(f"musc-export {command}")


@pytest.mark.parametrize(
    "command", ["onnx M.onnx --layers 1", "clip --model M", "timm --model M", "dinov2-small"]
)
def test_a_missing_extra_is_5_in_every_command(command: str, tmp_path: Path) -> None:
    with lacking("onnx", "torch"):
        run = run_here(["musc-export", *command.split(), "-o", str(tmp_path / "out")])
    assert (run.returncode, "musc-edge[" in run.stderr) == (5, True), run.stderr


def test_a_missing_extra_is_5_in_the_benchmark(tmp_path: Path) -> None:
    with mock.patch.dict(sys.modules, {"matplotlib": None, "matplotlib.figure": None}):
        options = ["--images", "6", "--grid", "2", "--width", "8", "--rounds", "1", "--scorers", "numpy"]
        run = run_here(["musc-bench", "scorer", *options, "-o", str(tmp_path / "out")])
    assert (run.returncode, "pip install 'musc-edge[bench]'" in run.stderr) == (5, True), run.stderr
