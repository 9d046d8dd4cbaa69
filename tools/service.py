"""What a command needs that runs until it is told to stop: signals, and words with systemd."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .cli import INTERRUPTED

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_MICRO = 1e-6


class Stop:
    """Whether, and by which signal, the command was told to stop.

    ``exit_code`` is 0 after SIGTERM, as services end, and that of an interrupt after ctrl-C.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code to end with."""
        return INTERRUPTED if self.signal == signal.SIGINT else 0


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within the block SIGTERM and ctrl-C only set the ``Stop`` that is yielded; a second one ends all."""
    stop = Stop()

    def told(number: int, frame: object) -> None:
        if stop:
            raise SystemExit(128 + number)
        stop.signal = number

    before = {number: signal.signal(number, told) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Systemd:
    """Tells systemd how the service is (``Type=notify``, ``WatchdogSec=``); silent where nobody asks.

    The protocol is a line of text in a datagram to the socket ``$NOTIFY_SOCKET``: sd_notify(3).
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        self._every = int(watchdog) * _MICRO / 3 if watchdog.isdecimal() else None
        self._alive_at = 0.0

    def ready(self, status: str) -> None:
        """Say that the service does its work from now on."""
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Say that it goes on, as often as the watchdog wants to hear it."""
        if self._every is not None and time.monotonic() >= self._alive_at:
            self._alive_at = time.monotonic() + self._every
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that it is about to end."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.sendto(text.encode(), self._address)
