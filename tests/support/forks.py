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
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
    with Forked(command, cwd=cwd, env=env, prepare=prepare) as process:
        printed, complained = process.communicate(timeout)
        code = process.returncode
    assert code is not None
    return subprocess.CompletedProcess(list(command), code, printed, complained)


class Forked:
    """As ``subprocess.Popen``: a command that can be watched and sent signals, killed at the end of ``with``.

    Its text is captured, but for what ``out`` and ``err``, open files, take.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        out: int | None = None,
        err: int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe()
        shown, told = write_out if out is None else out, write_err if err is None else err
        self._process = start_forked(command, shown, told, cwd=cwd, env=env, prepare=prepare)
        for end in (write_out, write_err):
            os.close(end)
        self.args = list(command)
        self._readers = ThreadPoolExecutor(2)
        self._texts = [self._readers.submit(_read, end) for end in (read_out, read_err)]

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # what has not ended
        self._process.join()
        self._readers.shutdown()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it, or do nothing if the command has ended, as ``subprocess`` does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed and complained of, once it has ended."""
        self.wait(timeout)
        printed, complained = (text.result() for text in self._texts)
        return printed, complained


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
    try:
        _run(arguments)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)  # as Python ends by it
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # nor does Python, at its end, call the command's own
            signal.signal(number, signal.SIG_DFL)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _read(end: int) -> str:
    with open(end, encoding="utf-8", errors="replace") as stream:
        return stream.read()
