"""Which servers are trusted over TLS, and how this program shows who it is."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from ..errors import ReceiverError


@dataclass(frozen=True)
class Tls:
    """Files of TLS, in PEM.

    Attributes
    ----------
    ca : path, optional
        Certificates that vouch for the server, in place of the system's.
    cert : path, optional
        Certificate of this program, with those between it and a CA.
    key : path, optional
        Its key, which must not be encrypted; by default it is in ``cert``.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises
        ------
        ReceiverError
            If a file is missing, holds something else, or key and certificate do not belong together.
        """
        if self.key and not self.cert:
            raise ReceiverError(f"{self.key} is the key of a certificate: give the certificate too.")
        file = self.ca
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if file := self.cert:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
        except OSError as error:  # ssl.SSLError is one
            raise ReceiverError(f"{file} cannot be used: {_said(error)}. Expected a file in PEM.") from error
        return context


def _no_password() -> str:
    raise ReceiverError("the key of the certificate is encrypted: expected a key without a password.")


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"it holds no certificate (or no key that belongs to it): {error.reason or error}"
    return error.strerror or str(error)
