"""Whose signatures a bundle has: what ``musc-edge inspect`` says of them, required or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._extras import install
from .._files import read_regular
from .._signatures import (
    BUNDLE,
    KERNELS,
    Signature,
    demands,
    fits,
    read_signatures,
    require_signed,
    signature_path,
    statement,
)
from .._signing_keys import NoCryptographyError, SignatureError, short_id
from ..kernels.cubin_files import INDEX
from ..kernels.cubins import FOLDER
from ..runtime.errors import signature_errors
from ..runtime.types import Bundle
from ..runtime.vit.bundle import MANIFEST

_KINDS = {MANIFEST: BUNDLE, f"{FOLDER}/{INDEX}": KERNELS}


def signed_by(bundle: Bundle) -> dict[str, list[dict[str, Any]]]:
    """Return the keys by which manifest and kernels are signed.

    Each comes with whether its signature fits, None where that cannot be told without cryptography.  What
    that is worth depends on whose the key is.

    Raises
    ------
    BundleError
        If a file of signatures is malformed.
    """
    found = {}
    for name, kind in _KINDS.items():
        path = bundle.root / name
        with signature_errors():
            entries = read_signatures(path) if path.is_file() else ()
        if entries:
            signed = statement(kind, read_regular(path))
            found[name] = [{"key": each.key, "fits": _fits(each, signed)} for each in entries]
    return found


def _fits(entry: Signature, signed: bytes) -> bool | None:
    try:
        return fits(entry, signed)
    except NoCryptographyError:
        return None


def unsigned_text(root: Path, made: Path, kind: str) -> str | None:
    """Return what is to be done with a file that was just made in a bundle.

    None if it is signed as is required here; or, where nothing is required, as the bundle itself is.
    """
    try:
        wanted = demands()
        require_signed(made, read_regular(made), kind, wanted)
    except SignatureError as error:
        return f"NOT SIGNED as is required here: {error}"
    if wanted or not signature_path(root / MANIFEST).exists() or signature_path(made).exists():
        return None
    return (
        f"NOT SIGNED, as the bundle is. Sign it too: musc-export sign {root} --key KEY.pem (docs/signing.md)"
    )


def signature_text(entry: dict[str, Any]) -> str:
    """Format an entry of ``signed_by``."""
    remarks = {
        True: "",
        False: ", which does NOT FIT",
        None: f", not checked: cryptography is not installed ({install('sign')})",
    }
    return short_id(bytes.fromhex(entry["key"])) + remarks[entry["fits"]]
