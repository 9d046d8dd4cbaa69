"""Runs the application under uvicorn, from an open socket to a clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import uvicorn

from ...runtime.line.delivery import Delivery
from ...runtime.line.result_log import ResultLog
from ...runtime.line.station import Station
from ..service import Systemd
from .app import Routes, refused_app
from .bodies import Intake
from .connections import Connection
from .guard import MOST_HEAD, Access, App, Guard
from .metrics import Metrics
from .recent import MemoryLog
from .request_log import RequestLog
from .service import Service

GRACE = 10
"""Seconds that requests in work have to end once the program is told to."""


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes
    ----------
    token : str or None
    hosts : tuple of str
        Names of this machine beside its own.
    places, room, seconds
        As for ``Service``.
    log_json : bool
    tls : tuple of str or None
        Files of the certificate and of its key.
    deliveries : tuple of Delivery
        What tells others of results.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ()
    places: int = 16
    room: int = 1 << 30
    seconds: float = 60.0
    log_json: bool = False
    tls: tuple[str, str] | None = None
    deliveries: tuple[Delivery, ...] = ()


class _Server(uvicorn.Server):
    """Tells when it listens, and that it ends."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told, self._systemd = started, Systemd()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()
        self._systemd.ready("serving")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._systemd.stopping()
        await super().shutdown(sockets)


def make_app(
    stations: Mapping[str, Station], log: ResultLog | MemoryLog, intake: Intake, settings: Settings
) -> tuple[Guard, Service]:
    """Return the application and its service; within the event loop that will run it."""
    service = Service(stations, log, settings.places, settings.room, settings.seconds)
    metrics = Metrics(lambda: service.queued, service.trouble)
    for station in stations.values():
        metrics.add_station(station)
    for delivery in settings.deliveries:
        metrics.add_delivery(delivery)
    routes = Routes(service, intake, metrics, settings.token is not None, settings.deliveries).application()
    access = Access(settings.token, settings.hosts)
    observers = (metrics, RequestLog(settings.log_json))
    return Guard(cast(App, routes), access, refused_app, observers), service


def serve(
    stations: Mapping[str, Station],
    log: ResultLog | MemoryLog,
    listener: socket.socket,
    intake: Intake,
    settings: Settings,
    started: Callable[[], None],
) -> int:
    """Serve until a signal ends it; returns the exit code.

    Requests in work are answered within ``GRACE`` seconds.  A decoder or backend that hangs is left behind.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    async def run() -> int:
        app, service = make_app(stations, log, intake, settings)
        cert, key = settings.tls or (None, None)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MOST_HEAD,
            timeout_graceful_shutdown=GRACE,
            ssl_certfile=cert,
            ssl_keyfile=key,
        )
        await _Server(config, started).serve([listener])
        return service.queued

    if asyncio.run(run()):
        os._exit(0)  # closing would wait for what hangs; all results are on the disk
    return 0
