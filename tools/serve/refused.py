"""A request that is not done, with the status and the words that it is answered with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class RefusedError(Exception):
    """Why a request is not done: an HTTP status, a message, and headers of the answer."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class ClientGoneError(Exception):
    """Whoever asked has closed the connection."""


def busy(what: str, seconds: float) -> RefusedError:
    """Make the refusal of a server that has enough to do; ``seconds`` until it may have room again."""
    wait = max(1, round(seconds))
    return RefusedError(503, f"{what}. Ask again in {wait} s.", {"Retry-After": str(wait)})
