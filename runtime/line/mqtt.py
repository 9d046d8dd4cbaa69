"""Tell an MQTT broker of results, by paho-mqtt (the extra ``mqtt``).

Below the topic that the address names, all with QoS 1, JSON in ASCII::

    result/reject, result/not_flagged   a result by its verdict: Entry.content()
    result/bad                          an image that could not be checked
    status, retained                    {"state": "online", ...}, again at each heartbeat; "offline" at the
                                        end, and by the broker (the last will) if the connection is lost

A result is delivered when the broker has acknowledged it; one that subscribes with a session of its own has
from there what came while it was away.  There is one connection at a time and one result on its way, and
nothing is left to paho to keep or send again: the log does that, over restarts too.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from threading import Event
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, unquote

from ..._extras import install
from ..._numbers import counted
from ..errors import DeviceError, ReceiverError
from .mqtt_session import MqttSession
from .receiver import LARGEST, RefusedError, UnreachableError, kind, payload, split_address
from .result_log import Entry
from .tls import Tls

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORTS = {"mqtt": 1883, "mqtts": 8883}
VERSIONS = ("5", "3.1.1")
Version = Literal["5", "3.1.1"]
_TOPIC = "musc-edge"
_CONNECT, _FAREWELL = 10.0, 1.0
_HEADER = 50
"""Bytes of a packet beside its topic and its content, at most."""
_OTHER_VERSION = 0x84
_REFUSALS = {0x80, 0x83, 0x99}
"""Reasons that may be about one message; all others would be the same for the next."""


class MqttReceiver:
    """Publishes results at the broker that ``url`` names.

    Parameters
    ----------
    url : str
        "mqtt://host:1883/topic", or "mqtts://..." for TLS; "user@" before the host. Without a topic it is
        "musc-edge".
    password : str
        Password of the user.
    tls : Tls
        Which brokers are trusted, and a certificate to show to them.
    version : str
        "5", or "3.1.1" for a broker that knows no other: such a one cannot say that a result was refused.
    timeout : float
        Seconds that the broker has to acknowledge.
    client_id : str
        What the broker knows this connection by, and no other: a second one takes it over.  By default made
        of the machine's name and the topic; ``stable_id`` makes others.
    destination : str
        Name of this receiver in the log.

    Raises
    ------
    ReceiverError
        If one of these cannot be used.
    DeviceError
        If paho-mqtt is not installed.
    """

    def __init__(
        self,
        url: str,
        password: str = "",
        tls: Tls | None = None,
        version: Version = "5",
        timeout: float = 30.0,
        client_id: str = "",
        destination: str = "mqtt",
    ) -> None:
        parts = _split(url)
        if version not in VERSIONS:
            raise ReceiverError(f"MQTT version {version!r}: expected {' or '.join(VERSIONS)}.")
        if tls and parts.scheme == "mqtt":
            raise ReceiverError("certificates are for mqtts://HOST, and the address begins with mqtt://.")
        self.destination = destination
        self._host, self._port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        self._topic = unquote(parts.path).strip("/") or _TOPIC
        self._user, self._password = unquote(parts.username or ""), password
        self._tls = (tls or Tls()) if parts.scheme == "mqtts" else None
        self._version, self._timeout = version, timeout
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"{parts.scheme}://{host}:{self._port}/{self._topic}"
        self._id = client_id or stable_id(self._topic)
        self._session: MqttSession | None = None
        self._new_client()  # what is missing or wrong is said at once

    def open(self, state: Mapping[str, Any]) -> bool:
        """Connect and publish the state."""
        session = self._session = MqttSession(self._new_client())
        try:
            session.connect(self._host, self._port)
        except (OSError, ValueError) as error:  # a certificate for another name is a ValueError
            raise UnreachableError(f"cannot be reached: {_why(error)}") from error
        answer = session.greeting(_CONNECT)
        if answer.is_failure:
            hint = " (try version 3.1.1)" if answer.value == _OTHER_VERSION and self._version == "5" else ""
            raise UnreachableError(f"does not let this program in: {answer}{hint}")
        self.beat(state)
        return True

    def tell(self, entry: Entry) -> None:
        """Publish a result."""
        topic = f"result/{kind(entry)}"
        most = min(LARGEST, self._connected().largest - len(f"{self._topic}/{topic}".encode()) - _HEADER)
        body = payload(entry, most)
        if len(body) > most:
            raise RefusedError(f"the broker takes no message of {counted(len(body), 'byte')}")
        self._publish(topic, body, retain=False)

    def beat(self, state: Mapping[str, Any]) -> None:
        """Publish the state."""
        self._publish("status", json.dumps(state).encode(), retain=True)

    def wait(self, stop: Event, seconds: float) -> None:
        """Answer the broker; returns early if it says something."""
        self._connected().loop(seconds)

    def close(self, state: Mapping[str, Any] | None = None) -> None:
        """Disconnect; without a ``state`` so that the broker publishes the last will."""
        if self._session is None:
            return
        if state is not None:
            with suppress(UnreachableError, RefusedError):
                self._publish("status", json.dumps(state).encode(), retain=True, timeout=_FAREWELL)
                self._session.client.disconnect()
        self._session.close()
        self._session = None

    def _connected(self) -> MqttSession:
        if self._session is None:
            raise UnreachableError("is not connected")
        return self._session

    def _publish(self, topic: str, body: bytes, retain: bool, timeout: float | None = None) -> None:
        """Publish and wait until it is acknowledged."""
        session = self._connected()
        sent = session.client.publish(f"{self._topic}/{topic}", body, qos=1, retain=retain)
        session.until(lambda: sent.mid in session.acknowledged, timeout or self._timeout, "a message")
        reason = session.acknowledged.pop(sent.mid)
        if reason.value in _REFUSALS:
            raise RefusedError(f"{topic}: {reason}")
        if reason.is_failure:
            raise UnreachableError(f"refused a message to {self._topic}/{topic}: {reason}")

    def _new_client(self) -> Client:
        mqtt = _paho()
        protocol = mqtt.MQTTv5 if self._version == "5" else mqtt.MQTTv311
        client: Client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, self._id, protocol=protocol, reconnect_on_failure=False
        )
        client.connect_timeout = _CONNECT
        if self._user or self._password:
            client.username_pw_set(self._user, self._password or None)
        if self._tls:
            client.tls_set_context(self._tls.context())
        will = json.dumps({"state": "offline", "lost": True})
        client.will_set(f"{self._topic}/status", will, qos=1, retain=True)
        return client


def stable_id(*parts: str) -> str:
    """Make a client id of this machine's name and ``parts``: the same at each start.

    A broker that has not yet noticed that the last connection is gone closes it when the same id connects
    again, so that its last will cannot come after the new "online".
    """
    named = "\0".join((socket.gethostname(), *parts))
    return f"musc-edge-{sha256(named.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def _paho() -> Any:
    try:
        import paho.mqtt.client as mqtt
    except ImportError as error:
        raise DeviceError(f"MQTT needs paho-mqtt ({error}). Install it with: {install('mqtt')}") from error
    return mqtt


def _split(url: str) -> SplitResult:
    """Take an address apart; ReceiverError if it cannot be used."""
    expected = "expected mqtt://[USER@]HOST[:PORT]/TOPIC, or mqtts:// for TLS"
    parts = split_address(url, "broker", expected)
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ReceiverError(f"the broker's address begins with {url.partition(':')[0]!r}: {expected}.")
    if parts.password is not None:
        raise ReceiverError("the broker's address holds a password, which others see: give it in a file.")
    topic = unquote(parts.path)
    if any(sign in topic for sign in "+#") or not topic.isprintable():
        raise ReceiverError(f"the topic {topic!r}: expected one without + and #, which are for subscribers.")
    return parts


def _why(error: OSError | ValueError) -> str:
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error)
