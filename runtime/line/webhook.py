"""Tell a server of results by HTTP, in the form of Standard Webhooks (standardwebhooks.com).

Each result is a POST with JSON in its body.  Headers, for each::

    webhook-id, Idempotency-Key   Entry.event: the same whenever this result is sent
    webhook-timestamp             when it is sent, seconds since 1970
    webhook-signature             with a secret: v1, and the HMAC-SHA256 of "id.timestamp.body" in base64

Any answer of 2xx acknowledges.  Redirects are not followed, since what they lead to was never named.  Proxies
are taken from the environment (``https_proxy``, ``http_proxy``, ``no_proxy``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
import urllib.request
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from threading import Event
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit

from ..._files import shown
from ..._version import __version__
from ..errors import ReceiverError
from .receiver import RefusedError, UnreachableError, payload, split_address
from .result_log import Entry
from .tls import Tls

_REFUSALS = {400, 409, 411, 413, 414, 415, 422, 431}
"""What a server answers to a request for what it holds; all else may be different tomorrow."""
_PREFIX = "whsec_"
_SECRET_BYTES = (24, 64)
_SOME = 200


class WebhookReceiver:
    """Posts results to ``url``.

    Parameters
    ----------
    url : str
        "https://host/path" or "http://...".
    token : str
        For the header "Authorization: Bearer".
    secret : str
        By which requests are signed: "whsec_" and 24 to 64 bytes in base64.
    tls : Tls
        Which servers are trusted.
    timeout : float
        Seconds for connecting, and for each part of the answer.
    destination : str
        Name of this receiver in the log.

    Raises
    ------
    ReceiverError
        If one of these cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        secret: str = "",
        tls: Tls | None = None,
        timeout: float = 30.0,
        destination: str = "webhook",
    ) -> None:
        parts = _split(url)
        self.destination = destination
        # No more than this: path and query may be what only the two of them know.
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._url, self._timeout, self._tls = url, timeout, tls or Tls()
        if not token.isprintable() or not token.isascii():
            raise ReceiverError(
                "the token of the webhook cannot stand in a header: expected one line of ASCII."
            )
        self._token, self._key = token, _key(secret) if secret else b""
        self._opener = self._new_opener()

    def open(self, state: Mapping[str, Any]) -> bool:
        """Read the files of TLS again, which may have been replaced."""
        self._opener = self._new_opener()
        return False

    def tell(self, entry: Entry) -> None:
        """Post a result."""
        self._post(entry.event, payload(entry))

    def beat(self, state: Mapping[str, Any]) -> None:
        """Post the state."""
        self._post(f"state-{uuid.uuid4()}", json.dumps(state).encode())

    def wait(self, stop: Event, seconds: float) -> None:
        """Wait: there is no connection to keep."""
        stop.wait(seconds)

    def close(self, state: Mapping[str, Any] | None = None) -> None:
        """Do nothing: there is no connection."""

    def _new_opener(self) -> urllib.request.OpenerDirector:
        secure = self._url.startswith("https:")
        context = self._tls.context() if secure else None
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())

    def _post(self, name: str, body: bytes) -> None:
        request = urllib.request.Request(self._url, body, self._headers(name, body), method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                response.read(_SOME)
        except HTTPError as error:
            with error:
                raise _answered(error) from error
        except (OSError, HTTPException) as error:
            raise UnreachableError(_why(error, self._timeout)) from error

    def _headers(self, name: str, body: bytes) -> dict[str, str]:
        now = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"musc-edge/{__version__}",
            "Idempotency-Key": name,
            "webhook-id": name,
            "webhook-timestamp": now,
        }
        if self._key:
            signed = hmac.digest(self._key, f"{name}.{now}.".encode() + body, hashlib.sha256)
            headers["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Make an error of the answer."""


def _split(url: str) -> SplitResult:
    """Take an address apart; ReceiverError, without the address itself, if it cannot be used."""
    expected = "expected https://HOST/PATH or http://HOST/PATH"
    parts = split_address(url, "webhook", expected)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or not _plain(url):
        raise ReceiverError(f"the webhook's address begins with {url.partition(':')[0]!r}: {expected}.")
    if "@" in parts.netloc:
        raise ReceiverError("the webhook's address holds a user or a password: give a token in a file.")
    return parts


def _plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _key(secret: str) -> bytes:
    """The bytes of a secret; ReceiverError if it is none."""
    least, most = _SECRET_BYTES
    key = b""
    with suppress(binascii.Error, ValueError):
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    if not secret.startswith(_PREFIX) or not least <= len(key) <= most:
        raise ReceiverError(
            f"the secret of the webhook cannot be used: expected {_PREFIX} and {least} to {most} bytes in "
            f"base64. Make one with: echo {_PREFIX}$(openssl rand -base64 32)"
        )
    return key


def _answered(error: HTTPError) -> Exception:
    """What an answer that is not 2xx means."""
    said = " ".join(_text(error).split())
    text = f"answered {error.code} {shown(error.reason or '')}" + (f", {shown(said)}" if said else "")
    if 300 <= error.code < 400:
        where = urlsplit(error.headers.get("Location", "")).netloc
        to = f" to {shown(where)}" if where else ""
        return UnreachableError(
            f"answered {error.code}, a redirect{to}, which is not followed: give the address that it leads to"
        )
    if error.code in _REFUSALS:
        return RefusedError(text)
    return UnreachableError(text, _seconds(error.headers.get("Retry-After", "")))


def _text(body: IO[bytes]) -> str:
    with suppress(OSError, HTTPException):
        return body.read(_SOME).decode("utf-8", "replace")
    return ""


def _seconds(asked: str) -> float:
    """The wait that a Retry-After asks for, seconds or a date; 0 if it says nothing of use."""
    if asked.strip().isdecimal():
        return float(asked[:12])
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(timezone.utc)).total_seconds())
    return 0.0


def _why(error: OSError | HTTPException, timeout: float) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"did not answer within {timeout:g} s"
    if isinstance(reason, OSError):
        return f"cannot be reached: {getattr(reason, 'verify_message', '') or reason.strerror or reason}"
    return f"did not answer in HTTP: {reason!r}"
