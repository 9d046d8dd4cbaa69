"""What the server answers, as an OpenAPI document; the tests hold the server to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..._version import __version__

FORM = "multipart/form-data"
NAME_PATTERN = r"^([^/\\\x00-\x1f\x7f]*[^/\\\x00-\x1f\x7f.])?$"
"""Of an image's name, which other programs may make a file's of: no folders, no control characters."""
LONGEST_NAME = 200
KEY_PATTERN = r"^[!-~]+$"
LONGEST_KEY = 255
MOST_RESULTS = 1000
IMAGE_TYPES = ("image/png", "image/jpeg", "application/octet-stream")
"""Examples: any image/ is taken, and the bytes decide what it is."""

_NUMBER = {"type": ["number", "null"]}
_TEXT = {"type": "string"}
_WORDS = {
    400: "A parameter, a header or the body is malformed.",
    401: "The token is missing or wrong.",
    403: "The request comes from another page.",
    404: "There is none.",
    405: "Not with this method.",
    408: "The body came too slowly.",
    409: "The Idempotency-Key was used for another image.",
    413: "The body is too large.",
    415: "The body is no image by its Content-Type.",
    421: "The request is for another host.",
    500: "The backend failed.",
    503: "The queue is full, or no image can be checked.",
    504: "It took too long.",
    507: "The result could not be written.",
}
_ALWAYS = (401, 403, 421)


def document(references: Iterable[str], with_token: bool) -> dict[str, Any]:
    """Return the document of a server with these references."""
    names = list(references)
    paths = {
        "/v1/references/{name}/check": {"post": _check([_path("name", {"enum": names})])},
        "/v1/recent": {"get": _recent(names)},
        "/v1/results/{id}": {"get": _get("A result", _json("Result"), _ID, 400)},
        "/v1/results/{id}/map.png": {
            "get": _get("Anomaly map of one of the last images, in the ViT's pixels: gray, 16 bits, "
                        "code = distance * 65535 / 2", _binary("image/png"), _ID, 400)
        },
        "/v1/results/{id}/overlay.jpg": {
            "get": _get("One of the last images with its map over it", _binary("image/jpeg"), _ID, 400)
        },
        "/v1/results/{id}/preview.jpg": {
            "get": _get("One of the last images, small", _binary("image/jpeg"), _ID, 400)
        },
        "/health": {"get": _health("Whether images can be checked; as /health/ready")},
        "/health/ready": {"get": _health("Whether images can be checked")},
        "/health/live": {"get": _health("Whether the program runs")},
        "/metrics": {"get": _get("Counts for Prometheus", _content("text/plain", _TEXT))},
        "/openapi.json": {"get": _get("This document", _content("application/json", {"type": "object"}))},
        "/": {"get": _get("A page on what is here", _content("text/html", _TEXT))},
        "/recent": {"get": _get("A page that shows the last images", _content("text/html", _TEXT))},
    }  # fmt: skip
    if len(names) == 1:
        paths["/v1/check"] = {"post": _check([])}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "musc-edge serve",
            "version": __version__,
            "description": "Images of a line, each checked against a reference.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(names),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}] if with_token else [],
    }


def _check(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    form = {
        "type": "object",
        "properties": {"image": {"type": "string", "format": "binary"}},
        "required": ["image"],
    }
    name = {"type": "string", "maxLength": LONGEST_NAME, "pattern": NAME_PATTERN}
    key = {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": KEY_PATTERN}
    return {
        "summary": "Check an image, and record the result",
        "parameters": [
            *parameters,
            {"name": "name", "in": "query", "schema": name, "description": "Of the image."},
            {"name": "Idempotency-Key", "in": "header", "schema": key,
             "description": "A request with the same key gets the first answer, and no second result."},
        ],
        "requestBody": {
            "required": True,
            "description": "The bytes of an image; any type image/... is taken, and the bytes decide.",
            "content": {**dict.fromkeys(IMAGE_TYPES, binary), FORM: {"schema": form}},
        },
        "responses": _responses(
            {"200": _answer("Checked", _json("Result")),
             "422": _answer("Not an image that can be checked: a result too", _json("Result"))},
            400, 404, 405, 408, 409, 413, 415, 500, 503, 504, 507,
        ),
    }  # fmt: skip


def _recent(names: list[str]) -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0, "maximum": 10**15}
    parameters = [
        {"name": "reference", "in": "query", "schema": {"enum": names}},
        {"name": "count", "in": "query", "schema": {**number, "minimum": 1, "maximum": MOST_RESULTS}},
        {"name": "after", "in": "query", "schema": number, "description": "Only results with a larger id."},
    ]
    return _get("The last results, the newest first", _json("Recent"), parameters, 400)


def _health(summary: str) -> dict[str, Any]:
    found = _get(summary, _json("Health"))
    found["responses"]["503"] = _answer("It does not", _json("Health"))
    return {**found, "security": []}


def _get(
    summary: str, content: dict[str, Any], parameters: list[dict[str, Any]] | None = None, *errors: int
) -> dict[str, Any]:
    of_path = (404,) if parameters else ()
    return {
        "summary": summary,
        "parameters": parameters or [],
        "responses": _responses({"200": _answer("Here it is", content)}, *of_path, 405, *errors),
    }


def _responses(found: dict[str, Any], *errors: int) -> dict[str, Any]:
    problems = {str(code): _answer(_WORDS[code], _json("Problem")) for code in (*_ALWAYS, *errors)}
    return {**found, **problems}


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _json(schema: str) -> dict[str, Any]:
    return _content("application/json", {"$ref": f"#/components/schemas/{schema}"})


def _binary(kind: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string", "contentMediaType": kind}}}


def _path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_ID = [_path("id", {"type": "integer", "minimum": 1, "maximum": 10**15})]


def _schemas(names: list[str]) -> dict[str, Any]:
    return {
        "Problem": _object({"error": _TEXT}),
        "Health": _object(
            {
                "live": {"type": "boolean"},
                "ready": {"type": "boolean"},
                "reason": _TEXT,
                "events": {"type": "array", "items": {"type": "object"}},
            }
        ),
        "Result": _object(
            {
                "id": {"type": "integer", "minimum": 1},
                "event": _TEXT,
                "time": _TEXT,
                "reference": _TEXT,
                "image": _TEXT,
                "status": {"enum": ["ok", "unreadable", "too_large", "unsupported"]},
                "raw_score": _NUMBER,
                "p": _NUMBER,
                "verdict": {"enum": ["reject", "not flagged", ""]},
                "regions": {"type": "array", "items": {"type": "object"}},
                "cls_distance": _NUMBER,
                "brightness": _NUMBER,
                "sharpness": _NUMBER,
                "warnings": {"type": "array", "items": _TEXT},
                "error": _TEXT,
                "sha256": _TEXT,
                "links": {"type": "object", "additionalProperties": _TEXT},
            },
            seconds={"type": "number"},
            drift={"type": "object"},
        ),
        "Reference": _object(
            {
                "name": {"enum": names},
                "alpha": {"type": "number"},
                "reject_above": _NUMBER,
                "images": {"type": "integer"},
                "calibration": {"type": "integer"},
                "promise": _TEXT,
                "cautions": {"type": "array", "items": _TEXT},
                "control": {"type": ["object", "null"]},
            }
        ),
        "Recent": _object(
            {
                "references": {"type": "array", "items": {"$ref": "#/components/schemas/Reference"}},
                "results": {"type": "array", "items": {"$ref": "#/components/schemas/Result"}},
            }
        ),
    }


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}
