"""A parser whose errors are two lines: what was given and expected with the nearest name, and where to look.

argparse prints the whole usage before its error, which for ``musc-edge infer`` is 15 lines.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..runtime.errors import MuscEdgeError

USAGE = 2


class UsageError(MuscEdgeError):
    """What the command line gives is not what the command takes."""

    exit_code = USAGE


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with short errors; so are those of its commands."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_defaults(parser=self)  # that of the command that was given, which may be a command's

    def error(self, message: str) -> NoReturn:
        """Print the message with a line of usage, and exit with code 2."""
        self.exit(USAGE, f"{self.prog}: {message}\n{self._how()}\n")

    def check_order(self, given: Sequence[str]) -> None:
        """Exit with an error if an option of a command stands before it, where it would hide its name."""
        first = given[0].partition("=")[0] if given else ""
        if first.startswith("-") and not any(name.startswith(first) for name in self._option_strings()):
            self.error(f"{first} stands before the command: put options behind its name")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with an error on the first of the arguments that nobody knows."""
        first, known = unknown[0].partition("=")[0], self._option_strings()
        if not first.startswith("-"):
            self.error(f"unexpected argument {first!r}: put a name that has spaces into quotation marks")
        self.error(f"there is no option {first}{did_you_mean(first, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        message = f"{value!r}: expected {listed(names)}{did_you_mean(str(value), names)}"
        if not isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(action, message)
        if Path(str(value)).is_dir() and "infer" in names:
            message += f"; to score a folder: {self.prog} infer {value}"
        raise argparse.ArgumentError(None, f"there is no command {message}")

    def _how(self) -> str:
        """The arguments that must be given, on one line."""
        parts = [self.prog]
        for action in self._actions:
            name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            if isinstance(action, argparse._SubParsersAction):
                name = f"{{{','.join(action.choices)}}}"
            if not action.option_strings:
                parts.append(f"[{name}]" if action.nargs == "?" else name)
            elif action.required:
                parts.append(f"{action.option_strings[0]} {name}")
        return f"usage: {' '.join(parts)} [options]; more: {self.prog} --help"

    def _option_strings(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]


def listed(names: Sequence[str]) -> str:
    """Names as a phrase: 'npy, tiff, png8 or png16'."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """A question after the names that are most like what was given; empty if none is."""
    plain = {_plain(name): name for name in names}
    found = difflib.get_close_matches(_plain(given), plain, n=2)
    return f"; did you mean {listed([plain[name] for name in found])}?" if found else ""


def _plain(name: str) -> str:
    """A name without what makes all names alike, or equal ones differ."""
    return name.lower().lstrip("-")
