"""The routes of ``musc-edge serve``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ...runtime.errors import MuscEdgeError, OutputError
from ...runtime.line.delivery import Delivery
from ...runtime.line.drift import control_limits
from ...runtime.line.result_log import Entry
from ...runtime.line.station import Station
from ...runtime.reference.files import ReferenceFolder
from . import pages
from .bodies import Intake
from .metrics import Metrics
from .openapi import KEY_PATTERN, LONGEST_KEY, LONGEST_NAME, MOST_RESULTS, NAME_PATTERN, document
from .recent import KEPT_PICTURES, Picture
from .refused import ClientGoneError, RefusedError
from .service import Job, Service
from .threads import in_thread

_SHOWN = 60
_MOST_DIGITS = 15
_GONE = 499
"""Status, in the log alone, of a request whose client has gone (as nginx has it)."""


class Routes:
    """Answers requests.

    Parameters
    ----------
    service : Service
    intake : Intake
        What takes the bodies.
    metrics : Metrics
    with_token : bool
        Whether requests need a token, for what the pages say.
    deliveries : sequence of Delivery
        What tells others of results, for /health.
    """

    def __init__(
        self,
        service: Service,
        intake: Intake,
        metrics: Metrics,
        with_token: bool,
        deliveries: Sequence[Delivery] = (),
    ) -> None:
        self._service, self._intake, self._metrics = service, intake, metrics
        self._with_token, self._deliveries = with_token, deliveries
        self._document = document(service.stations, with_token)

    def application(self) -> Starlette:
        """Return the ASGI application of these routes, without a guard."""
        get: Callable[..., Route] = partial(Route, methods=["GET"])
        routes = [
            get("/", self.index),
            get("/recent", self.page),
            *(get(f"/page/{name}", partial(self.part, name)) for name in pages.FILES),
            get("/health", self.ready),
            get("/health/ready", self.ready),
            get("/health/live", self.live),
            get("/metrics", self.metrics),
            get("/openapi.json", self.openapi),
            get("/v1/recent", self.recent),
            get("/v1/results/{id}", self.result),
            get("/v1/results/{id}/map.png", partial(self.picture, Picture.codes, "image/png")),
            get("/v1/results/{id}/overlay.jpg", partial(self.picture, Picture.overlay, "image/jpeg")),
            get("/v1/results/{id}/preview.jpg", partial(self.picture, _preview, "image/jpeg")),
            Route("/v1/references/{name}/check", self.check, methods=["POST"]),
        ]
        if len(self._service.stations) == 1:
            routes.append(Route("/v1/check", self.check, methods=["POST"]))
        app = Starlette(
            routes=routes,
            exception_handlers={
                RefusedError: refused_response,
                HTTPException: _http_response,
                MuscEdgeError: self._failed,
                ClientGoneError: _gone_response,
                Exception: _internal_response,
            },
        )
        app.router.redirect_slashes = False
        return app

    async def check(self, request: Request) -> Response:
        """Check the image in the body."""
        station = self._station(request.path_params.get("name"))
        query, key = _query(request, "name"), _key(request, station.name)
        self._intake.check(request)
        self._service.require_place()
        body = await self._intake.take(request)
        try:
            name = _image_name(query.get("name", body.name))
        except RefusedError:
            body.close()
            raise
        job = Job(station, body, name, key)
        gone = asyncio.create_task(_until_gone(request))
        try:
            entry = await self._service.check(job, gone)
        finally:
            gone.cancel()
        told = {"reference": entry.reference, "id": entry.id, "verdict": entry.facts["verdict"]}
        request.scope.setdefault("state", {})["told"] = told
        if not job.repeated:
            self._metrics.recorded(entry)
        return JSONResponse(_content(entry), 200 if entry.facts["status"] == "ok" else 422)

    async def recent(self, request: Request) -> Response:
        """Tell the last results."""
        query = _query(request, "reference", "count", "after")
        count, after = _whole(query.get("count"), _SHOWN, 1, MOST_RESULTS), _whole(query.get("after"), 0, 0)
        name = self._station(query["reference"]).name if "reference" in query else None
        entries = await in_thread(partial(self._service.log.last, count, name))
        results = [_content(entry) for entry in entries if entry.id > after]
        return JSONResponse({"references": self._about(), "results": results})

    async def result(self, request: Request) -> Response:
        """Tell one result."""
        _query(request)
        return JSONResponse(_content(await self._entry(request)))

    async def picture(self, draw: Callable[[Picture], bytes], kind: str, request: Request) -> Response:
        """Draw a picture of one of the last images."""
        _query(request)
        number = _id(request)
        kept = self._service.pictures.get(number)
        if kept is None:
            raise RefusedError(
                404,
                f"there is no picture of result {number}: they are kept of the last {KEPT_PICTURES} images "
                "that were checked, until the program ends.",
            )
        return Response(await in_thread(partial(draw, kept)), media_type=kind)

    async def ready(self, request: Request) -> Response:
        """Say whether images can be checked."""
        health = self._health()
        return JSONResponse(health, 200 if health["ready"] else 503)

    async def live(self, request: Request) -> Response:
        """Say that the program runs."""
        return JSONResponse(self._health())

    def _health(self) -> dict[str, Any]:
        """How it does.  No addresses: health is told to whoever asks."""
        reason, standing = self._service.trouble(), [delivery.status() for delivery in self._deliveries]
        events = [
            {
                "receiver": each.destination,
                "connected": each.connected,
                "behind": each.behind,
                "skipped": each.skipped,
            }
            for each in standing
        ]
        return {"live": True, "ready": not reason, "reason": reason, "events": events}

    async def metrics(self, request: Request) -> Response:
        """Tell the counts."""
        text, kind = self._metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    async def openapi(self, request: Request) -> Response:
        """Say what can be asked."""
        return JSONResponse(self._document)

    async def index(self, request: Request) -> Response:
        """Show what is here."""
        address = str(request.base_url).rstrip("/")
        return HTMLResponse(pages.index(self._about(), address, self._with_token))

    async def page(self, request: Request) -> Response:
        """Show the last images."""
        return _part("recent.html")

    async def part(self, name: str, request: Request) -> Response:
        """Return a file of the pages."""
        return _part(name)

    def _station(self, name: str | None) -> Station:
        stations = self._service.stations
        if name is None:
            return next(iter(stations.values()))
        if name not in stations:
            raise RefusedError(404, f"there is no reference {name[:100]!r}: expected {', '.join(stations)}.")
        return stations[name]

    async def _entry(self, request: Request) -> Entry:
        number = _id(request)
        found = await in_thread(partial(self._service.log.after, number - 1, 1))
        if not found or found[0].id != number:
            raise RefusedError(404, f"there is no result {number}, or it is no longer kept.")
        return found[0]

    def _about(self) -> list[dict[str, Any]]:
        return [_about(station) for station in self._service.stations.values()]

    async def _failed(self, request: Request, error: Exception) -> Response:
        """Answer that the backend or the disk has failed."""
        self._metrics.failed(error)
        return JSONResponse({"error": str(error)}, 507 if isinstance(error, OutputError) else 500)


def _about(station: Station) -> dict[str, Any]:
    """What the pages are told of a reference."""
    checker = station.checker
    return {
        "name": station.name,
        "alpha": checker.calibration.alpha,
        "reject_above": checker.calibration.reject_above,
        "images": len(checker.reference.manifest.images),
        "calibration": checker.calibration.images,
        "promise": checker.calibration.promise(),
        "cautions": list(checker.warnings),
        "control": _control(checker.reference),
    }


def _control(reference: ReferenceFolder) -> dict[str, float] | None:
    """Where the scores of nine in ten good images lie; None if the reference has none."""
    limits = control_limits(reference).get("raw_score")
    return asdict(limits) if limits else None


def _content(entry: Entry) -> dict[str, Any]:
    """A result, with links to its pictures."""
    here = f"/v1/results/{entry.id}"
    links = {"result": here}
    if entry.facts["status"] == "ok":
        links |= {name: f"{here}/{name}.{kind}" for name, kind in _PICTURES}
    return {**entry.content(), "links": links}


_PICTURES = (("map", "png"), ("overlay", "jpg"), ("preview", "jpg"))


def _preview(picture: Picture) -> bytes:
    return picture.preview


def _part(name: str) -> Response:
    content, kind = pages.part(name)
    return Response(content, headers={"content-type": kind})


def _query(request: Request, *known: str) -> Mapping[str, str]:
    """The parameters of the query, each known and given once."""
    pairs = request.query_params.multi_items()
    names = [name for name, _ in pairs]
    for name in names:
        if name not in known or names.count(name) > 1:
            expected = f"expected {', '.join(known)}, each once" if known else "expected none"
            raise RefusedError(400, f"the parameter {name[:100]!r} of the query: {expected}.")
    return dict(pairs)


def _whole(text: str | None, default: int, least: int, most: int = 10**_MOST_DIGITS) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]+", text, re.ASCII) or len(text) > _MOST_DIGITS + 1:
        raise RefusedError(400, f"{text[:100]!r}: expected a whole number from {least} to {most}.")
    if not least <= int(text) <= most:
        raise RefusedError(400, f"{text}: expected a whole number from {least} to {most}.")
    return int(text)


def _id(request: Request) -> int:
    return _whole(request.path_params["id"], 0, 1)


def _key(request: Request, reference: str) -> bytes | None:
    """What a result is recorded under, of the Idempotency-Key and the reference."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or len(given[0]) > LONGEST_KEY or not re.search(KEY_PATTERN, given[0]):
        raise RefusedError(
            400,
            f"the Idempotency-Key: expected 1 to {LONGEST_KEY} characters of ASCII, without blanks.",
        )
    return f"{reference}\0{given[0]}".encode()


def _image_name(name: str) -> str:
    if len(name) > LONGEST_NAME or not re.search(NAME_PATTERN, name):
        raise RefusedError(
            400,
            f"the image's name {name[:100]!r}: expected at most {LONGEST_NAME} characters, no folders, no "
            "control characters, no dot at its end.",
        )
    return name


async def _until_gone(request: Request) -> None:
    """Return when the client has closed the connection; its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refused_app(refused: RefusedError) -> Callable[..., Awaitable[None]]:
    """Return an ASGI application that gives this answer alone."""
    return _refusal(refused)


async def refused_response(request: Request, error: Exception) -> Response:
    """Answer with the status and the message of a RefusedError."""
    return _refusal(error) if isinstance(error, RefusedError) else await _internal_response(request, error)


def _refusal(refused: RefusedError) -> JSONResponse:
    return JSONResponse({"error": str(refused)}, refused.status, dict(refused.headers))


async def _http_response(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path, or another method."""
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    words = {404: "there is nothing here; see / and /openapi.json.", 405: f"not with {request.method}."}
    return JSONResponse({"error": words.get(status, str(error))}, status, headers)


async def _gone_response(request: Request, error: Exception) -> Response:
    """For the log: nobody gets it."""
    return Response(status_code=_GONE)


async def _internal_response(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "an internal error; the log of the program has more."}, 500)
