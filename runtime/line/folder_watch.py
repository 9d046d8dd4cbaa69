"""Watch a folder: each image that comes is checked and recorded once.

The log decides what was checked, by an image's name and content.  The kernel's notices and the searches of
the folder only say where to look, so that nothing is lost if a notice is: every so often, and whenever
something is amiss, the whole folder is searched.

A file is taken when whoever wrote it has closed it or moved it in, or else when its size and time have not
changed for a while.  One that cannot be read then may not be complete: it is tried again when it changes,
and recorded as it is when it has not changed for long.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..._files import open_regular
from ..errors import LotError, OutputError
from ..images.reading import file_stamp
from ..reference.checker import Check
from .attempts import MOST, Attempts
from .database import ELSEWHERE
from .folder_scan import files_below, is_taken, may_be_taken
from .mounts import remote_kind
from .notices import FULL, Notices
from .pictures import KEY_BYTES
from .result_log import Entry, ResultLog
from .seen_files import SeenFiles, Stamp
from .station import Station
from .waiting import Waiting

POLL = 2.0
"""Seconds between searches where the kernel cannot say what happens."""
_SEARCH = 60.0
"""Seconds between searches where it can."""
_REST = 20
"""How many times as long as a search takes it rests before the next."""
_TURN = 0.5
_MOST_WAITING = 10_000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Attributes
    ----------
    poll : float, optional
        Seconds between searches of the folder, if it is to be searched instead of listening to the kernel.
        Where the kernel is not told what others write, on network shares, that is every 2 s.
    settle : float, default 2
        Seconds for which a file must not change that nobody was seen to close.
    patience : float, default 60
        Seconds for which a file must not change before it is recorded as one that cannot be read.
    existing : bool, default False
        Check also what lay there before the first start.
    """

    poll: float | None = None
    settle: float = 2.0
    patience: float = 60.0
    existing: bool = False


class FolderWatch:
    """Watches ``folder`` for a station; a context manager.

    Parameters
    ----------
    folder : str or path
        The folder, with all below it.
    station : Station
        What checks the images and records the results.
    options : WatchOptions
        How it is watched.
    say : callable, optional
        Is told, in a sentence, what else should be known: that the folder is gone, or is polled.

    Raises
    ------
    OutputError
        If the log lies in the folder, or the folder in the log's, or the log is that of another folder.
    OSError
        If the folder cannot be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        station: Station,
        options: WatchOptions = WatchOptions(),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = Path(folder).resolve()
        log = station.log
        if not isinstance(log, ResultLog):
            raise TypeError(f"a station that records in a {type(log).__name__}: expected a ResultLog")
        self._station, self._log, self._options = station, log, options
        self._poll, self._say = options.poll, say
        _require_apart(self.folder, self._log.folder)
        self._waiting = Waiting()
        self._more = self._gone = False
        self._search_at = 0.0
        self._root: tuple[int, int] | None = None
        self._said: set[str] = set()
        self._seen = SeenFiles(self._log.database, self.folder, unchecked=not options.existing)
        with ExitStack() as stack:
            self._attempts = Attempts(self._log.folder)
            stack.callback(self._attempts.close)
            self._notices = self._listen(stack)
            if self._seen.first_time:
                self._begin()
            stack.callback(self._seen.flush)
            self._stack = stack.pop_all()

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        self._stack.close()

    def turn(self) -> Entry | None:
        """Wait a moment for an image, and check and record it.

        Returns
        -------
        Entry or None
            What was recorded; None if nothing was due within half a second.  Call it again and again.

        Raises
        ------
        DeviceError, OutputError
            If the backend or the disk fails.
        """
        self._hear()
        if self._must_search():
            self._search("")
        due = self._waiting.next()
        if due and due[0] <= time.monotonic():
            return self._look(due[1])
        self._seen.flush()
        return None

    def _begin(self) -> None:
        """Record what is there already, and that the folder is watched from now on."""
        try:
            found = files_below(self.folder, "", self._enter, self._say_once)
            self._seen.begin(() if self._options.existing else found)
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise LotError(f"{self.folder} cannot be read: {error.__cause__.strerror}.") from error
            raise

    # ---- where to look -----------------------------------------------------------------------

    def _listen(self, stack: ExitStack) -> Notices | None:
        """Begin to listen to the kernel, if it hears what is written to the folder."""
        if self._poll is None and (kind := remote_kind(self.folder)):
            self._fall_back(f"it is on {kind}, where nothing says what other machines write")
        if self._poll is not None:
            return None
        try:
            notices = Notices(self.folder)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._fall_back("too many programs watch folders (fs.inotify.max_user_instances)")
            return None
        stack.callback(notices.close)
        return notices

    def _fall_back(self, why: str) -> None:
        self._poll = self._poll or POLL
        self._say(f"{self.folder} is searched every {self._poll:g} s: {why}.")

    def _enter(self, name: str) -> None:
        """Listen to a folder that is about to be searched, so that nothing comes between."""
        if name and self._poll is None and (kind := remote_kind(self.folder / name)):
            self._fall_back(f"{name} is on {kind}, where nothing says what other machines write")
        if self._notices is None:
            return
        try:
            self._notices.add(name)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if self._poll is None:
                self._fall_back("it has more folders than may be watched (fs.inotify.max_user_watches)")

    def _hear(self) -> None:
        """Wait until something happens, or is due; take note of it."""
        due, now = self._waiting.next(), time.monotonic()
        until = min(now + _TURN, self._search_at, due[0] if due else now + _TURN)
        if self._notices is None:
            time.sleep(max(0.0, until - now))
            return
        for notice in self._notices.wait(until - now):
            if notice.search:
                self._search(notice.name)
            elif may_be_taken(notice.name):
                self._notice(notice.name, notice.closed, notice.opened)

    def _notice(self, name: str, closed: bool, opened: bool) -> None:
        """Take note of what was heard of a file."""
        try:
            stamp, now = file_stamp(self.folder / name), time.monotonic()
        except OSError:  # gone again; if not, a search finds it
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._more = True
        elif (name, stamp) not in self._seen:
            if closed:
                self._waiting.close(name, stamp, now, self._options.settle)
            else:
                # Whoever made it will close it; only of a link nothing more is heard.
                whole = (self.folder / name).is_symlink() or (self.folder / name).stat().st_nlink > 1
                pause = self._options.settle if whole or not opened else self._options.patience
                self._waiting.see(name, stamp, now, pause)

    def _must_search(self) -> bool:
        """Return whether it is time to search the whole folder, or it is another than was searched."""
        if time.monotonic() >= self._search_at or (self._more and len(self._waiting) < _MOST_WAITING // 2):
            return True
        try:
            return not self._gone and _identity(self.folder) != self._root
        except OSError:
            return not self._gone

    def _search(self, inside: str) -> None:
        """Take note of the files below ``inside`` that need a look, the oldest first."""
        begun = time.monotonic()
        try:
            root = _identity(self.folder)
            below = files_below(self.folder, inside, self._enter, self._say_once)
            new = ((stamp, name) for name, stamp in below if (name, stamp) not in self._seen)
            found = heapq.nsmallest(_MOST_WAITING, new)
        except (OSError, LotError) as error:
            if not inside:
                self._lose(error)
            return
        if not inside:
            self._find(root, begun)
        self._more |= len(found) == _MOST_WAITING
        for stamp, name in found:
            self._waiting.see(name, stamp, begun, self._options.settle)

    def _lose(self, error: Exception) -> None:
        if not self._gone:
            reason = getattr(error, "strerror", None) or error
            self._say(f"{self.folder} cannot be read: {reason}. It is waited for.")
        self._gone, self._root = True, None
        self._search_at = time.monotonic() + (self._poll or POLL)

    def _find(self, root: tuple[int, int], begun: float) -> None:
        if self._gone:
            self._say(f"{self.folder} can be read again.")
        self._gone, self._more, self._root = False, False, root
        now = time.monotonic()
        self._search_at = now + max(self._poll or _SEARCH, _REST * (now - begun))

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    # ---- looking -----------------------------------------------------------------------------

    def _look(self, name: str) -> Entry | None:
        """Check and record a file that is due, if it is an image, is complete and was not checked before."""
        path, file, now = self.folder / name, self._waiting[name], time.monotonic()
        try:
            stamp = file_stamp(path)
        except (FileNotFoundError, NotADirectoryError):
            self._waiting.drop(name)
            return None
        except OSError:  # the share is away
            self._waiting.postpone(name, now + self._options.settle)
            return None
        if stamp != file.stamp:
            self._waiting.see(name, stamp, now, self._options.settle)
            return None
        gives_up = file.since + self._options.patience
        try:
            taken = is_taken(path)
        except OSError:  # it cannot be opened, and has no image's ending
            if now < gives_up:
                self._waiting.postpone(name, gives_up)
                return None
            taken = False
        key = _key(name, path, stamp) if taken else b""
        if not taken or key in self._log:
            self._done(name, stamp)
            return None
        return self._check(name, key, stamp, last=now >= gives_up)

    def _check(self, name: str, key: bytes, stamp: Stamp, last: bool) -> Entry | None:
        """Check and record an image; one that cannot be read is recorded if this is the ``last`` try."""
        path, begun = self.folder / name, time.monotonic()
        with self._log.database.turn():
            ended = self._attempts.begin(name, key)
        if ended >= MOST:
            said = f"the program has ended {ended} times while it checked this image"
            check, last = Check(name, "unreadable", error=said), True
        else:
            check = self._try(path, name)
        if _stamp_now(path) != stamp:  # it was written to meanwhile, or is gone
            self._waiting.postpone(name, begun)
            return None
        if check.status != "ok" and not last:
            self._waiting.postpone(name, self._waiting[name].since + self._options.patience)
            return None
        entry = self._station.record(check, path, key, begun)
        self._done(name, stamp)
        return entry

    def _try(self, path: Path, name: str) -> Check:
        try:
            return self._station.checker.check(path, name)
        except BaseException:  # the program ends in good order, and not by the image
            self._attempts.end()
            raise

    def _done(self, name: str, stamp: Stamp) -> None:
        self._seen.add(name, stamp)
        self._waiting.drop(name)


def _key(name: str, path: Path, stamp: Stamp) -> bytes:
    """Return what tells an image from all others: a digest of its name and content.

    Of what cannot be read the stamp stands for the content.
    """
    digest = hashlib.blake2b(os.fsencode(name) + b"\0", digest_size=KEY_BYTES)
    try:
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return hashlib.blake2b(os.fsencode(name) + repr(stamp).encode(), digest_size=KEY_BYTES).digest()
    return digest.digest()


def _stamp_now(path: Path) -> Stamp | None:
    try:
        return file_stamp(path)
    except OSError:
        return None


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _require_apart(folder: Path, out: Path) -> None:
    """Raise OutputError if results would lie among the images, or images among the results."""
    if out.is_relative_to(folder) or folder.is_relative_to(out):
        raise OutputError(
            f"{out} and the watched folder {folder} lie in each other: pictures of suspects would be taken "
            f"for new images. {ELSEWHERE}"
        )
