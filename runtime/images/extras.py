"""Decoders of rarer formats, which are packages that are optional: imported when a file needs one."""

from __future__ import annotations

import importlib
from typing import Any

from ..._extras import install
from .image_bytes import ImageError


def codecs(what: str) -> Any:
    """Import imagecodecs; ImageError with the way to get it if it is missing, for ``what`` was to be read."""
    return _optional("imagecodecs", what)


def heif(what: str) -> Any:
    """Import pillow_heif; ImageError with the way to get it if it is missing, for ``what`` was to be read."""
    return _optional("pillow_heif", what)


def _optional(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError("unsupported", f"{what}: {install('formats')} to have it read ({error})") from error
