"""The options by which others are told of results, of ``musc-edge watch`` and ``musc-edge serve``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .usage import UsageError

if TYPE_CHECKING:
    from ..runtime.line.delivery import Delivery
    from ..runtime.line.receiver import Receiver
    from ..runtime.line.result_log import ResultLog
    from ..runtime.line.tls import Tls

HEARTBEAT = 60.0
_SECRET_BYTES = 10_000
_BELONGS = {
    "mqtt": ("mqtt_password_file", "mqtt_ca", "mqtt_cert", "mqtt_key", "mqtt_version"),
    "webhook": ("webhook_token_file", "webhook_secret_file", "webhook_ca"),
}


def add_delivery(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options, as a group to which more can be added."""
    group = parser.add_argument_group(
        "events",
        "Tell others of results, each at least once and in order, also after they were away: docs/line.md",
    )
    add = group.add_argument
    add("--mqtt", metavar="URL", help="broker and topic: mqtt://[USER@]HOST[:PORT]/TOPIC, mqtts:// for TLS")
    add("--mqtt-password-file", type=Path, metavar="FILE",
        help="file with the user's password (or $MUSC_EDGE_MQTT_PASSWORD, or systemd's credential "
        "mqtt-password)")  # fmt: skip
    add("--mqtt-ca", type=Path, metavar="FILE",
        help="certificates that vouch for the broker, in PEM (default: the system's)")  # fmt: skip
    add("--mqtt-cert", type=Path, metavar="FILE", help="certificate to show to the broker, in PEM")
    add("--mqtt-key", type=Path, metavar="FILE", help="its key (default: in the same file)")
    add("--mqtt-version", choices=("5", "3.1.1"), help="what the broker speaks (default: 5)")
    add("--webhook", metavar="URL", help="server that takes results by POST: https://HOST/PATH")
    add("--webhook-token-file", type=Path, metavar="FILE",
        help="file with what goes behind 'Authorization: Bearer' (or $MUSC_EDGE_WEBHOOK_TOKEN, or systemd's "
        "credential webhook-token)")  # fmt: skip
    add("--webhook-secret-file", type=Path, metavar="FILE",
        help="file with the secret by which requests are signed (or $MUSC_EDGE_WEBHOOK_SECRET, or systemd's "
        "credential webhook-secret)")  # fmt: skip
    add("--webhook-ca", type=Path, metavar="FILE",
        help="certificates that vouch for the server, in PEM (default: the system's)")  # fmt: skip
    add("--tell", choices=("reject", "all"), default="reject",
        help="what is told: rejected images, those that cannot be checked, and that the line has changed "
        "(default), or all")  # fmt: skip
    add("--heartbeat", type=_seconds, metavar="SECONDS",
        help="say so often that this program is alive; 0 for never (default: 60 by MQTT; a webhook gets "
        "heartbeats only if this is given)")  # fmt: skip
    return group


@contextmanager
def delivery(args: argparse.Namespace, log: object) -> Iterator[tuple[Delivery, ...]]:
    """Tell of the results in ``log`` what the options ask for, while the block runs.

    Yields the deliveries, whose ``status()`` is for /health, /metrics and people.

    Raises
    ------
    UsageError
        If an option belongs to another that is not given, the file of a secret cannot be used, or the log is
        in memory alone.
    ReceiverError
        If an address, a secret or a certificate cannot be used.
    DeviceError
        If paho-mqtt is not installed.
    """
    from ..runtime.line.delivery import Delivery
    from ..runtime.line.result_log import ResultLog

    for name, others in _BELONGS.items():
        given = [other for other in others if getattr(args, other) is not None]
        if given and not getattr(args, name):
            raise UsageError(f"{_option(given[0])} belongs to {_option(name)} URL, which is not given.")
    if not args.mqtt and not args.webhook:
        yield ()
        return
    if not isinstance(log, ResultLog):
        raise UsageError("--mqtt and --webhook go by a log of all results: give -o OUT too.")
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(Delivery(log, receiver, args.tell, heartbeat))
            for receiver, heartbeat in _receivers(args, log)
        )


def _receivers(args: argparse.Namespace, log: ResultLog) -> list[tuple[Receiver, float]]:
    """Make the receivers that the options ask for, each with its heartbeat."""
    receivers: list[tuple[Receiver, float]] = []
    if args.mqtt:
        receivers.append((_mqtt(args, log), HEARTBEAT if args.heartbeat is None else args.heartbeat))
    if args.webhook:
        receivers.append((_webhook(args), args.heartbeat or 0.0))
    return receivers


def _mqtt(args: argparse.Namespace, log: ResultLog) -> Receiver:
    from ..runtime.line.mqtt import MqttReceiver, stable_id

    password = _secret(args.mqtt_password_file, "mqtt-password")
    if password and args.mqtt.startswith("mqtt:"):
        _say_readable("the password", "mqtts")
    files = (args.mqtt_ca, args.mqtt_cert, args.mqtt_key)
    return MqttReceiver(
        args.mqtt, password, _tls(*files), args.mqtt_version or "5", client_id=stable_id(str(log.folder))
    )


def _webhook(args: argparse.Namespace) -> Receiver:
    from ..runtime.line.webhook import WebhookReceiver

    token = _secret(args.webhook_token_file, "webhook-token")
    if token and args.webhook.startswith("http:"):
        _say_readable("the token", "https")
    secret = _secret(args.webhook_secret_file, "webhook-secret")
    return WebhookReceiver(args.webhook, token, secret, _tls(args.webhook_ca))


def _say_readable(what: str, scheme: str) -> None:
    print(f"events: {what} goes over the network as it is; {scheme}:// hides it", file=sys.stderr)


def _tls(*files: Path | None) -> Tls | None:
    from ..runtime.line.tls import Tls

    return Tls(*files) if any(files) else None


def _secret(path: Path | None, name: str) -> str:
    """The only line of the file ``path``, else an environment variable, else systemd's credential; or ""."""
    variable = f"MUSC_EDGE_{name.upper().replace('-', '_')}"
    if path is None and variable in os.environ:
        return os.environ[variable]
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", os.devnull)) / name
    if path is None and not credential.exists():
        return ""
    path = path or credential
    from .._files import read_regular

    try:
        text = read_regular(path, _SECRET_BYTES).decode().strip("\r\n")
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UsageError(f"the secret in {path} cannot be read: {said}.") from error
    if not text or not text.isprintable():
        raise UsageError(
            f"{path} holds {'no secret' if not text else 'more than a line'}: expected one line."
        )
    return text


def _seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    value = float("nan")
    with suppress(ValueError):
        value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds such as 60, or 0")
    return value


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
