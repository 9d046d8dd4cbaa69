"""Requests that are malformed, too large, too many, or someone else's."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.references import BUNDLE
from support.served import MOST, Server, encoded, form, read_all, serving

HEAD = b"POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
IMAGE = encoded(1)
FORM = {"content_type": "multipart/form-data; boundary=xx"}


@pytest.fixture(autouse=True)
def still_well(server: Server) -> Iterator[None]:
    """After each attack the server checks an image, has an empty queue, and has not lost its mind."""
    yield
    assert server.check(encoded(2)).status == 200
    assert b"musc_edge_queue 0.0" in server.get("/metrics").body
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def status(answer: bytes) -> int:
    """Of the first answer on a connection; 0 if there is none."""
    found = re.match(rb"HTTP/1\.1 (\d+) ", answer)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "it ends before its last boundary"),
        (b"no form at all", "malformed form"),
        (form(IMAGE)[:-9], "it ends before its last boundary"),
        (form(IMAGE, boundary="yy"), "malformed form"),
        (b"--xx--\r\n", "form"),
        (b'--xx\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--xx--\r\n', "0 files"),
        (form(IMAGE)[: -len("--xx--\r\n")] + form(IMAGE), "more than one file"),
        (b"--xx\r\nX: " + b"a" * 20_000 + b"\r\n\r\n\r\n--xx--\r\n", "form"),
        (b"--xx\r\n" + b"A: b\r\n" * 20_000 + b"\r\n\r\n--xx--\r\n", "form"),
        (form(IMAGE, name="../../etc/passwd"), "no folders"),
        (form(IMAGE, name="a\x00b"), "no control"),
    ],
)
def test_malformed_forms(server: Server, body: bytes, says: str) -> None:
    answer = server.check(body, **FORM)
    assert (answer.status, says in answer.json()["error"]) == (400, True), answer


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 500],
)
def test_forms_without_a_boundary(server: Server, kind: str) -> None:
    assert server.check(form(IMAGE), content_type=kind).status == 400


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "a\\b", "%00", "a%0Ab", "x" * 201, "a.", "%2e%2e"])
def test_names_that_could_be_paths(server: Server, name: str) -> None:
    assert server.check(IMAGE, f"/v1/check?name={name}").status == 400


@pytest.mark.parametrize(
    "query",
    ["count=NaN", "count=0", "count=-1", "count=1e3", "count=1001", "count=" + "9" * 5000, "count=",
     "after=inf", "count=%D9%A3",
     "count=1&count=2", "nothing=1", "after=" + "9" * 17],
)  # fmt: skip
def test_numbers_that_are_none(server: Server, query: str) -> None:
    assert server.get(f"/v1/recent?{query}").status == 400


@pytest.mark.parametrize(
    "number", ["0", "-1", "NaN", "1.5", "9" * 5000, "%00", "..%2f..%2fetc%2fpasswd", "%D9%A3"]
)
def test_results_that_are_none(server: Server, number: str) -> None:
    assert server.get(f"/v1/results/{number}").status in (400, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/page/../command.py",
        "/page/..%2fcommand.py",
        "/page//etc/passwd",
        "//recent",
        "/page/recent.html",
        "/recent/",
    ],
)
def test_paths_that_lead_elsewhere(server: Server, path: str) -> None:
    assert server.get(path).status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "BREW", "get"])
def test_other_methods(server: Server, method: str) -> None:
    answer = server.ask(method, "/v1/check")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "text/html"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"idempotency_key": ""}, 400),
        ({"idempotency_key": "x" * 256}, 400),
        ({"idempotency_key": "a b"}, 400),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:80"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_headers_that_do_not_fit(server: Server, headers: dict[str, str], expected: int) -> None:
    answer = server.check(IMAGE, **headers)
    assert (answer.status, set(answer.json())) == (expected, {"error"})


@pytest.mark.parametrize(
    "host", ["localhost:1", "LOCALHOST.", "127.0.0.1", "[::1]:80", "10.1.2.3:8080", socket.gethostname()]
)
def test_names_of_this_machine(server: Server, host: str) -> None:
    assert server.get("/v1/recent", host=host, origin=f"http://{host}").status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: +4\r\n\r\nabcd",
        b"Content-Length: 0x4\r\n\r\nabcd",
        b"Content-Length : 4\r\n\r\nabcd",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"Connection: close\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"Connection: close\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"A: b\r\n" * 60_000,
        b"A: b\0c\r\n\r\n",
        b"A: b\r\n folded\r\nContent-Length: 1 1\r\n\r\n",
        b"Host: localhost\r\n\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_heads_that_mean_two_things(server: Server, head: bytes) -> None:
    """One answer that refuses, and the connection is closed: nothing is taken for a second request."""
    answer = server.raw(HEAD + head)
    assert status(answer) in (0, 400, 413, 431, 501), answer
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\1\2\3",
        b"GET / HTTP/9.9",
        b"GET http://evil.example/ HTTP/1.1",
        b"GET / HTTP/1.1\nHost: x",
        b"\x16\x03\x01",
    ],
)
def test_lines_that_are_no_request(server: Server, line: bytes) -> None:
    assert status(server.raw(line + b"\r\nConnection: close\r\n\r\n")) in (0, 400, 421)


def test_too_large_is_said_before_it_is_read(server: Server) -> None:
    answer = server.raw(HEAD + b"Content-Length: 5000000000\r\n\r\n" + bytes(1000))
    assert (status(answer), b"the limit (--max-body)" in answer, b"connection: close" in answer) == (
        413,
        True,
        True,
    )
    answer = server.raw(HEAD + b"Content-Length: 5000000000\r\nExpect: 100-continue\r\n\r\n")
    assert (status(answer), b"100 Continue" in answer) == (413, False)


def test_too_large_is_found_in_chunks(server: Server) -> None:
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * (MOST // 0x10000 + 2))
    assert status(answer) == 413
    whole = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(IMAGE),
        IMAGE,
    )
    assert status(server.raw(whole)) == 200


def test_a_body_that_is_too_short(server: Server) -> None:
    """Its connection is closed by the client: nothing is checked."""
    before = server.get("/v1/recent?count=1").json()["results"][:1]
    with socket.create_connection(server.host) as connection:
        connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\n" + IMAGE[:100])
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)
    assert server.get("/v1/recent?count=1").json()["results"] == before


def test_a_body_on_what_takes_none(server: Server) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
    answer = server.raw(head + b"0123456789")
    assert (status(answer), answer.count(b"HTTP/1.1 ")) == (200, 1)


def test_requests_in_one_piece_are_answered_in_order(server: Server) -> None:
    ask = b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    answer = server.raw(ask % (b"/nix", b"") + ask % (b"/health", b"Connection: close\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"404", b"200"]


def test_a_flood_of_connections(server: Server) -> None:
    """Of more connections than may be, the last are told to come again; the first go on."""
    flood = [socket.create_connection(server.host, timeout=60) for _ in range(130)]
    try:
        told = [status(read_all(each)) for each in flood[105:]]
        assert set(told) <= {503, 0}
        assert 503 in told
        flood[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert status(read_all(flood[0])) == 200
    finally:
        for each in flood:
            each.close()


def test_a_token_and_tls(made: Path, tmp_path: Path, commands: Path) -> None:
    token = "0123456789abcdef-token"
    (tmp_path / "token").write_text(token + "\n", encoding="ascii")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = [
        "-subj",
        "/CN=localhost",
        "-days",
        "2",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]
    subprocess.run(
        ["openssl", "req", "-x509", *subject, "-out", cert, "-keyout", key], check=True, capture_output=True
    )
    options = ["--token-file", tmp_path / "token", "--tls-cert", cert, "--tls-key", key, "--host", "0.0.0.0"]
    with serving("--reference", f"part={made / 'ref'}", "-b", BUNDLE, *options) as server:
        assert server.address.startswith("https://")
        assert server.get("/health").status == 200
        for path in ("/", "/recent", "/metrics", "/openapi.json", "/v1/recent", "/v1/results/1", "/nothing"):
            answer = server.get(path)
            assert (answer.status, answer.headers["www-authenticate"][:5]) == (401, "Basic"), path
        for wrong in (
            "",
            "Bearer",
            "Bearer wrong",
            f"Bearer {token}x",
            f"Basic {token}",
            "Basic !!",
            "Basic Og==",
            f"Bearer {token[:-1]}",
        ):
            assert server.check(IMAGE, authorization=wrong).status == 401
        assert server.check(IMAGE, authorization=f"Bearer {token}").status == 200
        assert server.get("/recent", authorization="Basic dTowMTIzNDU2Nzg5YWJjZGVmLXRva2Vu").status == 200
        assert {"bearer": []} in server.get("/openapi.json", authorization=f"Bearer {token}").json()[
            "security"
        ]
        assert token not in server.log.read_text(encoding="utf-8")
        assert server.stop() == 0
