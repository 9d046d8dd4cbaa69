"""Certificates for TLS, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEYS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
"""What Python 3.13 and later want to see of all certificates."""


def make_certificates(folder: Path) -> None:
    """Make a CA (ca.pem), one that vouches for nobody (other.pem), and keys of a server and of a client."""
    for authority in ("ca", "other"):
        _openssl(folder, "req", "-x509", *_new_key(authority), "-out", f"{authority}.pem", "-days", "2",
            "-subj", f"/CN={authority}", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name, address in (("server", "DNS:localhost,IP:127.0.0.1"), ("client", "DNS:client")):
        (folder / f"{name}.txt").write_text(f"subjectAltName={address}\n{_KEYS}")
        _openssl(folder, "req", *_new_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.txt")  # fmt: skip


def _new_key(name: str) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
