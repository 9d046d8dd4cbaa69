"""The one file of a form (multipart/form-data, RFC 7578), as it comes."""

from __future__ import annotations

from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .refused import RefusedError

_MOST_HEADER = 8192


class FormImage:
    """Passes the content of a form's file on to ``write``.

    Parameters
    ----------
    content_type : str
        The request's Content-Type, which has the boundary.
    write : callable
        Gets the content, piece by piece.

    Raises
    ------
    RefusedError
        Here if there is no boundary; from ``feed`` and ``end`` if the form is malformed or has not one file.
    """

    def __init__(self, content_type: str, write: Callable[[bytes], None]) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        self._write, self._name, self._files = write, "", 0
        self._inside = False
        self._header, self._value = b"", b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._add("_header", data[start:end]),
                    "on_header_value": lambda data, start, end: self._add("_value", data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except (FormParserError, ValueError) as error:
            raise _malformed(error) from error
        if not boundary:
            raise _malformed("it has no boundary")

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _malformed(error) from error

    def end(self) -> str:
        """Return the file's name at the end of the body."""
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if self._files != 1:
            raise RefusedError(400, f"the form has {self._files} files: expected one.")
        return self._name

    def _begin(self) -> None:
        self._inside = False

    def _add(self, part: str, piece: bytes) -> None:
        whole = getattr(self, part) + piece
        if len(whole) > _MOST_HEADER:
            raise RefusedError(400, "the form has a header that is too long.")
        setattr(self, part, whole)

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            if b"filename" in options:
                self._inside, self._files = True, self._files + 1
                self._name = options[b"filename"].decode("utf-8", "replace")
                if self._files > 1:
                    raise RefusedError(400, "the form has more than one file: expected one.")
        self._header, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._write(data[start:end])

    def _end(self) -> None:
        self._ended = True


def _malformed(reason: object) -> RefusedError:
    return RefusedError(400, f"a malformed form: {reason}.")
