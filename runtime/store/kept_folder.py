"""The folder of kept work: make sure that it is ours, used by one run, and the only thing that is removed.

The folder's name can be guessed, and kept work that somebody else has made would give somebody else's scores.
So nothing is used, changed or removed except regular files with a single name, which belong to the user who
makes files here now, in a folder of that user's with our mark.

Results get their name first, and then the kept work that they are made of is removed.  In case a run is
killed in between, a note in the kept work says before that which results are made of it: whoever next finds
these results complete removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from ..._files import PARTIAL, open_folder, open_own, read_regular, user_here, write_whole
from ..errors import OutputError
from .tables import COSINES, TOKENS

MARK, ABOUT, BATCHES, CELLS = ".musc-edge", "about.json", "batches.journal", "cells.journal"
NAMES = (MARK, ABOUT, TOKENS, BATCHES, COSINES, CELLS)
UNFINISHED = f".*{PARTIAL}"
PATTERNS = ("layer_*.npy", UNFINISHED)
FINISHED = "finished"
_LARGEST = 1 << 30  # bytes of lot.json, which may name every image
ELSEWHERE = "Keep the work in another folder."
_MARK_TEXT = b"Unfinished work that musc-edge goes on from with --resume. Remove this folder to begin anew.\n"


def kept_beside(out: Path) -> Path:
    """Return the folder beside ``out`` in which the work on these results, or on each group, is kept.

    Raises
    ------
    OutputError
        If something that is not ours has that name.
    """
    folder = _kept_of(out)
    if not folder.is_symlink() and not folder.exists():
        return folder
    try:
        os.close(open_folder(folder))
        if folder.stat().st_uid == user_here(folder):
            return folder
        reason = "belongs to another user"
    except OSError as error:
        reason = f"cannot be used ({error.strerror})"
    raise OutputError(
        f"{folder}, where work is kept, {reason}. Look at it, and remove it if nobody needs it, or choose "
        "another folder with -o."
    )


def note_finished(folder: Path, about: Path) -> None:
    """Note in a folder of kept work that the results which ``about`` (lot.json) describes are made of it."""
    with suppress(OSError):  # then only what a kill leaves would stay
        descriptor = open_own(folder / FINISHED)
        try:
            os.pwrite(descriptor, _digest(about), 0)
        finally:
            os.close(descriptor)


def remove_finished(about: Path) -> None:
    """Remove kept work beside results with the description ``about``, if there are any made of it.

    So too the folder of kept work, if nothing is in it.
    """
    folder = _kept_of(about.parent)
    with suppress(OSError):
        os.close(open_folder(folder))
        made_of = _digest(about)
        if not any(folder.iterdir()):
            folder.rmdir()
        elif read_regular(folder / FINISHED, follow=False) == made_of:
            remove_kept(folder)


def _kept_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.kept")


def _digest(about: Path) -> bytes:
    return hashlib.sha256(read_regular(about, _LARGEST)).hexdigest().encode("ascii")


def remove_kept(folder: Path) -> None:
    """Remove kept work in ``folder`` and the folders within it, and then the folders that are empty.

    Links, and folders that hold anything but kept work of ours, stay as they are.  A run that is killed amid
    leaves what can still be recognised.
    """
    with suppress(OSError):
        os.close(open_folder(folder))
        folders = [folder]
        for path in folders:  # grows, so that what lies deeper comes later
            with os.scandir(path) as entries:
                folders += [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in reversed(folders):
            with suppress(OSError, OutputError):
                require_ours(path, new=False)
                remove(path, *NAMES[1:], *PATTERNS)
                remove(path, MARK)  # last: without it the rest would be nobody's
            with suppress(OSError):
                if [entry.name for entry in path.iterdir()] == [FINISHED]:
                    (path / FINISHED).unlink()
            with suppress(OSError):
                path.rmdir()


def require_ours(folder: Path, new: bool = True) -> None:
    """Raise OutputError unless ``folder`` is ours and holds kept work alone; a ``new`` one is marked."""
    user = user_here(folder)
    paths = sorted(folder.iterdir())
    # All checks come before the mark: a folder that holds anything else is never made ours.
    for path in paths:
        if path.name not in NAMES and not any(path.match(pattern) for pattern in PATTERNS):
            raise OutputError(f"{folder} holds {path.name}, which is not kept work. {ELSEWHERE}")
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise OutputError(f"{folder} holds {path.name}, which is a link or not a file. {ELSEWHERE}")
    owners = {path.lstat().st_uid for path in (folder, *paths)} - {user}
    if owners:
        raise OutputError(
            f"the work kept in {folder} is of user {min(owners)}, and could be anything. {ELSEWHERE}"
        )
    if MARK not in [path.name for path in paths]:
        others = [path.name for path in paths if not path.match(UNFINISHED)]
        if others or not new:
            name = others[0] if others else "nothing"
            raise OutputError(
                f"{folder} holds {name}, but no {MARK}, which says that it is kept work of this version. "
                f"{ELSEWHERE} Or begin anew: rm -r {folder}"
            )
        remove(folder, UNFINISHED)  # of a run that was killed as it made the mark
        write_whole(folder / MARK, _MARK_TEXT)


def lock(folder: Path) -> int:
    """Return a descriptor of ``folder``, locked until it is closed; OutputError if another run holds it."""
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link, and work is kept in folders alone. {ELSEWHERE}")
    descriptor = open_folder(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(
            f"another run is using the work kept in {folder}. Wait for it. {ELSEWHERE}"
        ) from error
    return descriptor


def remove(folder: Path, *patterns: str) -> None:
    """Remove the files in ``folder`` that match one of ``patterns``."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()
