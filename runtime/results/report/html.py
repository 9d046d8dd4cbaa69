"""Put the page together: its parts are files of the folder ``page``, its data one block of JSON.

The page loads nothing and runs nothing but these scripts: a content security policy names them by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LotData = tuple[dict[str, Any], Iterable[dict[str, Any]]]
"""What the page is told of a lot, and of each of its images."""

PARTS = Path(__file__).parent / "page"
SCRIPTS = (
    "text",
    "colour",
    "data",
    "judge",
    "select",
    "contours",
    "marks",
    "dom",
    "files",
    "histogram",
    "grid",
    "zoom",
    "view",
    "facts",
    "paper",
    "main",
)
"""The scripts, each after those that it imports."""
_IMPORT = re.compile(r"^import (\{[^}]*\}) from \"\./(\w+)\.js\";", re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|class|const) (\w+)", re.MULTILINE)


def page(head: dict[str, Any], lots: Iterable[LotData]) -> Iterator[bytes]:
    """Yield the page that shows ``lots``, a piece for each image: all of it may not fit into memory."""
    style, script = (PARTS / "page.css").read_text(encoding="utf-8"), joined(SCRIPTS)
    pieces = {"@POLICY@": policy(style, script), "@STYLE@": style, "@SCRIPT@": script}
    for text in re.split("(@[A-Z]+@)", (PARTS / "page.html").read_text(encoding="utf-8")):
        if text == "@DATA@":
            yield from (json_text.encode("ascii") for json_text in data(head, lots))
        else:
            yield pieces.get(text, text).encode("utf-8")


def data(head: dict[str, Any], lots: Iterable[LotData]) -> Iterator[str]:
    """Yield the data of the page as one JSON object: ``head``, and ``lots`` with their ``images``."""
    yield f'{block(head)[:-1]},"lots":['
    for i, (facts, images) in enumerate(lots):
        yield f'{"," * (i > 0)}{block(facts)[:-1]},"images":['
        for k, image in enumerate(images):
            yield "," * (k > 0) + block(image)
        yield "]}"
    yield "]}"


def joined(names: tuple[str, ...]) -> str:
    """Return modules as one script: each becomes a function that returns what it exports."""
    return "const modules = {};\n" + "\n".join(map(_wrapped, names))


def _wrapped(name: str) -> str:
    text = (PARTS / f"{name}.js").read_text(encoding="utf-8")
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r"const \1 = modules.\2;", text))
    exported = ", ".join(found[2] for found in _EXPORT.finditer(text))
    return f"modules.{name} = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


def policy(style: str, script: str) -> str:
    """Return the content security policy: these two, and pictures from the page and from files."""
    return (
        "default-src 'none'; img-src 'self' data: file:; "
        f"script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )


def block(content: dict[str, Any]) -> str:
    """Return JSON in ASCII that no HTML parser takes for markup, whatever a file is called."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
