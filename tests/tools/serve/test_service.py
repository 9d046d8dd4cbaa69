"""Queues, hangs, clients that go away, devices that fail: in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from unittest import mock

import pytest
import uvicorn
from PIL import Image

from musc_edge import Checker
from musc_edge.runtime.errors import DeviceError, OutputError
from musc_edge.runtime.line.station import Station
from musc_edge.tools.serve import connections, service
from musc_edge.tools.serve.bodies import Intake
from musc_edge.tools.serve.connections import Connection
from musc_edge.tools.serve.guard import Guard
from musc_edge.tools.serve.recent import MemoryLog, Picture, Pictures
from musc_edge.tools.serve.server import Settings, make_app
from support.asgi import ask, run, until
from support.served import Answer, encoded

PLACES = 3
IMAGE = encoded(1)


@dataclass
class Line:
    """An application within the loop; ``open`` lets its decoders go on, ``checks`` its checks."""

    app: Guard
    service: service.Service
    log: MemoryLog
    intake: Intake
    open: Event = field(default_factory=Event)
    checks: Event = field(default_factory=Event)

    async def check(self, body: bytes = IMAGE, query: str = "", **options: Any) -> Answer:
        headers = {"content-type": "image/png", **options.pop("headers", {})}
        return await ask(self.app, "POST", f"/v1/check{query}", [body], headers, **options)

    async def get(self, path: str) -> Answer:
        return await ask(self.app, "GET", path)


def in_line(checker: Checker, work: Callable[[Line], Coroutine[Any, Any, None]], **intake: Any) -> None:
    """Do ``work`` with an application of a checker whose decoders and checks can be held."""

    async def begin() -> None:
        log = MemoryLog()
        limits = Intake(**{"most": 10**6, "seconds": 300, "room": 10**7, **intake})
        stations = {"part": Station("part", checker, log)}
        app, made = make_app(stations, log, limits, Settings(places=PLACES, seconds=300))
        line = Line(app, made, log, limits)
        with held(line):
            try:
                await work(line)
            finally:
                line.open.set()
                line.checks.set()
                await until(lambda: line.service.queued == 0)

    run(begin())


@contextmanager
def held(line: Line) -> Iterator[None]:
    """Hold the decoding of what begins with HOLD, and the checks of images called hold."""
    read, record = service._read, service._record

    def slow_read(job: service.Job, room: Any) -> Image.Image:
        if job.body.path.read_bytes().startswith(b"HOLD"):
            line.open.wait()
        return read(job, room)

    def slow_record(job: service.Job, picture: Image.Image) -> Any:
        if job.name == "hold":
            line.checks.wait()
        return record(job, picture)

    with mock.patch.object(service, "_read", slow_read), mock.patch.object(service, "_record", slow_record):
        yield


def test_a_full_queue_says_when_to_come_again(checker: Checker) -> None:
    async def work(line: Line) -> None:
        waiting = [asyncio.create_task(line.check(b"HOLD")) for _ in range(PLACES)]
        await until(lambda: line.service.queued == PLACES)
        refused = await line.check()
        assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
        assert (await line.get("/health")).status == 200  # they are not late yet
        line.open.set()
        assert [(await task).status for task in waiting] == [422] * PLACES
        assert (await line.check()).status == 200

    in_line(checker, work)


def test_a_decoder_that_hangs_holds_up_nobody_else(checker: Checker) -> None:
    async def work(line: Line) -> None:
        line.service.seconds = 0.02
        assert (await line.check(b"HOLD")).status == 504
        line.service.seconds = 300
        assert (await line.check()).status == 200
        line.service.seconds = 0.02
        assert [(await line.check(b"HOLD")).status for _ in range(PLACES - 1)] == [504] * (PLACES - 1)
        health = await line.get("/health/ready")
        assert (health.status, "restart" in health.json()["reason"]) == (503, True)
        assert (await line.get("/health/live")).status == 200
        assert (await line.check()).status == 503
        line.open.set()
        await until(lambda: line.service.queued == 0)
        assert (await line.get("/health")).status == 200

    in_line(checker, work)


def test_who_goes_away_while_waiting_is_dropped(checker: Checker) -> None:
    async def work(line: Line) -> None:
        gone = asyncio.Event()
        first = asyncio.create_task(line.check(query="?name=hold"))
        await until(line.service._turn.locked)
        second = asyncio.create_task(line.check(gone=gone))
        await until(lambda: any(job.waiting for job in line.service._jobs))
        gone.set()
        assert (await second).status == 499
        await until(lambda: line.service.queued == 1)
        line.checks.set()
        assert (await first).status == 200
        assert [entry.facts["image"] for entry in line.log.last(9)] == ["hold"]

    in_line(checker, work)


def test_who_goes_away_while_decoding_is_dropped_after_it(checker: Checker) -> None:
    async def work(line: Line) -> None:
        gone = asyncio.Event()
        task = asyncio.create_task(line.check(b"HOLD", gone=gone))
        await until(lambda: line.service.queued == 1)
        gone.set()
        assert (await task).status == 499
        line.open.set()
        await until(lambda: line.service.queued == 0)
        assert line.log.last(9) == []

    in_line(checker, work)


def test_a_repetition_takes_over_from_one_that_went_away(checker: Checker) -> None:
    async def work(line: Line) -> None:
        gone, key = asyncio.Event(), {"idempotency-key": "k"}
        holder = asyncio.create_task(line.check(query="?name=hold"))
        await until(line.service._turn.locked)
        first = asyncio.create_task(line.check(headers=key, gone=gone))
        second = asyncio.create_task(line.check(headers=key))
        await until(lambda: sum(job.waiting for job in line.service._jobs) == 2)
        gone.set()
        assert (await first).status == 499
        line.checks.set()
        assert ((await second).status, (await holder).status) == (200, 200)
        assert len(line.log.last(9)) == 2
        assert not line.service._keys._locks

    in_line(checker, work)


def test_a_body_that_comes_too_slowly(checker: Checker) -> None:
    async def work(line: Line) -> None:
        answer = await line.check(stalls=True, headers={"content-length": "5000"})
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert line.intake._held == 0

    with mock.patch("musc_edge.tools.serve.guard.LINGER", 0.01):
        in_line(checker, work, seconds=0.02)


def test_a_client_that_goes_away_in_its_body(checker: Checker) -> None:
    async def work(line: Line) -> None:
        gone = asyncio.Event()
        gone.set()
        assert (await line.check(stalls=True, gone=gone)).status == 499
        assert (line.intake._held, line.log.last(9)) == (0, [])

    in_line(checker, work)


def test_bodies_share_their_room(checker: Checker) -> None:
    async def work(line: Line) -> None:
        gone = asyncio.Event()
        first = asyncio.create_task(line.check(bytes(3000), stalls=True, gone=gone))
        await until(lambda: line.intake._held == 3000)
        assert (await line.check(bytes(3000))).status == 503
        gone.set()
        await first
        assert (await line.check()).status == 200

    in_line(checker, work, room=5000)


@pytest.mark.parametrize(
    ("error", "status"), [(DeviceError("it broke"), 500), (OutputError("disk full"), 507)]
)
def test_a_device_that_fails_is_told_until_it_works(checker: Checker, error: Exception, status: int) -> None:
    async def work(line: Line) -> None:
        with mock.patch.object(service, "_record", side_effect=error):
            answer = await line.check()
        assert (answer.status, answer.json()) == (status, {"error": str(error)})
        health = await line.get("/health")
        assert (health.status, health.json()["reason"]) == (503, str(error))
        kind = type(error).__name__
        assert f'musc_edge_errors_total{{kind="{kind}"}} 1.0' in (await line.get("/metrics")).body.decode()
        assert (await line.check()).status == 200
        assert (await line.get("/health")).status == 200

    in_line(checker, work)


def test_the_check_that_hangs_is_told(checker: Checker) -> None:
    async def work(line: Line) -> None:
        first = asyncio.create_task(line.check(query="?name=hold"))
        await until(line.service._turn.locked)
        line.service.seconds = 0.02
        assert (await line.check()).status == 504  # waits for its turn, and no thread for it
        await until(lambda: line.service.queued == 1)
        health = await line.get("/health")
        assert (health.status, "restart" in health.json()["reason"]) == (503, True)
        line.service.seconds = 300
        line.checks.set()
        assert (await first).status == 200
        assert (await line.check()).status == 200

    in_line(checker, work)


def test_an_error_of_our_own_is_500_without_its_words(checker: Checker) -> None:
    async def work(line: Line) -> None:
        with (
            mock.patch.object(service, "_record", side_effect=ZeroDivisionError("secret")),
            pytest.raises(ZeroDivisionError),  # to uvicorn, which logs it
        ):
            await line.check()

    in_line(checker, work)


def test_witnesses_facts_are_recorded_and_drift_is_counted(checker: Checker) -> None:
    class Drift:
        def see(self, check: object, image: object, key: bytes | None) -> Mapping[str, Any]:
            return {"drift": {"state": "changed", "since": 1, "what": ["darker"]}}

    async def work(line: Line) -> None:
        station = Station("part", checker, line.log, (Drift(),))
        line.service.stations["part"] = station  # type: ignore[index]
        assert (await line.check()).json()["drift"]["state"] == "changed"
        text = (await line.get("/metrics")).body.decode()
        assert 'musc_edge_drift{reference="part",state="changed"} 1.0' in text
        assert 'musc_edge_drift{reference="part",state="steady"} 0.0' in text

    in_line(checker, work)


# ---- what is kept ----------------------------------------------------------------------------


def test_the_log_in_memory_forgets_the_oldest() -> None:
    log = MemoryLog(keep=2)
    first, second, third = (log.add({"k": k}, "part", b"%d" % k) for k in range(3))
    assert (log.last(9), log.after(1, 9)) == ([third, second], [second, third])
    assert (log.find(b"0"), log.find(b"2")) == (None, third)
    assert (first.id, third.id, log.last(1, "other")) == (1, 3, [])
    with pytest.raises(KeyError):
        log.add({}, "part", b"2")
    assert len(log._keys) == 2


def test_pictures_are_kept_of_the_last(checker: Checker) -> None:
    pictures = Pictures(keep=2)
    for number in range(5):
        pictures.add(number, mock.Mock(spec=Picture))
    assert [number for number in range(5) if pictures.get(number)] == [3, 4]


# ---- connections -----------------------------------------------------------------------------


async def _nothing(scope: object, receive: object, send: object) -> None: ...


def connected(work: Callable[[Connection, mock.Mock], Coroutine[Any, Any, None]]) -> None:
    """A connection with a transport that notes what is done to it."""

    async def begin() -> None:
        config = uvicorn.Config(_nothing, http=Connection, log_config=None, lifespan="off")
        config.load()
        state = uvicorn.server.ServerState()
        connection, transport = Connection(config, state, {}), mock.Mock()
        transport.get_extra_info.return_value = None
        connection.connection_made(transport)
        await work(connection, transport)
        connection.connection_lost(None)

    run(begin())


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nA:"])
def test_a_head_that_does_not_come(sent: bytes) -> None:
    async def work(connection: Connection, transport: mock.Mock) -> None:
        if sent:
            connection.data_received(sent)
        await until(lambda: transport.abort.called)

    with mock.patch.object(connections, "HEAD_SECONDS", 0.01):
        connected(work)


def test_an_answer_that_is_not_read() -> None:
    async def work(connection: Connection, transport: mock.Mock) -> None:
        connection.pause_writing()
        await until(lambda: transport.abort.called)

    with mock.patch.object(connections, "READ_SECONDS", 0.01):
        connected(work)


def test_a_request_in_work_is_no_late_head() -> None:
    async def work(connection: Connection, transport: mock.Mock) -> None:
        connection.cycle = mock.Mock(response_complete=False)
        connection._head_is_late()
        assert not transport.abort.called

    connected(work)
