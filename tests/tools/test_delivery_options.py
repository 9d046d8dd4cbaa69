from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from musc_edge import Check
from musc_edge.runtime.errors import MuscEdgeError, ReceiverError
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.line.station import Station
from musc_edge.tools.delivery_options import add_delivery, delivery
from musc_edge.tools.usage import Parser, UsageError
from support.brokers import Broker, Subscriber
from support.http_receiver import HttpReceiver
from support.told import add, until

SECRET = "whsec_" + "c2VjcmV0" * 4


def parse(*options: object) -> Namespace:
    parser = Parser(prog="musc-edge watch")
    add_delivery(parser)
    return parser.parse_args([str(each) for each in options])


class Checks:
    """Gives each image the verdict that its name is."""

    def check(self, image: object, name: str) -> Check:
        return Check(name, "ok", 0.5, 0.1, name) if name else Check(name, "unreadable", error="no image")


@pytest.mark.usefixtures("mosquitto")
def test_a_station_tells_a_broker_and_a_server(tmp_path: Path) -> None:
    """As ``musc-edge watch`` and ``serve`` do it."""
    with (
        Broker(tmp_path / "broker") as broker,
        Subscriber(broker.port) as heard,
        HttpReceiver() as server,
        ResultLog(tmp_path / "out") as log,
    ):
        options = ["--mqtt", f"mqtt://localhost:{broker.port}/line", "--webhook", f"{server.url}/hook"]
        with delivery(parse(*options), log) as deliveries:
            station = Station("part42", Checks(), log)  # type: ignore[arg-type]
            for verdict in ("reject", "not flagged", ""):
                station.check("a.png", verdict)
            until(lambda: all(each.status().behind == 0 for each in deliveries), "all are delivered")
        heard.until(lambda: heard.states() == ["online", "offline"])
        told = [entry for entry in log.after(0, 9) if entry.facts["verdict"] != "not flagged"]
    assert [entry.facts["verdict"] for entry in told] == ["reject", ""]
    assert heard.results() == [entry.id for entry in told]
    assert [post.content for post in server.posts] == [entry.content() for entry in told]


def test_nothing_is_told_without_options(tmp_path: Path) -> None:
    with ResultLog(tmp_path / "out") as log, delivery(parse(), log) as deliveries:
        assert deliveries == ()


def test_secrets_come_from_files_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("my token\n")
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("MUSC_EDGE_WEBHOOK_TOKEN", "another")
    with HttpReceiver() as server, ResultLog(tmp_path / "out") as log:
        for options in (
            ["--webhook-token-file", tmp_path / "token", "--webhook-secret-file", tmp_path / "secret"],
            ["--tell", "all"],
        ):
            posts = len(server.posts)
            with delivery(parse("--webhook", server.url, *options), log):
                add(log)
                until(lambda before=posts: len(server.posts) > before, "it is told")  # type: ignore[misc]
    first, second = server.posts
    assert first.headers["Authorization"] == "Bearer my token"
    assert first.headers["webhook-signature"].startswith("v1,")
    assert second.headers["Authorization"] == "Bearer another"
    said = capsys.readouterr().err
    assert "the token goes over the network as it is; https:// hides it" in said
    assert "my token" not in said


def test_secrets_come_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "webhook-token").write_text("of systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with (
        HttpReceiver() as server,
        ResultLog(tmp_path / "out") as log,
        delivery(parse("--webhook", server.url), log),
    ):
        add(log)
        until(lambda: server.posts, "it is told")
    (post,) = server.posts
    assert post.headers["Authorization"] == "Bearer of systemd"


def test_events_need_a_log_on_the_disk() -> None:
    with (
        pytest.raises(UsageError, match="give -o OUT too"),
        delivery(parse("--webhook", "http://h"), object()),
    ):
        pass


def test_heartbeats_go_to_a_webhook_only_if_asked_for(tmp_path: Path) -> None:
    with HttpReceiver() as server, ResultLog(tmp_path / "out") as log:
        with delivery(parse("--webhook", server.url), log) as (only,):
            add(log)
            until(lambda: only.status().behind == 0, "it is told")
        with delivery(parse("--webhook", server.url, "--heartbeat", "30"), log):
            until(lambda: len(server.posts) == 2, "it lives")
    assert ["state" in post.content for post in server.posts] == [False, True]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (["--mqtt-ca", "x.pem"], UsageError, "--mqtt-ca belongs to --mqtt URL, which is not given"),
        (["--webhook-token-file", "x"], UsageError, "--webhook-token-file belongs to --webhook URL"),
        (["--webhook", "http://x", "--webhook-token-file", "none"], UsageError, "none cannot be read: No"),
        (["--webhook", "http://x", "--webhook-token-file", "empty"], UsageError, "empty holds no secret"),
        (["--webhook", "http://x", "--webhook-token-file", "two"], UsageError, "two holds more than a line"),
        (["--webhook", "http://x", "--webhook-token-file", "bytes"], UsageError, "it is no text in UTF-8"),
        (["--webhook", "x"], ReceiverError, "expected https://HOST/PATH"),
        (["--mqtt", "mqtt://h/", "--mqtt-cert", "none"], ReceiverError, "certificates are for mqtts://"),
        (["--mqtt", "mqtts://h/", "--mqtt-cert", "none"], ReceiverError, "none cannot be used: No such file"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], error: type[MuscEdgeError], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("empty", b"\n"), ("two", b"a\nb"), ("bytes", b"\xff")):
        (tmp_path / name).write_bytes(content)
    with ResultLog(tmp_path / "out") as log, pytest.raises(error) as raised, delivery(parse(*options), log):
        pass
    assert says in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_a_heartbeat_is_a_number_of_seconds(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--heartbeat", given)
    assert "expected a number of seconds such as 60" in capsys.readouterr().err
