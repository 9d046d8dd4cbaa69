"""Starts Python's commands in processes that have numpy, OpenCV, numba and ONNX Runtime already.

A command spends one to five seconds on importing them, and most tests are not about that.  The fork server of
``multiprocessing`` imports them once for each process of pytest (``support/heavy.py``), and forks for each
command.  So each has a process of its own: arguments, folder, environment, streams, limits, handlers of
signals, exit code, and the package, which it imports anew.

What is about the start or the end of Python itself (what is imported and when, a variable that a library
reads as it is imported, a closed stream, a console script) starts a real one by ``subprocess``.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from unittest import mock

Run = subprocess.CompletedProcess[str]
Prepare = Callable[[], None]


def run_forked(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    prepare: Prepare | None = None,
    timeout: float | None = None,
) -> Run:
    """As ``subprocess.run`` with captured text; ``env`` adds to what is set.

    ``prepare``, which can be pickled, is called in the process before the command.
    """
    (read_out, out), (read_err, err) = os.pipe(), os.pipe()
    process = start_forked(command, out, err, cwd=cwd, env=env, prepare=prepare)
    for end in (out, err):
        os.close(end)
    with ThreadPoolExecutor(2) as pool:
        printed, complained = (pool.submit(_read, end) for end in (read_out, read_err))
        process.join(timeout)
        code = process.exitcode
        process.kill()  # what has not ended in time
        process.join()
        process.close()
    if code is None:
        raise subprocess.TimeoutExpired(list(command), timeout or 0)
    return subprocess.CompletedProcess(list(command), code, printed.result(), complained.result())


def start_forked(
    command: Sequence[str],
    out: int,
    err: int,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    prepare: Prepare | None = None,
) -> ForkServerProcess:
    """Start ``command``, a console script or Python with a file or ``-c``, which prints to open files."""
    arguments = command[1:] if command[0] == sys.executable else command
    streams = [Connection(os.dup(end), readable=False) for end in (out, err)]
    where, variables = str(cwd or Path.cwd()), {**os.environ, **(env or {})}
    process = _server().Process(
        target=_become, args=(list(arguments), streams, where, variables, prepare), daemon=True
    )
    process.start()
    for stream in streams:
        stream.close()
    return process


@cache
def _server() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(["support.heavy"])
    tests = str(Path(__file__).parents[1])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])):
        forkserver.ensure_running()
    return context


def _become(
    arguments: list[str],
    streams: list[Connection],
    cwd: str,
    env: dict[str, str],
    prepare: Prepare | None,
) -> None:
    """Run the command in this process; multiprocessing makes an exit code of what it raises."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    if prepare:
        prepare()
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _read(end: int) -> str:
    with open(end, encoding="utf-8", errors="replace") as stream:
        return stream.read()
