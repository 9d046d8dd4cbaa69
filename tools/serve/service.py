"""The way of an image from its bytes to its result: a bounded queue, decoders side by side, the ViT in turn.

Each image in the queue has a place from when its bytes are there until its thread has ended.  A decoder that
hangs keeps its place while the others go on; so many of them at once that no place is left is told by
``trouble``, and ends with the process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from PIL import Image

from ...runtime.errors import DeviceError, OutputError
from ...runtime.images.kinds import refusal
from ...runtime.images.reading import ImageError, read_header, read_image
from ...runtime.line.result_log import Entry
from ...runtime.line.station import Station
from ...runtime.parallel import Room
from ...runtime.results.heatmap import Scale
from .bodies import Body
from .recent import Picture, Pictures, preview
from .refused import ClientGoneError, RefusedError, busy
from .threads import in_thread


class Log(Protocol):
    """The results: ``ResultLog`` or ``MemoryLog``."""

    def find(self, key: bytes) -> Entry | None: ...

    def last(self, count: int, reference: str | None = None) -> list[Entry]: ...

    def after(self, number: int, count: int) -> list[Entry]: ...


@dataclass(eq=False)
class Job:
    """An image on its way; ``key`` is what its result is recorded under, if anything.

    ``waiting`` says that it waits for others, so that it can be dropped at once; ``gone`` that nobody waits
    for it any more; ``repeated`` that its result was there already.
    """

    station: Station
    body: Body
    name: str
    key: bytes | None
    begun: float = field(default_factory=time.monotonic)
    waiting: bool = False
    gone: bool = False
    repeated: bool = False
    holds: ExitStack = field(default_factory=ExitStack)
    task: asyncio.Task[Entry] | None = None


class Service:
    """Checks images against references by name.

    Parameters
    ----------
    stations : mapping
        What checks and records, by the name of the reference.
    log : Log
        Where the stations record.
    places : int
        Images that may be in the queue at once, those in work included.
    room : int
        Bytes that decoding may take at once.
    seconds : float
        How long an image may take from the end of its bytes to its result.
    """

    def __init__(
        self, stations: Mapping[str, Station], log: Log, places: int, room: int, seconds: float
    ) -> None:
        self.stations, self.log, self.seconds = stations, log, seconds
        self.pictures = Pictures()
        self._places, self._room = places, Room(room)
        self._jobs: set[Job] = set()
        # As many at once as the ViT takes together: one on the CPU, a batch on a GPU.
        turns = max((station.checker.batch for station in stations.values()), default=1)
        self._turn, self._keys = asyncio.Semaphore(turns), _Keys()
        self._usual = 0.5
        self._running: dict[Job, float] = {}  # since when each check that is running does
        self._failure = ""

    @property
    def queued(self) -> int:
        """Images that wait or are in work."""
        return len(self._jobs)

    def trouble(self) -> str:
        """Return why no image can be checked now, empty if one can."""
        now = time.monotonic()
        hanging = sum(not job.waiting and now - job.begun > self.seconds for job in self._jobs)
        stuck = any(now - since > self.seconds for since in self._running.values())
        if hanging >= self._places or stuck:
            return f"{hanging} images have been in work for more than {self.seconds:g} s: restart it."
        return self._failure

    def require_place(self) -> None:
        """Raise RefusedError (503) if the queue is full."""
        if len(self._jobs) >= self._places:
            raise busy(f"{self._places} images are waiting, as many as may (--queue)", self._wait())

    async def check(self, job: Job, gone: asyncio.Task[None]) -> Entry:
        """Check an image, and record the result once.

        ``gone`` ends when nobody waits for the result any more.  The job's body is closed in any case.

        Raises
        ------
        RefusedError
            If the queue is full, another image had the same key, or it takes too long.
        ClientGoneError
            If nobody waits any more; the image is dropped unless it is in work.
        DeviceError, OutputError
            If the backend or the disk fails.
        """
        try:
            self.require_place()
        except RefusedError:
            job.body.close()
            raise
        self._jobs.add(job)
        job.task = task = asyncio.create_task(self._work(job))
        task.add_done_callback(lambda _: self._end(job))
        await asyncio.wait({task, gone}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        self._drop(job)
        if gone.done():
            raise ClientGoneError
        raise RefusedError(
            504,
            f"there was no result after {self.seconds:g} s; it may be recorded later. Ask again with the "
            "same Idempotency-Key, if you gave one.",
        )

    def _drop(self, job: Job) -> None:
        job.gone = True
        if job.waiting and job.task:
            job.task.cancel()

    def _end(self, job: Job) -> None:
        """Free what a job holds."""
        job.holds.close()
        job.body.close()
        self._jobs.discard(job)
        if job.task and not job.task.cancelled():
            job.task.exception()  # it was raised to whoever waited; if nobody did, it is not worth a warning

    async def _work(self, job: Job) -> Entry:
        async with self._keys.turn(job):
            if job.key is not None and (found := await in_thread(partial(self.log.find, job.key))):
                job.repeated = True
                return _same(found, job)
            picture: Image.Image | None = None
            try:
                picture = await in_thread(partial(_read, job, self._room))
            except ImageError as error:
                unreadable = error
            if job.gone:
                raise ClientGoneError
            try:
                if picture is None:
                    more = _facts(job)
                    record = partial(job.station.refuse, job.name, unreadable, job.key, more)
                    return await in_thread(record)
                entry = await self._check(job, picture)
            except (DeviceError, OutputError) as error:
                self._failure = str(error)
                raise
            self._failure = ""
            return entry

    async def _check(self, job: Job, picture: Image.Image) -> Entry:
        """Check the picture when it is its turn."""
        async with _waiting(job), self._turn:
            job.waiting = False
            self._running[job] = begun = time.monotonic()
            try:
                entry, shown = await in_thread(partial(_record, job, picture))
            finally:
                del self._running[job]
            self._usual += 0.1 * (time.monotonic() - begun - self._usual)
            self.pictures.add(entry.id, shown)
        return entry

    def _wait(self) -> float:
        """Seconds after which the queue has probably moved on."""
        return self._usual * len(self._jobs)


def _read(job: Job, room: Room) -> Image.Image:
    """Decode the image as ``musc-edge check`` would a file of this name; ImageError if it cannot be."""
    if refused := refusal(job.name):
        raise ImageError(*refused)
    manifest = job.station.checker.reference.manifest
    header = read_header(job.body.path, manifest.max_pixels)
    job.holds.enter_context(room.taken(header.decode_bytes))
    return read_image(job.body.path, manifest.bit_depth, manifest.max_pixels)


def _record(job: Job, picture: Image.Image) -> tuple[Entry, Picture]:
    """Check the picture, record the result, and make what can be shown of it."""
    checker = job.station.checker
    check, entry = job.station.check(picture, job.name, job.key, _facts(job))
    caption = f"{job.name or f'image {entry.id}'}   raw {check.raw_score:.3f}   p {check.p:.3f}"
    size = checker.bundle.manifest.preprocess.size
    shown = Picture(preview(picture), check.map, size, Scale(*checker.reference.manifest.scale), caption)
    return entry, shown


def _facts(job: Job) -> dict[str, str]:
    """What is recorded beside the check: the image's digest, by which another one with its key is told."""
    return {"sha256": job.body.digest}


def _same(found: Entry, job: Job) -> Entry:
    """Return the first answer to a repeated request; RefusedError if it was about another image."""
    if found.facts.get("sha256") != job.body.digest:
        raise RefusedError(
            409,
            f"this Idempotency-Key was used for another image, that of result {found.id}. Give each image a "
            "key of its own.",
        )
    return found


@asynccontextmanager
async def _waiting(job: Job) -> AsyncIterator[None]:
    """Within the block the job waits for others, until it says otherwise."""
    job.waiting = True
    try:
        yield
    finally:
        job.waiting = False


class _Keys:
    """Lets requests with the same key take turns, so that the later one gets the earlier one's answer."""

    def __init__(self) -> None:
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._users = Counter[bytes]()

    @asynccontextmanager
    async def turn(self, job: Job) -> AsyncIterator[None]:
        key = job.key
        if key is None:
            yield
            return
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        job.waiting = True
        try:
            async with lock:
                job.waiting = False
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
