"""Runs of a module's tests against its mutants, for mutants.py.

pytest collects the tests once.  For each mutant the process is forked, the functions of the module get the
mutant's code, and the tests run until one fails: a mutant costs what its tests do, and no file is changed.
"""

from __future__ import annotations

import ast
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from support.mutants import compile_quietly

SECONDS = 60
"""Limit of a trial's work, by the processor's clock, so that a busy machine catches nothing."""
PATIENCE = 1800
"""Seconds after which a trial waits for what never comes."""
MEMORY = 16 << 30
"""Bytes of addresses that a trial may have."""


class Trials:
    """A plugin of pytest that runs the tests for each of ``sources``, by number, and tells who caught it."""

    def __init__(self, file: Path, sources: dict[int, str], results: Connection) -> None:
        self._file, self._sources, self._results = file, sources, results
        self._told: int | None = None  # where a trial tells which test failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        catchers = set()
        for number, source in self._sources.items():
            if (caught := self._fork(source)) is None:
                return None  # in a trial pytest goes on as ever
            catchers.add(caught)
            self._results.send((number, caught))
        session.items = [item for item in session.items if item.nodeid in catchers]
        if (wrong := self._fork(self._file.read_text(encoding="utf-8"))) is None:
            return None
        self._results.send((-1, wrong))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self._told is not None:
            with suppress(OSError):
                os.write(self._told, report.nodeid.encode())
                os.close(self._told)
            self._told = None

    def _fork(self, source: str) -> str | None:
        """Fork; return None in the trial, and elsewhere what caught its mutant, or nothing."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._told = write
            limit()
            exchange(self._file, source)
            return None
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as told:
            status = waited(pid)
            failed = told.read()
        if status is None:
            return "waited for ever"
        if os.WIFSIGNALED(status):
            return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
        if bool(failed) != bool(os.WEXITSTATUS(status)):
            raise RuntimeError(f"a trial ended with {os.WEXITSTATUS(status)}, failed: {failed!r}.")
        return failed


def run_trials(arguments: Sequence[str], file: Path, sources: dict[int, str], results: Connection) -> None:
    """Run the tests that ``arguments`` name, as a process of its own: it ends by ``os._exit``."""
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
    code = pytest.main(["-x", "-q", *arguments], plugins=[Trials(file, sources, results)])
    sys.stdout.flush()
    os._exit(int(code))


def limit() -> None:
    """Keep this process within bounds, whatever a mutant does."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + SECONDS, int(used) + SECONDS + 5))


def waited(pid: int) -> int | None:
    """Return how a process ended; None, and kill it, if it does not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# ---- mutants ---------------------------------------------------------------------------------


def exchange(file: Path, source: str) -> None:
    """Give the functions that were imported from ``file``, wherever they are held, the code of ``source``."""
    codes = {code.co_qualname: code for code in functions_of(compile_quietly(source, file))}
    gc.unfreeze()  # or what conftest.py froze would not be found
    for function in gc.get_objects():
        if type(function) is FunctionType and Path(function.__code__.co_filename) == file:
            function.__code__ = codes[function.__code__.co_qualname]


def functions_of(module: CodeType) -> Iterator[CodeType]:
    """Yield the code of a module's functions and of its classes' methods."""
    for code in module.co_consts:
        if isinstance(code, CodeType):
            yield code
            yield from functions_of(code)


class _Skeleton(ast.NodeTransformer):
    """Takes away what functions do."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [ast.Pass()]
        return node


def skeleton(source: str) -> str:
    """What of a module is not inside of a function: constants, signatures, decorators."""
    return ast.dump(_Skeleton().visit(ast.parse(source)))
