from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from musc_edge.runtime.errors import ReceiverError
from musc_edge.runtime.line.delivery import Delivery
from musc_edge.runtime.line.receiver import RefusedError, UnreachableError
from musc_edge.runtime.line.result_log import Entry, ResultLog
from musc_edge.runtime.line.tls import Tls
from musc_edge.runtime.line.webhook import WebhookReceiver
from support.http_receiver import HttpReceiver
from support.told import SOON, add, until

SECRET_BYTES = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(SECRET_BYTES).decode()}"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ResultLog]:
    with ResultLog(tmp_path / "out") as log:
        yield log


@pytest.fixture
def entry(log: ResultLog) -> Entry:
    add(log)
    return log.last(1)[0]


def test_a_result_is_posted_with_its_id(entry: Entry) -> None:
    with HttpReceiver() as server:
        WebhookReceiver(f"{server.url}/hook?key=5").tell(entry)
    (post,) = server.posts
    assert post.content == entry.content()
    assert post.path == "/hook?key=5"
    assert post.headers["Content-Type"] == "application/json"
    assert post.headers["Idempotency-Key"] == post.headers["webhook-id"] == entry.event
    assert "webhook-signature" not in post.headers
    assert "Authorization" not in post.headers


def test_a_signed_result_is_what_the_standard_says(entry: Entry) -> None:
    with HttpReceiver() as server:
        WebhookReceiver(server.url, "token", SECRET).tell(entry)
    (post,) = server.posts
    signed = f"{entry.event}.{post.headers['webhook-timestamp']}.".encode() + post.body
    mac = hmac.new(SECRET_BYTES, signed, hashlib.sha256).digest()
    assert post.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    assert post.headers["Authorization"] == "Bearer token"


@pytest.mark.parametrize(
    ("status", "headers", "error", "says"),
    [
        (500, {}, UnreachableError, "answered 500 Internal Server Error, said"),
        (401, {}, UnreachableError, "answered 401 Unauthorized, said"),
        (404, {}, UnreachableError, "answered 404 Not Found, said"),
        (400, {}, RefusedError, "answered 400 Bad Request, said"),
        (422, {}, RefusedError, "answered 422"),
        (413, {}, RefusedError, "answered 413"),
        (302, {"Location": "http://elsewhere:5/x?secret"}, UnreachableError,
            "answered 302, a redirect to elsewhere:5, which is not followed"),
        (308, {"Location": "/other"}, UnreachableError, "answered 308, a redirect, which is not followed"),
        (HttpReceiver.RESET, {}, UnreachableError, "cannot be reached: Connection reset by peer"),
        (HttpReceiver.NOISE, {}, UnreachableError, "did not answer in HTTP"),
    ],
)  # fmt: skip
def test_what_an_answer_means(
    entry: Entry, status: int, headers: dict[str, str], error: type[Exception], says: str
) -> None:
    with HttpReceiver((status, headers)) as server, pytest.raises(error) as raised:
        WebhookReceiver(server.url).tell(entry)
    assert str(raised.value).startswith(says)
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 10**9, 10**11),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
        ("9" * 500, 10**9, 10**12),
    ],
)
def test_a_busy_server_says_when_to_come_again(entry: Entry, asked: str, least: float, most: float) -> None:
    with HttpReceiver((429, {"Retry-After": asked})) as server, pytest.raises(UnreachableError) as raised:
        WebhookReceiver(server.url).tell(entry)
    assert least <= raised.value.after <= most


def test_a_server_that_hangs_is_given_up(entry: Entry) -> None:
    with HttpReceiver(HttpReceiver.HANG) as server, pytest.raises(UnreachableError) as raised:
        WebhookReceiver(server.url, timeout=0.05).tell(entry)
    assert str(raised.value) == "did not answer within 0.05 s"


def test_nobody_there(entry: Entry) -> None:
    with HttpReceiver() as server:
        pass
    with pytest.raises(UnreachableError, match="cannot be reached: Connection refused"):
        WebhookReceiver(server.url).tell(entry)


def test_tls_trusts_the_ca_that_is_named(entry: Entry, certificates: Path) -> None:
    with HttpReceiver(certificates=certificates) as server:
        WebhookReceiver(server.url, tls=Tls(certificates / "ca.pem")).tell(entry)
        for tls in (Tls(), Tls(certificates / "other.pem")):
            with pytest.raises(UnreachableError, match=r"cannot be reached: .*certificate"):
                WebhookReceiver(server.url, tls=tls).tell(entry)
    assert len(server.posts) == 1
    with (
        HttpReceiver(certificates=certificates, name="client") as server,
        pytest.raises(UnreachableError, match=r"IP address mismatch.*127\.0\.0\.1"),
    ):
        WebhookReceiver(server.url, tls=Tls(certificates / "ca.pem")).tell(entry)


def test_proxies_are_taken_from_the_environment(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpReceiver() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        WebhookReceiver("http://far.invalid/hook").tell(entry)
    assert proxy.posts[0].path == "http://far.invalid/hook"


def test_results_arrive_with_one_id_whatever_the_server_does(log: ResultLog) -> None:
    answers = [500, HttpReceiver.RESET, (429, {"Retry-After": "0"}), HttpReceiver.NOISE, 204, 400, 400]
    with HttpReceiver(*answers) as server:  # type: ignore[arg-type]
        receiver = WebhookReceiver(server.url)
        with Delivery(log, receiver, "all", 0, SOON, lambda line: None) as delivery:
            events = add(log, count=3)
            until(lambda: delivery.status().behind == 0, "all are delivered")
    assert server.events() == [events[0]] * 5 + [events[1]] * 3 + [events[2]]
    assert len({post.body for post in server.posts[:5]}) == 1


def test_what_was_taken_before_a_reset_comes_again_with_its_id(log: ResultLog) -> None:
    with (
        HttpReceiver(HttpReceiver.RESET) as server,
        Delivery(log, WebhookReceiver(server.url), "all", 0, SOON, lambda line: None),
    ):
        (event,) = add(log)
        until(lambda: len(server.posts) == 2, "it comes again")
    assert server.events() == [event, event]


def test_a_server_that_is_away_gets_all_of_it_later(log: ResultLog) -> None:
    with HttpReceiver() as server:
        receiver = WebhookReceiver(server.url)
    with Delivery(log, receiver, "reject", 0, SOON, lambda line: None) as delivery:
        events = add(log, count=10)
        until(lambda: delivery.status().error, "it is missed")
        server.reopen()
        with server:
            until(lambda: delivery.status().behind == 0, "all are delivered")
    assert server.events() == events


def test_heartbeats_are_posts_of_their_own(log: ResultLog) -> None:
    with HttpReceiver() as server:
        with Delivery(log, WebhookReceiver(server.url), "all", 60, SOON):
            until(lambda: server.posts, "it lives")
        (post,) = server.posts
    assert post.content["state"] == "online"
    assert post.headers["webhook-id"].startswith("state-")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "ftp://host/x"}, "begins with 'ftp'"),
        ({"url": "https:///path"}, "expected https://HOST/PATH"),
        ({"url": "http://host:port/"}, "cannot be used"),
        ({"url": "http://host/a b"}, "expected https://HOST/PATH"),
        ({"url": "http://me:geheim@host/"}, "holds a user or a password"),
        ({"token": "two\nlines"}, "expected one line of ASCII"),
        ({"secret": "geheim"}, "expected whsec_ and 24 to 64 bytes in base64"),
        ({"secret": "whsec_c2hvcnQ="}, "expected whsec_ and 24 to 64 bytes"),
        ({"tls": Tls("/nowhere.pem")}, r"/nowhere\.pem cannot be used: No such file"),
        ({"tls": Tls(__file__)}, "it holds no certificate"),
        ({"tls": Tls(key="k.pem")}, "give the certificate too"),
    ],
)
def test_what_cannot_be_used_is_said_without_secrets(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ReceiverError, match=says) as raised:
        WebhookReceiver(**{"url": "https://host/hook", **options})
    assert "geheim" not in str(raised.value)
    assert WebhookReceiver("https://host:5/hook?key=geheim").address == "https://host:5"
