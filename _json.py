"""Read JSON that somebody else may have written strictly: into a dataclass, or refused with a reason.

Imports nothing of the package but ``_files``; the formats of bundles, kernels and engines build on it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from ._files import FEW_MB, read_regular

DEEPEST = 32
"""Limit of nested lists and objects: code that walks through a value recurses for each level."""

_type_hints = functools.cache(typing.get_type_hints)  # a journal has thousands of entries of one kind


def read_json(path: Path, limit: int = FEW_MB) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises
    ------
    OSError
        If it cannot be read, is no regular file, or is larger.
    ValueError
        If it is not JSON, or is nested deeper than ``DEEPEST``.
    """
    return parse_json(read_regular(path, limit))


def parse_json(text: bytes) -> Any:
    """Parse JSON; ValueError if it is none, or is nested deeper than ``DEEPEST``."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from error
    # Level by level instead of by recursion, which a hostile value could exhaust here already.
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _within(outer)]
    if level:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return value


def _within(value: Any) -> typing.Iterable[Any]:
    """Return the values directly in a list or an object."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def from_json(kind: Any, value: Any, where: str) -> Any:
    """Turn JSON ``value`` into ``kind`` (a dataclass, tuple, dict or plain type), or raise ValueError.

    ``where`` names the value in the error.  Numbers must be finite, wherever they are.
    """
    if typing.get_origin(kind) is types.UnionType and value is not None:  # a kind, or None
        kind = typing.get_args(kind)[0]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _build_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {shortly(value)}, expected an object")
        return {k: from_json(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is Any:
        return _require_finite(value, where)
    if value is None and type(None) in args:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value)
    # To Python true is the number 1; in a file of ours it is a mistake.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {shortly(value)}, expected {kind.__name__}")
    return _require_finite(value, where)


def shortly(value: object, most: int = 60) -> str:
    """Format a value in at most ``most`` characters."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _build_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shortly(value)}, expected an object")
    hints = _type_hints(kind)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise ValueError(
            f"{where} lacks {', '.join(missing) or 'nothing'} and has unknown "
            f"{shortly(unknown) if unknown else 'nothing'}"
        )
    return kind(**{name: from_json(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    fixed = kinds[-1] is not Ellipsis
    if not isinstance(value, list) or (fixed and len(value) != len(kinds)):
        raise ValueError(
            f"{where} is {shortly(value)}, expected a list" + (f" of {len(kinds)}" if fixed else "")
        )
    each = kinds if fixed else [kinds[0]] * len(value)
    return tuple(from_json(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(each, value, strict=True)))


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _require_finite(value: Any, where: str) -> Any:
    """Return ``value``; ValueError if it is or holds NaN or an infinite number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, expected a finite number")
    for inner in _within(value):
        _require_finite(inner, where)
    return value
