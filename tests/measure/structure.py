"""How the package is built: rooms, imports between them, floors, long functions, wide signatures, comments.

    python tests/measure/structure.py [CHECKOUT]

A room is a folder, and an arrow an import of one module by another, wherever in the file it stands.  A module
is one floor above the highest that it imports; modules that import each other are a circle.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PARTS = ("kernels", "runtime", "export", "tools")
SHOWN = 8


@dataclass(frozen=True)
class Module:
    """A file of the package; ``imports`` are the modules of the package that it imports."""

    name: str
    tree: ast.Module
    source: str
    imports: frozenset[str]

    @property
    def room(self) -> str:
        """The folder it lies in, with slashes."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class Function:
    """A function's place, lines and parameters (self and cls left out)."""

    place: str
    lines: int
    parameters: int


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of the package below ``root``, by its path without suffix."""
    paths = [*root.glob("_*.py"), *(path for part in PARTS for path in (root / part).rglob("*.py"))]
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(paths)}
    modules = {}
    for name, path in names.items():
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        modules[name] = Module(name, tree, source, frozenset(_imports(name, tree, set(names)) - {name}))
    return modules


def _imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = name.split("/")[: -node.level]
            module = "/".join([*base, *(node.module or "").split(".")]).strip("/")
            inner = {"/".join(filter(None, (module, alias.name))) for alias in node.names}
            found |= (inner & known) or ({module} & known)
    return found


def floors(modules: dict[str, Module]) -> tuple[dict[str, int], set[str]]:
    """Floor of every module, the lowest being 1, and the modules that are part of a circle."""
    floor: dict[str, int] = {}
    circle: set[str] = set()

    def climb(name: str, below: tuple[str, ...]) -> int:
        if name in below:
            circle.update(below[below.index(name) :])
            return 0
        if name not in floor:
            imports = modules[name].imports & modules.keys()
            floor[name] = 1 + max((climb(each, (*below, name)) for each in imports), default=0)
        return floor[name]

    for name in modules:
        climb(name, ())
    return floor, circle


def functions(modules: dict[str, Module]) -> Iterator[Function]:
    """Every function and method of the package."""
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args
                names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield Function(f"{module.name}.py:{node.lineno} {node.name}", lines, count)


def comment_share(modules: dict[str, Module]) -> float:
    """Lines with a comment to lines with code; blank lines and docstrings are neither."""
    comments, code = 0, 0
    for module in modules.values():
        docstrings = _docstring_lines(module.tree)
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
            if token.type == tokenize.COMMENT:
                comments += 1
            elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                lines.update(range(token.start[0], token.end[0] + 1))
        code += len(lines - docstrings)
    return comments / code


def _docstring_lines(tree: ast.Module) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def rooms_table(modules: dict[str, Module]) -> list[str]:
    """A line for each room: its files, lines and floors, and where its imports go."""
    out = [f"{'room':<18} files  lines  floors  arrows inside  to rooms"]
    for room in sorted({module.room for module in modules.values()}):
        own = {name: module for name, module in modules.items() if module.room == room}
        inside = sum(len(module.imports & own.keys()) for module in own.values())
        others = Counter(modules[each].room for m in own.values() for each in m.imports - own.keys())
        to = ", ".join(f"{name or 'root'} {count}" for name, count in sorted(others.items()))
        lines, top = _lines(own), max(floors(own)[0].values())
        out.append(f"{room or 'root':<18} {len(own):>5} {sum(lines):>6} {top:>7} {inside:>14}  {to}")
    return out


def summary(modules: dict[str, Module]) -> list[str]:
    """Files, floors and arrows of runtime/ and of the whole."""
    runtime = {name: module for name, module in modules.items() if name.startswith("runtime/")}
    arrows = [(m.room, modules[each].room) for m in runtime.values() for each in m.imports & runtime.keys()]
    between = {(a, b) for a, b in arrows if a != b}
    floor, circle = floors(modules)
    sizes = [function.lines for function in functions(modules)]
    return [
        f"runtime: {len(runtime)} files on {max(floors(runtime)[0].values())} floors, {len(arrows)} arrows, "
        f"{len(between)} kinds of them between its rooms",
        f"whole package: {max(floor.values())} floors; circles: {', '.join(sorted(circle)) or 'none'}",
        f"files: median {median(_lines(modules)):.0f} lines, largest {max(_lines(modules))}; functions: "
        f"{len(sizes)}, median {median(sizes):.0f} lines; comments to code: {comment_share(modules):.1%}",
    ]


def _lines(modules: dict[str, Module]) -> list[int]:
    return [module.source.count("\n") for module in modules.values()]


def report(root: Path) -> str:
    """All of it, for people."""
    modules = read_modules(root)
    named = {name: module for name, module in modules.items() if not name.endswith("__init__")}
    every = list(functions(named))
    long, wide = (sorted(every, key=key, reverse=True)[:SHOWN] for key in (_length, _width))
    out = [*rooms_table(named), "", *summary(named)]
    out += ["", f"{'longest functions':<60} lines", *(f"{f.place:<60} {f.lines:>5}" for f in long)]
    out += ["", f"{'widest signatures':<55} parameters", *(f"{f.place:<60} {f.parameters:>5}" for f in wide)]
    return "\n".join(out)


def _length(function: Function) -> int:
    return function.lines


def _width(function: Function) -> int:
    return function.parameters


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]))
