"""Images over HTTP: the same results as ``musc-edge check``, recorded once, shown and counted."""

from __future__ import annotations

import io
import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from musc_edge import Checker
from musc_edge.runtime.reference.check_facts import check_facts
from musc_edge.runtime.scoring.anomaly_map import upsample
from support.references import BUNDLE
from support.served import PATIENCE, Answer, Server, encoded, form, read_all, serving

OURS = {"id", "event", "time", "reference", "sha256", "seconds", "links", "drift"}


def facts(answer: Answer) -> dict[str, Any]:
    """What ``check_facts`` says, of an answer."""
    return {name: value for name, value in answer.json().items() if name not in OURS}


def log_of(server: Server) -> list[dict[str, Any]]:
    arguments = server.process.args
    assert isinstance(arguments, list)
    out = Path(arguments[arguments.index("-o") + 1])
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG", "JPEG2000"])
def test_a_picture_is_what_check_makes_of_the_file(
    server: Server, checker: Checker, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "part.img"
    path.write_bytes(encoded(99, spot=120, kind=kind))
    expected = json.loads(json.dumps(check_facts(checker.check(path, "part.img"))))
    sent = server.check(path.read_bytes(), "/v1/check?name=part.img", content_type=f"image/{kind.lower()}")
    in_form = server.check(
        form(path.read_bytes(), "part.img"), content_type="multipart/form-data; boundary=xx"
    )
    assert (sent.status, facts(sent)) == (200, expected)
    assert (in_form.status, facts(in_form)) == (200, expected)


@pytest.mark.parametrize(
    ("content", "name", "status"),
    [
        (b"", "", "unreadable"),
        (b"not an image", "", "unreadable"),
        (encoded(1)[:-40], "", "unreadable"),
        (b"P5 60000 60000 255\n" + bytes(100), "", "too_large"),
        (b"\x1f\x8b\x08" + bytes(50), "", "unsupported"),
        (encoded(1), "photo.nef", "unsupported"),
    ],
)
def test_what_is_no_image_is_a_result_with_its_reason(
    server: Server, checker: Checker, tmp_path: Path, content: bytes, name: str, status: str
) -> None:
    path = tmp_path / (name or "x")
    path.write_bytes(content)
    answer = server.check(content, f"/v1/check?name={name}")
    assert (answer.status, answer.json()["status"]) == (422, status)
    assert answer.json()["error"] == checker.check(path, name or "x").error
    assert log_of(server)[-1]["id"] == answer.json()["id"]
    assert set(answer.json()["links"]) == {"result"}


def test_a_repeated_request_gets_the_first_answer(server: Server) -> None:
    before = len(log_of(server))
    first = server.check(encoded(3), idempotency_key="one")
    again = server.check(encoded(3), idempotency_key="one")
    other = server.check(encoded(4), idempotency_key="one")
    assert (first.status, first.body) == (200, again.body)
    assert (other.status, other.json()["error"][:45]) == (
        409,
        "this Idempotency-Key was used for another ima",
    )
    assert len(log_of(server)) == before + 1


def test_requests_with_one_key_at_once_are_one_result(server: Server) -> None:
    before, image = len(log_of(server)), encoded(5)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.check(image, idempotency_key="same"), range(6)))
    assert len({answer.body for answer in answers}) == 1
    assert len(log_of(server)) == before + 1


def test_many_clients_get_each_their_own_result(server: Server, checker: Checker, tmp_path: Path) -> None:
    before = len(log_of(server))
    images = [encoded(seed) for seed in range(40, 52)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(server.check, images))
    for image, answer in zip(images, answers, strict=True):
        (tmp_path / "x.png").write_bytes(image)
        assert answer.json()["raw_score"] == check_facts(checker.check(tmp_path / "x.png"))["raw_score"]
    assert sorted(answer.json()["id"] for answer in answers) == list(range(before + 1, before + 13))


def test_the_map_and_the_pictures_of_a_result(server: Server, checker: Checker, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(encoded(99, spot=120))
    check = checker.check(tmp_path / "bad.png")
    links = server.check(encoded(99, spot=120)).json()["links"]
    codes = np.asarray(Image.open(io.BytesIO(server.get(links["map"]).body)))
    assert check.map is not None
    values = upsample(check.map[None], checker.bundle.manifest.preprocess.size)[0]
    assert codes.dtype == np.uint16
    np.testing.assert_allclose(codes * 2 / 65535, values, atol=2 / 65535)
    assert codes.max() * 2 / 65535 == pytest.approx(check.raw_score, abs=2 / 65535)
    for name in ("overlay", "preview"):
        answer = server.get(links[name])
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.body)).size[0] == 40
    result = server.get(links["result"]).json()
    assert (result["verdict"], result["links"]) == ("reject", links)
    missing = server.get("/v1/results/999999/map.png")
    assert (missing.status, missing.json()["error"][:34]) == (404, "there is no picture of result 9999")


def test_the_last_results_and_the_counts(server: Server) -> None:
    first, second = (server.check(encoded(seed)).json() for seed in (6, 7))
    recent = server.get(f"/v1/recent?after={first['id']}&reference=part").json()
    assert recent["results"] == [second]
    assert recent["references"][0]["reject_above"] > 0
    text = server.get("/metrics").body.decode()
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    checked = sum(
        float(value) for name, value in counted.items() if name.startswith("musc_edge_images_total{")
    )
    assert checked == len(log_of(server))
    assert counted["musc_edge_queue"] == "0.0"
    assert 'musc_edge_requests_total{method="POST",route="/v1/check",status="200"}' in counted
    assert server.get("/health").json() == {"live": True, "ready": True, "reason": "", "events": []}


def test_the_log_has_a_line_for_each_request_and_no_secret(server: Server) -> None:
    image = server.check(encoded(8), "/v1/check?name=secret-name", authorization="Bearer secret-token").json()
    server.get("/nothing%0Ahere")
    server.get("/health")
    lines = server.log.read_text(encoding="utf-8").splitlines()
    (mine,) = [line for line in lines if f"id={image['id']} " in line]
    assert "127.0.0.1 POST /v1/check 200 " in mine
    assert 'reference="part"' in mine
    assert any(" GET /nothing%0Ahere 404 " in line for line in lines)
    assert "secret" not in "".join(lines)


@pytest.mark.long
def test_results_outlive_the_program(made: Path, tmp_path: Path, commands: Path) -> None:
    """SIGTERM ends with 0, ctrl-C with 130; the next one knows the keys, and two references share a ViT."""
    given = [f"{name}={made / 'ref'}" for name in ("left", "right")]
    options = ["--reference", given[0], "--reference", given[1], "-b", BUNDLE, "-o", tmp_path / "out"]
    answers = []
    patient = "import musc_edge.tools.serve.server as server; server.GRACE = 300"
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        with serving(*options, "--log-json", before=patient) as server:
            path = "/v1/references/{}/check"
            answers.append(
                [
                    server.check(encoded(9), path.format(name), idempotency_key="k")
                    for name in ("left", "right")
                ]
            )
            assert server.check(encoded(9)).status == 404
            unknown = server.check(encoded(9), path.format("..%2Fleft"))
            assert (unknown.status, "/v1/check" in server.get("/openapi.json").json()["paths"]) == (
                404,
                False,
            )
            assert finished_after(number, server, encoded(10)) == (200, code)
            last = json.loads(server.log.read_text(encoding="utf-8").splitlines()[-1])
            assert (last["path"], last["status"]) == ("/v1/references/left/check", 200)
    assert [a.body for a in answers[0]] == [a.body for a in answers[1]]
    assert [a.json()["reference"] for a in answers[0]] == ["left", "right"]
    assert answers[0][0].json()["raw_score"] == answers[0][1].json()["raw_score"]
    assert len((tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 4


def finished_after(number: int, server: Server, image: bytes) -> tuple[int, int]:
    """Status of a request whose body comes after a signal, once nobody else is let in, and the exit code."""
    head = (
        f"POST /v1/references/left/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(image)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(server.host, timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(number)
        refused = False
        while not refused:
            try:
                socket.create_connection(server.host, timeout=PATIENCE).close()
            except (ConnectionRefusedError, ConnectionResetError):
                refused = True
        connection.sendall(image)
        answer = read_all(connection)
    return int(answer.split()[1]), server.process.wait(PATIENCE)
