"""Find the files that an ONNX graph names, without onnx and without reading the weights.

A tensor may state, by an entry ``location``, that its values are in another file.  What ``../x`` or
``/etc/x`` means there depends on the library that loads the graph and on its version, and no hash covers a
file that the manifest does not list.  So the graph is searched before any library sees it.

An ONNX file is a protobuf message: fields, each a number, a wire type and a value, which may be a message
again.  This walks through the fields that can lead to a tensor and steps over everything else.  It accepts
all that a parser of protobuf accepts: fields in any order, repeated or unknown, groups, and numbers that are
longer than necessary.  A location counts whether or not its tensor says that its data is external.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..._files import open_regular

FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
"""For each message, the fields that can lead to an external location: their numbers and message types."""

_ENTRY = "StringStringEntryProto"
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)
_DEEPEST = 200
"""Limit of nested messages; protobuf's own parsers stop at 100."""
_LARGEST_ENTRY = 1 << 16
"""Bytes: limit of a key with its value; a path has at most 1 << 12."""
_MOST_FIELDS = 20_000_000
"""Limit of fields in a file; a graph of 1,000 nodes has about 20,000."""


def external_files(model: Path) -> Iterator[str]:
    """Yield every location of external data that an ONNX file names, as it is written; some come repeatedly.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a protobuf message; the error names the byte where that shows.
    """
    with open_regular(model) as file:
        yield from _walk(_Reader(file, os.fstat(file.fileno()).st_size))


class _Reader:
    """Reads the parts of protobuf from a file of ``size`` bytes, never beyond ``end``."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._fields = 0
        self.position, self.end = 0, size

    def varint(self, longest: int) -> int:
        """Read a number in groups of seven bits, of at most ``longest`` bytes."""
        value = 0
        for k in range(min(longest, self.end - self.position)):
            byte = self._file.read(1)
            if not byte:
                break
            self.position += 1
            value |= (byte[0] & 0x7F) << (7 * k)
            if byte[0] < 0x80:
                return value
        raise ValueError(f"no number at byte {self.position}")

    def tag(self) -> tuple[int, int]:
        """Read the number and wire type of the next field."""
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise ValueError(f"more than {_MOST_FIELDS:,} fields")
        # Parsers keep 32 bits of a tag and drop the rest; reading more of it would let a location hide.
        number, wire = divmod(self.varint(5) & 0xFFFFFFFF, 8)
        if number == 0 or wire > _FIXED32:
            raise ValueError(f"no field at byte {self.position}")
        return number, wire

    def length(self) -> int:
        """Read the length of a message, text or bytes; ValueError if they exceed the enclosing message."""
        length = self.varint(10)
        if length > self.end - self.position:
            raise ValueError(
                f"{length} bytes at byte {self.position}, where {self.end - self.position} are left"
            )
        return length

    def skip(self, count: int) -> None:
        """Step over ``count`` bytes."""
        if count > self.end - self.position:
            raise ValueError(f"a field is cut off at byte {self.position}")
        self._file.seek(count, os.SEEK_CUR)
        self.position += count

    def skip_value(self, wire: int) -> None:
        """Step over the value of a field that is not a group."""
        if wire == _VARINT:
            self.varint(10)
        else:
            self.skip(self.length() if wire == _LENGTH else 8 if wire == _FIXED64 else 4)

    def text(self) -> bytes:
        """Read a text, bytes or a small message."""
        length = self.length()
        if length > _LARGEST_ENTRY:
            raise ValueError(f"{length} bytes at byte {self.position}, expected at most {_LARGEST_ENTRY}")
        self.position += length
        return self._file.read(length)


def _walk(reader: _Reader) -> Iterator[str]:
    """Yield the locations in a ModelProto."""
    # A list of the messages around the current position, not recursion: no file can exhaust the stack.
    open_messages = [("ModelProto", reader.end)]
    while True:
        while reader.position == reader.end:
            open_messages.pop()
            if not open_messages:
                return
            reader.end = open_messages[-1][1]
        number, wire = reader.tag()
        kind = FIELDS[open_messages[-1][0]].get(number)
        if wire in (_GROUP, _GROUP_END):
            _skip_group(reader, number, wire)
        elif kind is None or wire != _LENGTH:
            reader.skip_value(wire)
        elif kind == _ENTRY:
            yield from _locations(reader)
        else:
            length = reader.length()
            reader.end = reader.position + length
            open_messages.append((kind, reader.end))
            if len(open_messages) > _DEEPEST:
                raise ValueError(f"messages within {_DEEPEST} others at byte {reader.position}")


def _locations(reader: _Reader) -> list[str]:
    """Return the values of an entry if any of its keys is "location"."""
    # Keys and values may be repeated.  Parsers take the last of each; all of them are returned, so that it
    # does not matter which one a library takes.
    content = reader.text()
    entry = _Reader(io.BytesIO(content), len(content))
    found: dict[int, list[bytes]] = {_KEY: [], _VALUE: []}
    while entry.position < entry.end:
        number, wire = entry.tag()
        if wire in (_GROUP, _GROUP_END):
            _skip_group(entry, number, wire)
        elif wire == _LENGTH and number in found:
            found[number].append(entry.text())
        else:
            entry.skip_value(wire)
    values = found[_VALUE] or [b""]
    return [value.decode("utf-8", "surrogateescape") for value in values if b"location" in found[_KEY]]


def _skip_group(reader: _Reader, number: int, wire: int) -> None:
    """Step over a group of fields and the groups in it; a group ends with a tag of its own."""
    groups: list[int] = []
    while True:
        if wire == _GROUP:
            groups.append(number)
            if len(groups) > _DEEPEST:
                raise ValueError(f"groups within {_DEEPEST} others at byte {reader.position}")
        elif wire != _GROUP_END:
            reader.skip_value(wire)
        elif not groups or groups.pop() != number:
            raise ValueError(f"the end of a group that did not begin at byte {reader.position}")
        if not groups:
            return
        number, wire = reader.tag()
