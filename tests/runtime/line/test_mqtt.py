from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from musc_edge.runtime.errors import DeviceError, ReceiverError
from musc_edge.runtime.line.delivery import Delivery
from musc_edge.runtime.line.mqtt import MqttReceiver, Version, stable_id
from musc_edge.runtime.line.receiver import UnreachableError
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.line.tls import Tls
from support.brokers import Broker, Subscriber
from support.told import SOON, add, until

pytestmark = pytest.mark.usefixtures("mosquitto")
UNCLOSED = pytest.mark.filterwarnings(  # paho leaves it to Python to close a socket whose handshake failed
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
STATE = {"state": "online"}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ResultLog]:
    with ResultLog(tmp_path / "out") as log:
        yield log


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as broker:
        yield broker


def receiver(broker: Broker, **options: Any) -> MqttReceiver:
    return MqttReceiver(f"mqtt://localhost:{broker.port}/line", **options)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_results_and_states_are_published(log: ResultLog, broker: Broker, version: Version) -> None:
    with Subscriber(broker.port) as heard:
        with Delivery(log, receiver(broker, version=version), "all", 0.001, SOON) as delivery:
            for verdict in ("reject", "not flagged", ""):
                add(log, verdict)
            until(lambda: delivery.status().behind == 0, "all are delivered")
            heard.until(lambda: len(heard.states()) > 2)
        heard.until(lambda: heard.states()[-1] == "offline")
    results = [(topic, content) for topic, content in heard.heard if topic != "line/status"]
    assert [topic for topic, _ in results] == [
        "line/result/reject",
        "line/result/not_flagged",
        "line/result/bad",
    ]
    assert [content for _, content in results] == [entry.content() for entry in log.after(0, 9)]
    assert set(heard.states()[:-1]) == {"online"}


def test_the_state_is_kept_for_who_comes_later(log: ResultLog, broker: Broker) -> None:
    with Delivery(log, receiver(broker), patience=SOON) as delivery:
        until(lambda: delivery.status().connected, "it is connected")
        with Subscriber(broker.port) as heard:
            heard.until(heard.states)
    assert heard.states() == ["online"]
    with Subscriber(broker.port, name="later") as heard:
        heard.until(heard.states)
    (_, content) = heard.heard[0]
    assert (content["state"], content["results"]) == ("offline", 0)


def test_the_broker_says_when_the_program_was_killed(log: ResultLog, broker: Broker) -> None:
    code = f"""
import time
from musc_edge.runtime.line.mqtt import MqttReceiver
receiver = MqttReceiver("mqtt://localhost:{broker.port}/line")
receiver.open({STATE})
print("open", flush=True)
time.sleep(1000)
"""
    with Subscriber(broker.port) as heard:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "open\n"
            process.send_signal(signal.SIGKILL)
        heard.until(lambda: heard.states() == ["online", "offline"])
    assert heard.heard[-1][1] == {"state": "offline", "lost": True}


def test_a_broker_that_was_killed_gets_all_of_it_later(log: ResultLog, broker: Broker) -> None:
    said: list[str] = []
    with Delivery(log, receiver(broker), "all", 0, SOON, said.append) as delivery:
        with Subscriber(broker.port) as heard:
            add(log, count=3)
            heard.until(lambda: heard.results() == [1, 2, 3])
        broker.kill()
        add(log, count=15)
        until(lambda: delivery.status().error, "it is missed")
        assert not delivery.status().connected
        broker.start()
        until(lambda: delivery.status().behind == 0, "all are delivered")
    assert log.delivered("mqtt") == 18
    assert any("cannot be reached: Connection refused" in line for line in said)
    assert said[-1].partition(": ")[2].startswith("connected again")


def test_what_a_program_left_the_next_one_delivers(log: ResultLog, broker: Broker) -> None:
    broker.kill()
    said: list[str] = []
    with Delivery(log, receiver(broker), "reject", 0, SOON, said.append):
        add(log, count=5)
    assert said[-1].endswith("5 results behind; the next start on this log goes on from there")
    broker.start()
    with Subscriber(broker.port) as heard, Delivery(log, receiver(broker), "reject", 0, SOON):
        heard.until(lambda: len(heard.results()) == 5)
    assert heard.results() == [1, 2, 3, 4, 5]


def test_user_and_password(log: ResultLog, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-c", "-b", passwords, "me", "geheim"], check=True, capture_output=True
    )
    with Broker(tmp_path / "broker", f"password_file {passwords}") as broker:
        url = f"mqtt://me@localhost:{broker.port}/line"
        assert MqttReceiver(url, "geheim").open(STATE)
        for password, version in (("wrong", "5"), ("wrong", "3.1.1"), ("", "5")):
            tried = MqttReceiver(url, password, version=version)  # type: ignore[arg-type]
            with pytest.raises(UnreachableError, match="does not let this program in: Not authorized"):
                tried.open(STATE)
            assert "geheim" not in repr(vars(tried))


@UNCLOSED
def test_tls_and_a_certificate_of_the_program(log: ResultLog, certificates: Path, tmp_path: Path) -> None:
    files = [f"cafile {certificates}/ca.pem", f"certfile {certificates}/server.pem"]
    files += [f"keyfile {certificates}/server.key", "require_certificate true", "allow_anonymous true"]
    with Broker(tmp_path / "broker", *files) as broker:
        url = f"mqtts://localhost:{broker.port}/line"
        pair = (certificates / "client.pem", certificates / "client.key")
        assert MqttReceiver(url, tls=Tls(certificates / "ca.pem", *pair)).open(STATE)
        for tls in (Tls(certificates / "other.pem", *pair), Tls(None, *pair)):
            with pytest.raises(UnreachableError, match=r"cannot be reached: .*certificate"):
                MqttReceiver(url, tls=tls).open(STATE)
        with pytest.raises(UnreachableError):  # TLS 1.3 says only after the handshake what is missing
            MqttReceiver(url, tls=Tls(certificates / "ca.pem")).open(STATE)
        with pytest.raises(UnreachableError):
            MqttReceiver(url.replace("mqtts", "mqtt"), timeout=0.1).open(STATE)


def test_a_broker_that_forbids_the_topic(log: ResultLog, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite line/status\ntopic readwrite line/result/bad\n")
    add(log)
    add(log, "")
    with Broker(tmp_path / "broker", f"acl_file {tmp_path}/acl", "allow_anonymous true") as broker:
        opened = receiver(broker)
        opened.open(STATE)
        with pytest.raises(UnreachableError, match="refused a message to line/result/reject: Not authorized"):
            opened.tell(log.last(2)[1])
        opened.tell(log.last(1)[0])


@pytest.mark.parametrize(("largest", "arrive"), [(400, [1, 2, 3]), (200, [])])
def test_a_broker_that_takes_small_messages(
    log: ResultLog, tmp_path: Path, largest: int, arrive: list[int]
) -> None:
    lines = [f"max_packet_size {largest}", "allow_anonymous true"]
    with (
        Broker(tmp_path / "broker", *lines) as broker,
        Subscriber(broker.port) as heard,
        Delivery(log, receiver(broker), "all", 0, SOON, lambda line: None) as delivery,
    ):
        add(log)
        add(log, error="long" * 200)
        add(log)
        until(lambda: delivery.status().behind == 0, "it goes on")
        heard.until(lambda: heard.results() == arrive)
        assert delivery.status().skipped == 3 - len(arrive)
    assert [content["left_out"] for _, content in heard.heard if "left_out" in content] == [["error"]] * (
        largest == 400
    )


@UNCLOSED
def test_a_broker_that_accepts_and_says_nothing(log: ResultLog) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        mock.patch("musc_edge.runtime.line.mqtt._CONNECT", 0.05),
    ):
        silent = MqttReceiver(f"mqtt://127.0.0.1:{server.getsockname()[1]}/line")
        with pytest.raises(UnreachableError, match=r"did not acknowledge the greeting within 0\.05 s"):
            silent.open(STATE)
        secure = MqttReceiver(f"mqtts://127.0.0.1:{server.getsockname()[1]}/line")
        with pytest.raises(UnreachableError, match=r"cannot be reached: .*timed out"):
            secure.open(STATE)


def test_a_broker_that_accepts_and_never_acknowledges(log: ResultLog, broker: Broker) -> None:
    said: list[str] = []
    with Delivery(log, receiver(broker, timeout=0.1), "all", 0, SOON, said.append) as delivery:
        until(lambda: delivery.status().connected, "it is connected")
        broker.send_signal(signal.SIGSTOP)  # the system goes on accepting for it
        add(log)
        until(lambda: delivery.status().error, "it is missed")
        assert log.delivered("mqtt") == 0
        broker.send_signal(signal.SIGCONT)
        until(lambda: delivery.status().behind == 0, "it is delivered")
    assert "did not acknowledge a message within 0.1 s" in said[0]


def test_a_lost_connection_is_noticed_while_there_is_nothing_to_tell(log: ResultLog, broker: Broker) -> None:
    with Delivery(log, receiver(broker), "all", 0, SOON, lambda line: None) as delivery:
        until(lambda: delivery.status().connected, "it is connected")
        broker.kill()
        until(lambda: delivery.status().error, "it is missed")


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("http://host", {}, "begins with 'http'"),
        ("mqtt:///topic", {}, "expected mqtt://"),
        ("mqtt://host:port/", {}, "cannot be used"),
        ("mqtt://host/a?b", {}, "expected mqtt://"),
        ("mqtt://me:geheim@host/", {}, "holds a password"),
        ("mqtt://host/line/%23", {}, "without \\+ and #"),
        ("mqtt://host/a%00b", {}, "without \\+ and #"),
        ("mqtt://host/", {"version": "4"}, "version '4': expected 5 or 3.1.1"),
        ("mqtt://host/", {"tls": Tls()}, "certificates are for mqtts://"),
        ("mqtts://host/", {"tls": Tls("/nowhere.pem")}, "nowhere.pem cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_without_secrets(url: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ReceiverError, match=says) as raised:
        MqttReceiver(url, **options)
    assert "geheim" not in str(raised.value)


def test_addresses() -> None:
    assert MqttReceiver("mqtt://me@host").address == "mqtt://host:1883/musc-edge"
    assert MqttReceiver("mqtts://[::1]/a%20b/c/").address == "mqtts://[::1]:8883/a b/c"
    assert stable_id("a") == stable_id("a") != stable_id("b")
    assert len(stable_id("a")) <= 23  # what every broker takes


def test_a_missing_extra_is_named() -> None:
    with (
        mock.patch.dict(sys.modules, {"paho": None, "paho.mqtt": None, "paho.mqtt.client": None}),
        pytest.raises(DeviceError, match=r"pip install 'musc-edge\[mqtt\]'"),
    ):
        MqttReceiver("mqtt://host")
