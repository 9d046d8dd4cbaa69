"""Open and write files and folders that somebody else may have made.

Everything else in the package builds on this module; it imports nothing of the package.

Nothing here follows a link in the last part of a path unless it says so, waits for a pipe, or reads more than
it was told to: a name beside the output may be a planted link, ``manifest.json`` a pipe or ``/dev/zero``.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

_MB = 1_000_000
FEW_MB = 16 * _MB
"""Bytes: default limit of a text file that is parsed."""

PARTIAL = ".partial"
"""Suffix of a file that is being written."""

_ROOT = 0
_MOST_LINKS = 40
"""Limit of links on the way to a file, as the system has it."""
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OWN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_regular(path: Path, follow: bool = True) -> BufferedReader:
    """Open a regular file for reading.

    ``follow`` says whether ``path`` may be a link; those before its last part always may.

    Raises
    ------
    OSError
        If there is none, it cannot be read, or is a pipe, a device or a folder.
    """
    flags = _READ | (0 if follow else os.O_NOFOLLOW)
    file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_regular(path: Path, limit: int = FEW_MB, follow: bool = True) -> bytes:
    """Read a regular file of at most ``limit`` bytes; ``follow`` as in ``open_regular``.

    Raises
    ------
    OSError
        If there is none, it cannot be read, is a pipe, a device or a folder, or is larger.
    """
    with open_regular(path, follow) as file:
        size = os.fstat(file.fileno()).st_size
        room = min(limit, max(size, _MB))  # a file of /proc says that its size is 0
        content = file.read(room + 1) if size <= limit else b""
        if size > limit or len(content) > room:
            raise OSError(errno.EFBIG, f"larger than {limit / _MB:.0f} MB", str(path))
        return content


def open_own(path: str | os.PathLike[str], parent: int | None = None, mode: int = 0o666) -> int:
    """Open a file of our own (in the folder ``parent``) for reading and writing; makes it if it is missing.

    Raises
    ------
    OSError
        If it cannot be opened, is a link, has a second name elsewhere (a hard link), or is no regular file.
    """
    descriptor = os.open(path, _OWN, mode, dir_fd=parent)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file with one name", str(path))


def write_whole(path: Path, content: bytes | memoryview, mode: int = 0o666) -> None:
    """Write a file that is there as a whole or not at all: ``write_pieces`` with one piece."""
    write_pieces(path, (content,), mode)


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview], mode: int = 0o666) -> None:
    """Write a file piece by piece that is there as a whole or not at all, even after a loss of power.

    Replaces what is called ``path``; a link is replaced itself, not its target.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left behind then.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            # The content must be on the disk before the name is, or the name could come to stand for an
            # empty file.
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def make_folders(folder: Path, mode: int = 0o777, within: Path | None = None) -> None:
    """Make ``folder`` with its parents, however many: ``Path.mkdir`` would recurse for each.

    ``mode`` is that of all that are made, less what the process's umask takes away.  ``within`` is one of the
    parents that must be there: one that somebody has removed is not made again.

    Raises
    ------
    OSError
        If one cannot be made, a file is in the way (NotADirectoryError), or ``within`` is not there.
    """
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        if folder == within:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with suppress(FileExistsError):  # made by another thread just now
            each.mkdir(mode)
            continue
        if not each.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each))


def shown(name: str) -> str:
    """Return a file's name as a message shows it: with escapes if it would break the line or the terminal."""
    return name if name.isprintable() else repr(name)


def open_folder(name: str | os.PathLike[str], parent: int | None = None) -> int:
    """Return a descriptor of the folder ``name`` (in ``parent``); OSError if it is a link or no folder."""
    return os.open(name, _FOLDER, dir_fd=parent)


def is_empty(folder: int) -> bool:
    """Return whether an open folder is empty."""
    return not _entries(folder)


def empty_folder(folder: int) -> None:
    """Remove everything in an open folder; links are removed, not followed.

    Inner folders are moved up before they are emptied, so that neither their depth nor the length of their
    paths matters.

    Raises
    ------
    OSError
        If something cannot be removed.
    """
    while entries := _entries(folder):
        for name, is_folder in entries:
            if not is_folder:
                os.unlink(name, dir_fd=folder)
                continue
            inner = open_folder(name, folder)
            try:
                for child, child_is_folder in _entries(inner):
                    if child_is_folder:
                        os.rename(child, secrets.token_hex(8), src_dir_fd=inner, dst_dir_fd=folder)
                    else:
                        os.unlink(child, dir_fd=inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)


def remove_folder(name: str | os.PathLike[str], parent: int | None = None) -> None:
    """Remove the folder ``name`` (in ``parent``) and everything in it; OSError if that is not possible."""
    folder = open_folder(name, parent)
    try:
        empty_folder(folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)


def user_here(folder: Path) -> int:
    """Return the number of the user who owns new files in ``folder``.

    On some network shares and memory sticks that is not this process's user.

    Raises
    ------
    OSError
        If nothing can be written there.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_uid


def strangers_way_in(path: Path, sticky: bool = False) -> str | None:
    """Return the reason why others than this user and root could have written ``path``, or None.

    Looks at the file or folder itself: its owner, and who else may write.  The owner's private group, which
    users of Debian and Ubuntu have, counts as the owner.  With ``sticky`` a folder passes in which others may
    make files, but not rename or remove those of their owners, as in /tmp.

    Raises
    ------
    OSError
        If ``path`` does not exist.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link"
    if found.st_uid not in (os.geteuid(), _ROOT):
        return f"{path} belongs to user {found.st_uid}"
    if sticky and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write {path}"
    if found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid, found.st_uid):
        return f"the group {found.st_gid} may write {path}"
    return None


def way_to(path: Path) -> str | None:
    """Return the reason why others could put something else where ``path`` leads to, or None.

    Looks at every folder and every link on the way from the root of the file system, and at what is there.
    If the answer is None, ``path`` leads to the same place until this user or root changes that.

    Raises
    ------
    OSError
        If it leads nowhere, or in a circle.
    """
    # As the system follows a path: ``here`` is reached without links, and a link's own path comes next.
    rest, here, links = [*reversed(path.absolute().parts)], Path("/"), 0
    while rest:
        part = rest.pop()
        if part in ("/", ".."):
            here = Path("/") if part == "/" else here.parent
            continue
        if reason := strangers_way_in(here, sticky=True):
            return reason
        step = here / part
        found = step.lstat()
        if not stat.S_ISLNK(found.st_mode):
            here = step
        elif found.st_uid not in (os.geteuid(), _ROOT):
            return f"the link {step} belongs to user {found.st_uid}"
        elif (links := links + 1) > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        else:
            rest += reversed(step.readlink().parts)
    return strangers_way_in(here)


def first_way_in(*paths: Path) -> str | None:
    """Return the first reason why others could have written one of ``paths``, or None; missing ones pass."""
    for path in paths:
        try:
            reason = strangers_way_in(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = f"{path} cannot be looked at ({error.strerror})"
        if reason:
            return reason
    return None


def _is_own_group(group: int, user: int) -> bool:
    """Return whether a group is a user's private one: it has the user's name and no other members."""
    import grp
    import pwd

    if group == _ROOT:
        return True
    try:
        name, entry = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == name and set(entry.gr_mem) <= {name}


def _entries(folder: int) -> list[tuple[str, bool]]:
    """Return the name of each entry of an open folder, and whether it is a folder."""
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
