"""Write a folder of results all at once: under a temporary name, renamed when it is complete.

Beside the folder ``NAME`` lie, while it is written,

    .NAME.partial     what has been written so far; nobody else may enter it
    .NAME.lock        held by the process that writes, and released when it ends; its content are the numbers
                      (inodes) of the folder above, by which the left-overs of a killed run are known for
                      ours, and of the one that is replaced
    .NAME.INODE.old   what is being replaced, for a moment; a killed run's is given its name back, or removed
                      if its successor has the name

These names can be guessed, and somebody else may have put something there.  So a link is never followed, and
only a folder that the lock names is ever emptied, if both belong to this user.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..._files import empty_folder, is_empty, make_folders, open_folder, open_own, remove_folder
from ..errors import OutputError

_MARK = "musc-edge {}\n"
_LONGEST = 100  # bytes of a lock, at least


@contextmanager
def new_folder(
    out: Path,
    overwrite: bool,
    marker: str,
    ours: frozenset[str] | None = None,
    instead: str = "Choose another folder with -o.",
    replace: str = "--overwrite",
) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` that becomes ``out`` when the block ends without error.

    On any error, an interrupt included, the temporary folder is removed and ``out`` stays as it was.
    An existing folder is replaced only with ``overwrite``, and only if it is empty or holds a file
    ``marker``, which shows that this program wrote it, and nothing but the names in ``ours`` (None:
    anything).  The temporary folder is locked while it is in use.  The lock ends with the process, and what a
    killed process left is replaced.  ``instead`` tells the user what to do if ``out`` cannot be used,
    ``replace`` how to ask for ``overwrite``.

    Raises
    ------
    OutputError
        If ``out`` is in the way, in use by another run, or cannot be written, the disk is full, or something
        that is not ours has a name that is needed beside it.
    """
    try:
        target = resolve(out, instead)
        terms = target, overwrite, marker, ours, instead, replace
        _tidy(target, instead)
        _check_free(*terms)
        make_folders(target.parent)
        partial = _Partial(target, instead)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}. {instead}") from error
    try:
        partial.mark()
        yield partial.path
        _check_free(*terms)
        partial.publish()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"writing {out} failed: {reason}. What was there before is unchanged.") from error
    finally:
        partial.close()


def resolve(out: Path, instead: str = "Choose another folder with -o.") -> Path:
    """Follow the links of ``out`` to its folder; OutputError if it is a link to nothing or to itself."""
    try:
        if not out.is_symlink() or out.exists():
            return out.resolve()
    except (RuntimeError, RecursionError):  # a loop further up, or a chain of a thousand links
        pass
    raise OutputError(f"{out} is a link to nothing. {instead}")


def require_apart(out: Path, lot: Path, instead: str = "Choose another folder with -o.") -> None:
    """Raise OutputError if results written to ``out`` would take the place of the lot's own images."""
    if lot.resolve().is_relative_to(resolve(out, instead)):
        raise OutputError(f"{out} is or holds the lot itself. {instead}")


class _Partial:
    """The temporary folder of ``target``: made and locked, until ``close`` gives it up.

    The parent folder stays open, and names are looked up in it, since the path to it may change meanwhile.
    """

    def __init__(self, target: Path, instead: str) -> None:
        self.path = target.with_name(f".{target.name}.partial")
        self._target = target.name
        self._lock_name = f".{target.name}.lock"
        self._instead = instead
        self._parent = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock = self._take_lock(target)
            try:
                self._settle_old()
                self._mode, self._folder = self._claim()
            except BaseException:
                if not os.fstat(self._lock).st_size:  # new, and it marks nothing
                    os.unlink(self._lock_name, dir_fd=self._parent)
                os.close(self._lock)
                raise
        except BaseException:
            os.close(self._parent)
            raise

    def mark(self, *replaced: int) -> None:
        """Record in the lock that the folder is ours, and the inodes of what is ``replaced``.

        A run that is killed before this leaves an empty folder, which is recognised without a record.
        """
        inodes = os.fstat(self._folder).st_ino, *replaced
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, "".join(map(_MARK.format, inodes)).encode(), 0)

    def publish(self) -> None:
        """Give the folder its name; what was there is removed only after that."""
        if not self._is_there(self.path.name, self._folder):
            raise OSError(errno.ESTALE, f"{self.path.name} was moved or replaced by somebody else")
        with suppress(PermissionError):  # a file system without modes has the usual one already
            os.fchmod(self._folder, self._mode)
        if not self._exists(self._target):
            self._rename(self.path.name, self._target)
            return
        # Two renames, since a folder cannot be renamed onto one that is not empty.  Between them nothing has
        # the target's name; if the second fails, the first is undone, and by the next run if this one is
        # killed.
        inode = os.stat(self._target, dir_fd=self._parent, follow_symlinks=False).st_ino
        self.mark(inode)
        old = self._old(inode)
        try:
            self._rename(self._target, old)
            self._rename(self.path.name, self._target)
        except BaseException:
            if not self._exists(self._target) and self._exists(old):
                self._rename(old, self._target)
            raise
        with suppress(OSError):
            remove_folder(old, self._parent)

    def close(self) -> None:
        """Remove what was not published, and then the lock, which stays as long as its folder is there."""
        try:
            with suppress(OSError):
                if self._is_there(self.path.name, self._folder):
                    empty_folder(self._folder)
                    os.rmdir(self.path.name, dir_fd=self._parent)
            if not self._is_there(self.path.name, self._folder):
                with suppress(OSError):
                    self._settle_old()  # where an interrupt came as it was removed
                with suppress(OSError):
                    os.unlink(self._lock_name, dir_fd=self._parent)
        finally:
            for descriptor in (self._folder, self._lock, self._parent):
                os.close(descriptor)

    def _take_lock(self, target: Path) -> int:
        """Open and lock the lock's file; OutputError if a living process holds it or it is not ours."""
        while True:
            try:
                lock = open_own(self._lock_name, self._parent, 0o600)
            except OSError as error:
                if self._exists(self._lock_name):
                    raise self._in_the_way(self._lock_name) from error
                raise
            try:
                if not _is_lock(lock):
                    raise self._in_the_way(self._lock_name)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The run that held it removes the file when it ends.  A lock on a file without a name
                # excludes nobody: begin again with a new file.
                if self._is_there(self._lock_name, lock):
                    return lock
            except BlockingIOError as error:
                os.close(lock)
                raise OutputError(
                    f"another run is writing {target}. Wait for it, or choose another with -o."
                ) from error
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # the run that held it ended just now

    def _claim(self) -> tuple[int, int]:
        """Make the folder, after removing what a killed run left; returns its usual mode and a descriptor."""
        name = self.path.name
        try:
            os.mkdir(name, dir_fd=self._parent)
        except FileExistsError:
            self._remove_left_over()
            os.mkdir(name, dir_fd=self._parent)
        folder = open_folder(name, self._parent)
        found = os.fstat(folder)
        with suppress(PermissionError):  # while it is filled, nobody else may plant links in it
            os.fchmod(folder, stat.S_IMODE(found.st_mode) & ~0o077)
        if not is_empty(folder):
            os.close(folder)
            raise self._in_the_way(name)
        return stat.S_IMODE(found.st_mode), folder

    def _remove_left_over(self) -> None:
        """Remove what a killed run of ours left; OutputError if it is anything else."""
        try:
            folder = open_folder(self.path.name, self._parent)
        except OSError as error:
            raise self._in_the_way(self.path.name) from error
        try:
            marked = os.fstat(folder).st_ino in self._marked()[:1]
            if not (self._is_mine(folder) and (marked or is_empty(folder))):
                raise self._in_the_way(self.path.name)
            empty_folder(folder)
            os.rmdir(self.path.name, dir_fd=self._parent)
        finally:
            os.close(folder)

    def _settle_old(self) -> None:
        """Give what was being replaced its name back, or remove it if it was replaced."""
        inodes = self._marked()
        for inode in inodes[1:]:
            with suppress(FileNotFoundError):
                folder = open_folder(self._old(inode), self._parent)
                try:
                    if os.fstat(folder).st_ino != inode or not self._is_mine(folder):
                        continue
                    if not self._exists(self._target):
                        self._rename(self._old(inode), self._target)
                        continue
                    target = os.stat(self._target, dir_fd=self._parent, follow_symlinks=False)
                    if target.st_ino == inodes[0]:
                        with suppress(OSError):
                            remove_folder(self._old(inode), self._parent)
                finally:
                    os.close(folder)

    def _old(self, inode: int) -> str:
        return f".{self._target}.{inode}.old"

    def _marked(self) -> list[int]:
        """The inodes in the lock: of the folder that was made, and of what it was to replace."""
        return [int(number) for number in re.findall(rb"\d+", os.pread(self._lock, _LONGEST, 0))]

    def _is_mine(self, folder: int) -> bool:
        """Return whether an open folder and the lock belong to this user."""
        return {os.fstat(each).st_uid for each in (folder, self._lock)} == {os.geteuid()}

    def _in_the_way(self, name: str) -> OutputError:
        path = self.path.with_name(name)
        return OutputError(
            f"{path.with_name(self._target)} cannot be written: {path} is in the way. This program needs "
            "that name, and cannot tell that it made what is there. Look at it, and remove it if nobody "
            f"needs it. {self._instead}"
        )

    def _is_there(self, name: str, descriptor: int) -> bool:
        """Return whether ``name`` is still the file or folder that was opened."""
        try:
            there = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _rename(self, name: str, new: str) -> None:
        os.rename(name, new, src_dir_fd=self._parent, dst_dir_fd=self._parent)


def _tidy(target: Path, instead: str) -> None:
    """Remove what a killed run left beside ``target``, or give that its name back, unless it is in use."""
    with suppress(OSError, OutputError):
        if target.with_name(f".{target.name}.lock").exists():
            _Partial(target, instead).close()


def _is_lock(descriptor: int) -> bool:
    """Return whether the content of an open file is that of a lock, new or left over."""
    content = os.pread(descriptor, _LONGEST, 0)
    return re.fullmatch(rb"(%s){0,2}" % _MARK.format(r"\d+").encode(), content) is not None


def _check_free(
    out: Path, overwrite: bool, marker: str, ours: frozenset[str] | None, instead: str, replace: str
) -> None:
    """Raise OutputError unless ``out`` may be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file. {instead}")
    if out.is_mount() or out == Path.cwd():
        kind = "a mount point" if out.is_mount() else "the current folder"
        raise OutputError(f"{out} is {kind}, which cannot be replaced. Give a folder inside of it.")
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return
    if not (out / marker).is_file():
        raise OutputError(f"{out} holds files that are not ours (no {marker}). {instead}")
    foreign = sorted(names - ours) if ours is not None else []
    if foreign:
        raise OutputError(f"{out} holds files that are not ours ({foreign[0]}). {instead}")
    if not overwrite:
        choose = instead[0].lower() + instead[1:]
        raise OutputError(f"{out} exists. Use {replace} to replace it, or {choose}")
