"""The private parts of Ray that musc-edge uses, for which pyproject.toml bounds its version.

They let Ray read the environment once more, keep a cluster to 127.0.0.1 and to few processes, and ask a
cluster whether it takes our token before Ray itself asks for it again and again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from ..._extras import install
from ..errors import DeviceError

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Ray's variables: whether a token is asked for, the token, and the file that has it (~/.ray/auth_token)."""
_PATIENCE = 10.0  # seconds for a machine to answer
_HOW = (
    f"Set {TOKEN_FILE} to a file with the cluster's token, or copy it to ~/.ray/auth_token: see "
    "docs/cluster.md, Security."
)


@contextmanager
def _known(ray: Any) -> Iterator[None]:
    """Raise DeviceError if this Ray lacks what the block takes of it."""
    try:
        yield
    except (AttributeError, ImportError) as error:
        raise DeviceError(
            f"Ray {ray.__version__} is installed, which lacks a private part that musc-edge uses ({error}). "
            f"Install the version that it was made for: {install('cluster')}"
        ) from error


def read_variables(ray: Any) -> None:
    """Let Ray read the environment again, which it does as it is imported, and keeps the token."""
    with _known(ray):
        ray._raylet.Config.initialize("")
        ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def loopback_alone(ray: Any) -> Iterator[None]:
    """Within the block Ray takes 127.0.0.1 for this machine's address, as by itself on macOS and Windows."""
    with ExitStack() as stack:
        with _known(ray):
            stack.enter_context(_replaced(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False))
        yield


@contextmanager
def few_processes(ray: Any) -> Iterator[None]:
    """Within the block ``ray.init`` starts no autoscaler, no log monitor and no server of the dashboard.

    Each is a process of Python that takes a second to import Ray, and Ray waits for the last.  ``ray start``
    has options for them (--no-monitor, --include-log-monitor), ``ray.init`` has none.
    """
    with ExitStack() as stack:
        with _known(ray):
            parameter, services = ray._private.parameter, ray._private.services
            fewer = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
            stack.enter_context(_replaced(parameter, "RayParams", fewer))
            stack.enter_context(_replaced(services, "start_api_server", _no_dashboard))
        yield


@contextmanager
def no_handler(ray: Any) -> Iterator[None]:
    """Within the block ``ray.init`` leaves SIGTERM to whoever has a handler for it."""
    with ExitStack() as stack:
        with _known(ray):
            stack.enter_context(_replaced(ray._private.utils, "set_sigterm_handler", lambda handler: None))
        yield


def _no_dashboard(*_: Any, **__: Any) -> tuple[None, None]:
    """Return no address and no process, as Ray's own function does where the dashboard cannot start."""
    return None, None


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def require_answer(ray: Any, address: str) -> None:
    """Raise DeviceError unless a cluster answers at ``host:port`` and takes our token.

    Ray itself tries for 20 s with a wrong token, and for a quarter of an hour where nobody listens.
    """
    with _known(ray):
        loader, ask = ray._raylet.AuthenticationTokenLoader.instance(), ray._raylet.GcsClient
        has_token = loader.has_token(ignore_auth_mode=True)
    _require_listener(address)
    with_token = os.environ.get(MODE, "").lower() == "token"
    if with_token and not has_token:  # without one Ray would end this process
        raise DeviceError(f"the cluster at {address} expects a token, and none is here. {_HOW}")
    try:
        ask(address=address)
    except ray.exceptions.AuthenticationError as error:
        sent = f"the token of {_source()}" if with_token else f"a command without a token ({MODE} is set)"
        how = _HOW if with_token else f"Unset {MODE}. {_HOW}"
        raise DeviceError(
            f"the cluster at {address} refuses {sent}: it expects the one that it was started with. {how}"
        ) from error


def _require_listener(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError as error:
        raise DeviceError(
            f"nobody answers at {address} ({error.strerror or error}), where a cluster was expected. Start "
            "it with ray start --head, and give the address that it prints."
        ) from error


def _source() -> str:
    """Where Ray took the token from."""
    if TOKEN in os.environ:
        return f"${TOKEN}"
    return os.environ.get(TOKEN_FILE) or "~/.ray/auth_token"
