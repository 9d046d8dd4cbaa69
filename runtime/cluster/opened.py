"""Open a cluster of Ray: one on this machine that ends with the work, or one that is there already.

Every connection needs a token (RAY_AUTH_MODE=token), unless the environment says otherwise; Ray's usage
statistics are off.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..._extras import install
from ..errors import DeviceError, LotError
from ..memory import memory_left, size_text
from ..settings import AUTO, Resources
from .engine import STORE_SHARE, WORKER_BYTES, WORKERS_SHARE, Cluster, with_slack
from .inside_ray import (
    MODE,
    TOKEN,
    TOKEN_FILE,
    few_processes,
    loopback_alone,
    no_handler,
    read_variables,
    require_answer,
)

LEAST_STORE = 100_000_000
"""Bytes of shared memory for objects; Ray itself refuses less than 75 MB."""
_STARTS = 3
"""Ray gives its processes 30 seconds, too little for a machine that is busy: how often it tries."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
_OURS = {
    "RAY_enable_metrics_collection": "0",  # what a dashboard would be told, which is not there
    "RAY_task_events_report_interval_ms": "0",
    "RAY_worker_niceness": "0",  # workers are as urgent as the command, as its threads would be
}
"""For a cluster of our own."""
_ENDED = (
    "musc-edge was ended from outside: killed, or by Ray, which lost the cluster. With --resume the same "
    "command goes on from what was done."
)
_HELD = (signal.SIGINT, signal.SIGTERM)


def import_ray() -> Any:
    """Import Ray; DeviceError if it is not installed."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"a cluster was asked for, and Ray is not installed ({error}). Install it with: "
            f"{install('cluster')}, here and on every machine of the cluster, or leave --cluster out."
        ) from error
    return ray


@contextmanager
def open_cluster(resources: Resources, needed: int = 0) -> Iterator[Cluster]:
    """Open the cluster that ``resources.cluster`` names, for as long as the context is open.

    "auto" starts one on this machine, of which nothing stays, within the memory budget, but for ``needed``
    bytes of this process.  Any other word is the address of one that is there.

    Raises
    ------
    DeviceError
        If Ray is not installed, or the cluster cannot be reached or started.
    LotError
        If the memory budget is too small for a cluster on this machine.
    """
    with ExitStack() as stack:
        ours = _OURS if resources.cluster == AUTO else {}
        stack.enter_context(_variables(_QUIET | ours | _credentials(resources.cluster)))
        ray = import_ray()
        read_variables(ray)
        if ray.is_initialized():
            raise DeviceError(
                "this process has opened a cluster of Ray already: call ray.shutdown() before, and let "
                "Resources(cluster=...) open it."
            )
        stack.enter_context(told_of_its_end())
        if resources.cluster == AUTO:
            yield stack.enter_context(_local(ray, resources, needed))
        else:
            yield stack.enter_context(_connected(ray, str(resources.cluster)))


@contextmanager
def told_of_its_end() -> Iterator[None]:
    """Let the user know if this process ends within the block: Ray ends it with its cluster, silently."""
    # By a process of its own, since nothing of this one runs then.  It waits for a line, or for the end of
    # the pipe; in a session of its own, so that ctrl-C does not reach it.
    command = ["sh", "-c", 'read -r line || printf "%s\\n" "$0" >&2', _ENDED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as waiting:
        try:
            yield
        finally:
            assert waiting.stdin
            with suppress(BrokenPipeError):  # who stops a service ends all of its processes
                os.write(waiting.stdin.fileno(), b"\n")  # before anything that a signal may interrupt


def _credentials(cluster: str | None) -> dict[str, str]:
    """Ask for a token, and make one for a cluster of our own."""
    wanted = {} if MODE in os.environ else {MODE: "token"}
    if cluster == AUTO and not {TOKEN, TOKEN_FILE} & os.environ.keys():
        wanted[TOKEN] = secrets.token_hex(32)
    return wanted


@contextmanager
def _local(ray: Any, resources: Resources, needed: int) -> Iterator[Cluster]:
    """Start a cluster on this machine, whose files lie in the folder for scratch files."""
    left, shares = memory_left(resources.budget), STORE_SHARE + WORKERS_SHARE
    of_cluster = min(left, max(0, left - needed) / shares)
    store, memory = int(of_cluster * STORE_SHARE), int(of_cluster * WORKERS_SHARE)
    if store < LEAST_STORE or memory < WORKER_BYTES:
        least = max(LEAST_STORE / STORE_SHARE, WORKER_BYTES / WORKERS_SHARE)
        least = int(max(least, needed + least * shares))
        raise LotError(
            f"the memory budget of {size_text(resources.budget)} leaves {size_text(left)}, and this process "
            f"and a cluster on this machine need {size_text(least)}. Raise --memory-budget by "
            f"{size_text(with_slack(least - left))}, or leave --cluster out."
        )
    with _folder(resources.scratch) as folder:
        options = {
            "address": "local",
            "num_cpus": resources.workers,
            "object_store_memory": store,
            "_memory": memory,
            "_temp_dir": str(folder),
            "_node_ip_address": "127.0.0.1",
        }
        with loopback_alone(ray), few_processes(ray), _ended(ray):
            _start(ray, options, folder)
            yield Cluster.of(ray, "on this machine", reserved=store + memory)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[Cluster]:
    with _ended(ray):
        try:
            if address.rpartition(":")[2].isdigit():  # Ray names what is no address
                require_answer(ray, address)
            _init(ray, {"address": address})
        except DeviceError:
            raise
        except Exception as error:  # Ray has no common base for its errors
            raise DeviceError(
                f"the cluster at {address} cannot be used: {_said(error)} It needs Ray "
                f"{ray.__version__}, and the same token as here: see docs/cluster.md."
            ) from error
        yield Cluster.of(ray, f"at {address}", reserved=0)


def _start(ray: Any, options: Mapping[str, Any], folder: Path) -> None:
    """Start Ray's processes here; DeviceError if that fails again and again."""
    for left in reversed(range(_STARTS)):
        try:
            _init(ray, options)
            return
        except Exception as error:  # Ray has no common base for its errors
            kill_those_of(folder)
            if not left:
                raise DeviceError(
                    f"a cluster could not be started here: {_said(error)} Try again when the machine has "
                    "less to do, or leave --cluster out."
                ) from error


def _init(ray: Any, options: Mapping[str, Any]) -> None:
    with _own_handlers(), no_handler(ray):
        ray.init(**options, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@contextmanager
def _ended(ray: Any) -> Iterator[None]:
    """Leave the cluster behind the block, and end what was started for it."""
    try:
        yield
    finally:
        with _own_handlers():
            ray.shutdown()


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Put back the handlers of signals behind the block, which Ray sets its own for.

    A signal within it counts behind it, since Ray crashes where it is left in the middle; a second one, of
    somebody who does not want to wait, at once.
    """
    received: list[int] = []

    def hold(number: int, frame: object) -> None:
        if number in received:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        received.append(number)

    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, hold) for number in _HELD} if in_main else {}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not of Python
        for each in received:
            signal.raise_signal(each)


def kill_those_of(folder: Path) -> None:
    """Kill the processes of Ray that were given ``folder``: Ray forgets them where a start fails."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (path / "cmdline").read_bytes()
            if os.fsencode(folder) in command and int(path.name) != os.getpid():
                os.kill(int(path.name), signal.SIGKILL)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}."


@contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    """Make a folder for a cluster's files, and remove it."""
    # Ray's sockets lie below it, and the path of one may have 107 bytes.
    deep = scratch is not None and len(os.fsencode(scratch.absolute())) > 30
    folder = Path(tempfile.mkdtemp(prefix="musc-", dir=None if deep else scratch))
    try:
        yield folder
    finally:
        kill_those_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment within the block, and in processes started there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
