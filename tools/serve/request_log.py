"""A line on standard error for each request."""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TextIO


class RequestLog:
    """Writes a line for each request: as text, or as JSON.

    A line has the path but neither query nor headers, so no token; the path as it was sent, so that it cannot
    break the line.
    """

    def __init__(self, as_json: bool = False, file: TextIO | None = None) -> None:
        self._as_json, self._file = as_json, file or sys.stderr

    def answered(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Write a line."""
        facts = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ("-",))[0],
            "method": scope["method"],
            "path": ascii(scope["raw_path"].decode("ascii", "replace"))[1:-1],
            "status": status,
            "seconds": round(seconds, 4),
            **scope.get("state", {}).get("told", {}),
        }
        if self._as_json:
            line = json.dumps(facts)
        else:
            named = list(facts.items())
            line = " ".join([str(value) for _, value in named[:6]])
            line += "".join(f" {name}={json.dumps(value)}" for name, value in named[6:])
        with suppress(OSError, ValueError):  # the reader of the log is gone; images are not for that
            print(line, file=self._file, flush=True)
