"""One connection to an MQTT broker.

Nothing runs beside it: the thread that delivers calls ``loop`` or ``until``, by which paho reads and writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .receiver import UnreachableError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_KEEPALIVE = 30
"""Seconds of silence after which both sides ask whether the other is there."""


class MqttSession:
    """One connection, and what the broker said on it; moved on by this thread alone."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._answer: Any = None
        self._properties: Any = None
        self.acknowledged: dict[int, Any] = {}
        self._lost: Any = None
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect

    @property
    def largest(self) -> float:
        """Bytes that a packet may have, by what MQTT 5 lets a broker say; infinite if it said nothing."""
        return float(getattr(self._properties, "MaximumPacketSize", float("inf")))

    def connect(self, host: str, port: int) -> None:
        """Open the connection and send the greeting."""
        self.client.connect(host, port, _KEEPALIVE)

    def greeting(self, seconds: float) -> Any:
        """Return what the broker answers to a new connection."""
        self.until(lambda: self._answer is not None, seconds, "the greeting")
        return self._answer

    def loop(self, seconds: float) -> None:
        """Read and write for so long; UnreachableError if the connection is lost."""
        code = self.client.loop(seconds)
        if code:
            why = self._lost if self._lost is not None else code.name
            raise UnreachableError(f"the connection was lost: {why}")

    def until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Go on until something is there; UnreachableError if it does not come."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnreachableError(f"did not acknowledge {what} within {seconds:g} s")
            try:
                self.loop(min(left, 1.0))
            except UnreachableError:
                if not done():
                    raise

    def close(self) -> None:
        """Drop the connection."""
        # What is called back refers to this object, and this object to the client: let both go now.
        self.client.on_connect = self.client.on_publish = self.client.on_disconnect = None
        if opened := self.client.socket():
            opened.close()

    def _on_connect(self, *said: Any) -> None:
        self._answer, self._properties = said[3:]

    def _on_publish(self, *said: Any) -> None:
        self.acknowledged[said[2]] = said[3]

    def _on_disconnect(self, *said: Any) -> None:
        self._lost = said[3]
