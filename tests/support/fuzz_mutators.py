"""Changes of an input that keep what a parser checks first: JSON stays JSON, and a zip file whole."""

from __future__ import annotations

import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutate = Callable[[bytes, random.Random], bytes]

DEEP = json.loads("[" * 60 + "]" * 60)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e-320, 3e38, 1e308, float("nan"), float("inf"), 255, 256,
    65536, 1 << 31, 1 << 40, 1 << 62, 1 << 63, 1 << 64, -(1 << 63), 10**400, "", "a", "0", "../x",
    "/etc/passwd", "\0", "\ud800", "a" * 5000, "float32", "float16", [], {}, [0], [[]], {"": 0}, DEEP,
)  # fmt: skip
"""What a value is replaced by."""


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change a few places: bytes, numbers of 2 to 8 bytes, parts cut out, doubled or moved."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        at, size = chance.randrange(len(out) + 1), chance.choice((1, 2, 4, 8))
        kind = chance.randrange(6)
        if kind == 0:
            out[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            number = chance.choice((0, 1, 255, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 63))
            order = chance.choice(("little", "big"))
            out[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == 2:
            del out[at : at + size * chance.choice((1, 8))]
        elif kind == 3:
            out[at:at] = out[at : at + size * chance.choice((1, 8))]
        elif kind == 4 and out:
            out[at % len(out)] ^= 1 << chance.randrange(8)
        else:
            start = chance.randrange(len(out) + 1)
            out[at : at + size] = out[start : start + size]
    return bytes(out)


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    """Replace, remove, double or add values in JSON; what is none is changed byte by byte."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        value = _changed(value, chance)
    return json.dumps(value).encode()


def mutate_lines(data: bytes, chance: random.Random) -> bytes:
    """Change, remove, double or swap lines, each of which is JSON."""
    lines = data.split(b"\n")
    at, kind = chance.randrange(len(lines)), chance.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, chance.choice(lines))
    else:
        lines[at] = mutate_json(lines[at], chance)
    return b"\n".join(lines)


def mutate_zip(data: bytes, chance: random.Random) -> bytes:
    """Change what is in a zip file and write it anew, or change the file itself."""
    try:
        if chance.random() < 0.3:
            return mutate_bytes(data, chance)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()[:20]}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return mutate_bytes(data, chance)
    name = chance.choice(sorted(members) or ["x"])
    kind = chance.randrange(8)
    if kind == 0:
        members.pop(name, None)
    elif kind == 1:
        members[chance.choice(("../x", "y.npy", "tokens.npy", ""))] = members.get(name, b"")
    else:
        members[name] = _changed_start(members.get(name, b""), chance)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in members.items():
            archive.writestr(each or "empty", content)
    return out.getvalue()


def _changed_start(content: bytes, chance: random.Random) -> bytes:
    """Change the header of an array more often than its data."""
    head = 128 if chance.random() < 0.7 else len(content)
    return mutate_bytes(content[:head], chance) + content[head:]


def _changed(value: Any, chance: random.Random) -> Any:
    """Change one value somewhere within ``value``."""
    if isinstance(value, dict | list) and value and chance.random() < 0.9:
        keys = sorted(value, key=str) if isinstance(value, dict) else range(len(value))
        key: Any = chance.choice(keys)
        kind = chance.randrange(10)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, list):
            value.insert(key, value[key])
        elif kind == 1 and isinstance(value, dict):
            value[str(chance.choice(VALUES))[:40]] = value[key]
        else:
            value[key] = _changed(value[key], chance)
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice((-1, 1)) if abs(value) < 1e300 else 0
    if isinstance(value, str) and chance.random() < 0.3:
        return mutate_bytes(value.encode(errors="replace"), chance).decode(errors="surrogateescape")
    return json.loads(json.dumps(chance.choice(VALUES)))
