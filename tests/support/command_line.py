"""Runs the command line in this process, in place of ``subprocess.run``.

A new Python, OpenCV and ONNX Runtime take two seconds, and most tests are not about them.

What is about the process (signals, limits, the environment, the console script itself) starts one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from unittest import mock

Run = subprocess.CompletedProcess[str]
Main = Callable[[Sequence[str]], int]


def run_here(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """What ``command``, the path of a console script with its arguments, does; ``env`` adds to what is set.

    An exception that a process would print and end by comes out, and so does each warning.
    """
    main = _main(Path(command[0]).name)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with ExitStack() as undone:
            undone.enter_context(mock.patch.dict(os.environ, env or {}))
            undone.enter_context(_folder(cwd or Path.cwd()))
            undone.enter_context(_handlers())
            undone.enter_context(_stream("stdout", out))
            undone.enter_context(_stream("stderr", err))
            code = _exit_code(main, command[1:])
        return subprocess.CompletedProcess(list(command), code, _text(out), _text(err))


def _main(script: str) -> Main:
    if script == "musc-edge":
        from musc_edge.tools.edge import main
    elif script == "musc-export":
        from musc_edge.tools.export import main
    else:
        assert script == "musc-bench"
        from musc_edge.tools.bench.cli import main
    return main


def _exit_code(main: Main, arguments: Sequence[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as leaving:  # as argparse does
        return leaving.code if isinstance(leaving.code, int) else 1


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _handlers() -> Iterator[None]:
    """Put back the handlers of signals, one of which the command line sets for good."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def _stream(name: str, file: IO[bytes]) -> Iterator[None]:
    """Let ``file`` take what is printed, by Python or by a library in another language."""
    number = {"stdout": 1, "stderr": 2}[name]
    getattr(sys, name).flush()
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        with (
            os.fdopen(os.dup(number), "w", encoding="utf-8", errors="backslashreplace") as stream,
            mock.patch.object(sys, name, stream),
        ):
            yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def _text(file: IO[Any]) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8", errors="replace"))
