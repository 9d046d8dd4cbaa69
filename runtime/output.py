"""Write a folder of results all at once: under a temporary name, renamed when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def new_folder(out: Path, overwrite: bool, marker: str) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes ``out`` when the block ends without error.

    On any error, an interrupt included, the temporary folder is removed and ``out`` stays as it was.
    An existing folder is replaced only with ``overwrite``, and only if it is empty or holds a file
    ``marker``, which says that it was written by this program.

    Raises
    ------
    OutputError
        If ``out`` is in the way or cannot be written, or the disk is full.
    """
    out = out.parent.resolve() / out.name
    _check_free(out, overwrite, marker)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written: {error.strerror}. Choose another folder with -o."
        ) from error
    try:
        yield partial
        _check_free(out, overwrite, marker)
        _replace(out, partial)
    except OSError as error:
        raise OutputError(
            f"writing {out} failed: {error.strerror or error}. Nothing was left there."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_free(out: Path, overwrite: bool, marker: str) -> None:
    """Raise OutputError unless ``out`` may be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file. Choose another folder with -o.")
    if not any(out.iterdir()):
        return
    if not (out / marker).is_file():
        raise OutputError(
            f"{out} holds files that are not ours (no {marker}). Choose another folder with -o."
        )
    if not overwrite:
        raise OutputError(f"{out} exists. Use --overwrite to replace it, or choose another folder with -o.")


def _replace(out: Path, partial: Path) -> None:
    """Put ``partial`` in the place of ``out``; what was there goes only once the new one stands."""
    if not out.exists():
        partial.rename(out)
        return
    old = partial.with_suffix(".old")
    out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
