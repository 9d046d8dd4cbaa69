"""A real MQTT broker (mosquitto), and what subscribes there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Condition
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from support.told import LONG, until

_SBIN = "/usr/sbin:/sbin"  # where Debian has it, and not everybody's PATH


def mosquitto() -> str | None:
    """The broker's program, if it is installed."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Broker:
    """A mosquitto at a port of its own, killed at the end of ``with``; ``lines`` are its settings."""

    def __init__(self, folder: Path, *lines: str, listen: str = "") -> None:
        self.port, self._folder = free_port(), folder
        folder.mkdir(parents=True, exist_ok=True)
        settings = [listen or f"listener {self.port} 127.0.0.1", "user root", "set_tcp_nodelay true"]
        settings += lines or ["allow_anonymous true"]
        (folder / "mosquitto.conf").write_text("\n".join(settings).replace("PORT", str(self.port)) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = mosquitto()
        assert program
        self._process = subprocess.Popen(
            [program, "-c", str(self._folder / "mosquitto.conf")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._listens, "the broker listens")

    def kill(self) -> None:
        """End it as a loss of power does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def _listens(self) -> bool:
        assert self._process
        assert self._process.poll() is None, "mosquitto ended"
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """Receives what is published below a topic, as long as the block of a ``with`` runs, over reconnects.

    ``heard`` are the topics and messages, in order; the broker keeps for it what comes while it is away.
    """

    def __init__(self, port: int, topic: str = "line/#", name: str = "subscriber", **login: Any) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.subscribed = 0
        self._changed = Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, name, clean_session=False, **login)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._port, self._topic = port, topic

    def __enter__(self) -> Subscriber:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        self.until(lambda: self.subscribed)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def until(self, done: Callable[[], object]) -> None:
        """Wait until what was heard satisfies."""
        with self._changed:
            assert self._changed.wait_for(done, LONG), self.heard[-5:]

    def results(self, topic: str = "line") -> list[int]:
        """The numbers of the results that were heard, in order."""
        return [content["id"] for name, content in list(self.heard) if name.startswith(f"{topic}/result/")]

    def states(self, topic: str = "line") -> list[str]:
        """The states that were heard, in order."""
        return [content["state"] for name, content in list(self.heard) if name == f"{topic}/status"]

    def _on_connect(self, *_: object) -> None:
        self._client.subscribe(self._topic, qos=1)

    def _on_subscribe(self, *_: object) -> None:
        with self._changed:
            self.subscribed += 1
            self._changed.notify_all()

    def _on_message(self, client: object, data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self.heard.append((message.topic, json.loads(message.payload)))
            self._changed.notify_all()
