"""Write a folder of results all at once: under a temporary name, renamed when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def new_folder(
    out: Path,
    overwrite: bool,
    marker: str,
    ours: frozenset[str] | None = None,
    instead: str = "Choose another folder with -o.",
) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes ``out`` when the block ends without error.

    On any error, an interrupt included, the temporary folder is removed and ``out`` stays as it was.
    An existing folder is replaced only with ``overwrite``, and only if it is empty or holds a file
    ``marker``, which says that it was written by this program, and nothing beside the names in
    ``ours`` (None: anything).  The temporary folder is locked while it is in use; the lock ends with the
    process, and what a killed process left is taken over.  ``instead`` is what a user can do where ``out``
    cannot be used.

    Raises
    ------
    OutputError
        If ``out`` is in the way, in use by another run, or cannot be written, or the disk is full.
    """
    try:
        if out.is_symlink() and not out.exists():
            raise OutputError(f"{out} is a link to nothing. {instead}")
        target = out.resolve()
        _check_free(target, overwrite, marker, ours, instead)
        partial = target.with_name(f".{target.name}.partial")
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(partial)
    except OSError as error:
        reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise OutputError(f"{out} cannot be written: {reason}. {instead}") from error
    try:
        _empty(partial)
        yield partial
        _check_free(target, overwrite, marker, ours, instead)
        _replace(target, partial)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OutputError(
                f"writing {out} failed: {reason}. What was there before is unchanged."
            ) from error
        raise
    finally:
        os.close(lock)


def _lock(partial: Path) -> int:
    """Make the folder and lock it, or raise OutputError if a living process holds it."""
    while True:
        partial.mkdir(exist_ok=True)
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            name = partial.name.removeprefix(".").removesuffix(".partial")
            raise OutputError(
                f"another run is writing {partial.parent / name}. Wait for it, or choose another with -o."
            ) from error
        try:
            if os.path.samestat(os.fstat(descriptor), partial.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # the run that held it has renamed it just now
        os.close(descriptor)


def _empty(folder: Path) -> None:
    """Remove what a killed run has left in its temporary folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _check_free(out: Path, overwrite: bool, marker: str, ours: frozenset[str] | None, instead: str) -> None:
    """Raise OutputError unless ``out`` may be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file. {instead}")
    if out.is_mount() or out == Path.cwd():
        kind = "a mount point" if out.is_mount() else "the current folder"
        raise OutputError(f"{out} is {kind}, which cannot be replaced. Give a folder inside of it with -o.")
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return
    if not (out / marker).is_file():
        raise OutputError(f"{out} holds files that are not ours (no {marker}). {instead}")
    foreign = sorted(names - ours) if ours is not None else []
    if foreign:
        raise OutputError(f"{out} holds files that are not ours ({foreign[0]}). {instead}")
    if not overwrite:
        raise OutputError(f"{out} exists. Use --overwrite to replace it, or choose another folder with -o.")


def _replace(out: Path, partial: Path) -> None:
    """Put ``partial`` in the place of ``out``; what was there goes only once the new one stands."""
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        out.rename(old)
        partial.rename(out)
    except BaseException:
        if not out.exists() and old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
