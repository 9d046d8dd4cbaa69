"""What a drift monitor keeps beside the log, so that a restart need not take up all results anew.

It is a copy of what follows from the log alone: where it is missing, damaged, of another log or of other
settings, the charts begin with the first result, and come out the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..._files import write_whole
from ..._json import read_json
from ..errors import OutputError
from ..types import Array
from .charts import State


@dataclass(frozen=True)
class Line:
    """A line after some images: its charts, and the signals of the last few images."""

    state: State
    recent: tuple[Array, ...] = ()


@dataclass(frozen=True)
class Memory:
    """The file ``path``; ``settings`` are what the charts depend on beside the log."""

    path: Path
    settings: dict[str, Any]

    def write(self, event: str, number: int, line: Line) -> None:
        """Keep the line after the result ``number`` with its ``event``.

        Raises
        ------
        OutputError
            If the disk is full or fails.
        """
        state = {name: values.tolist() for name, values in asdict(line.state).items()}
        recent = [values.tolist() for values in line.recent]
        content = {"settings": self.settings, "event": event, "id": number, "state": state, "recent": recent}
        try:
            write_whole(self.path, json.dumps(content).encode())
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}. Make room there.") from error

    def read(self, start: State) -> tuple[str, int, Line] | None:
        """Return what was kept, if it is whole, of these settings, and of the shape of ``start``."""
        try:
            content = read_json(self.path)
            if content["settings"] != self.settings:
                return None
            state = State(*(_array(content["state"], start, field.name) for field in fields(State)))
            width = start.since.shape[-1] // 2
            recent = tuple(np.array(values, np.float64).reshape(width) for values in content["recent"])
            return str(content["event"]), int(content["id"]), Line(state, recent)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _array(content: Any, start: State, name: str) -> Array:
    """An array of a state, of the type and shape that it has in ``start``."""
    like: Array = getattr(start, name)
    return np.array(content[name], like.dtype).reshape(like.shape)
