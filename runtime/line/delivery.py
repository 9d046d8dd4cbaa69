"""Tell a receiver of the results in a log: each at least once and in order, whatever ends the program.

A thread reads the log behind the position up to which the receiver has acknowledged, and moves this position
after each acknowledgement.  What a program could not deliver the next one delivers, and what was acknowledged
just before a kill is delivered again, with the same ``Entry.event``.  In memory are 100 results at most.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from threading import Event, Lock, Thread
from typing import Any, Literal

from ..._numbers import counted
from ..errors import MuscEdgeError, ReceiverError
from ..verdict.limits import FLAGGED
from .patience import DeliveryStatus, Patience
from .receiver import BAD, Receiver, RefusedError, UnreachableError, has_changed, kind
from .result_log import Entry, ResultLog

REJECT, ALL = "reject", "all"
Tell = Literal["reject", "all"]
Say = Callable[[str], None]
_AT_ONCE = 100
_SELDOM = 1000
"""Results after which the position is recorded if none was to be told: each recording waits for the disk."""


class Delivery:
    """Tells ``receiver`` of the results in ``log`` while the block of a ``with`` runs.

    The first time it tells of those recorded from then on, later of all after the last one delivered.

    Parameters
    ----------
    log : ResultLog
        Must be open until the block has ended.
    receiver : Receiver
        An ``MqttReceiver``, a ``WebhookReceiver`` or one of your own.
    tell : str
        "reject": rejected images, those that could not be checked, and the first with which a line has
        changed or is steady again (the fact ``drift``); or "all".
    heartbeat : float
        Seconds between messages that say that this program is alive; 0 for none.
    patience : Patience
        Waits and tries.
    say : callable
        Takes lines on what goes wrong, for a person; by default they are printed on standard error.

    Raises
    ------
    ReceiverError
        If ``tell`` or ``heartbeat`` is none of these.
    OutputError
        If the log cannot be read or written.
    """

    def __init__(
        self,
        log: ResultLog,
        receiver: Receiver,
        tell: Tell = "reject",
        heartbeat: float = 60.0,
        patience: Patience | None = None,
        say: Say | None = None,
    ) -> None:
        if tell not in (REJECT, ALL) or not heartbeat >= 0:
            raise ReceiverError(
                f"tell={tell!r}, heartbeat={heartbeat}: expected {REJECT!r} or {ALL!r}, 0 or more seconds."
            )
        self._log, self._receiver, self._patience = log, receiver, patience or Patience()
        self._told = None if tell == ALL else (*FLAGGED, BAD)
        self._heartbeat, self._last_beat = heartbeat, float("-inf")
        self._say = say or _print
        self._stop, self._deadline = Event(), float("inf")
        self._turn, self._log_is_ours = Lock(), True
        self._connected, self._error, self._failures = False, "", 0
        self._delivered = self._skipped = self._refusals = 0
        self._changed: set[str] = set()
        log.begin_delivery(receiver.destination)
        self._position = self._kept = log.delivered(receiver.destination)
        self._thread = Thread(target=self._run, name=f"delivery {receiver.destination}", daemon=True)

    def __enter__(self) -> Delivery:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Deliver what is left, for ``Patience.drain`` seconds at most; the rest is for the next program."""
        self._deadline = time.monotonic() + self._patience.drain
        self._stop.set()
        self._thread.join(self._patience.drain)
        with self._turn:  # a thread that still waits for the receiver ends by itself, without the log
            self._log_is_ours = False
        if behind := self.status().behind:
            self._note(f"{counted(behind, 'result')} behind; the next start on this log goes on from there")

    def status(self) -> DeliveryStatus:
        """Return how the delivery stands; from any thread, while the log is open."""
        receiver, behind = self._receiver, len(self._log) - self._position
        return DeliveryStatus(
            receiver.destination, receiver.address, self._connected, behind, self._delivered, self._skipped,
            self._error,
        )  # fmt: skip

    def _run(self) -> None:
        wait: float | None = 0.0
        while wait is not None:
            wait = self._attempt()
            if wait is not None and self._stop.wait(wait):
                return

    def _attempt(self) -> float | None:
        """Connect and deliver; returns how long to wait after a failure, None if the program ends."""
        try:
            self._deliver()
        except UnreachableError as error:
            return self._failed(str(error), error.after)
        except MuscEdgeError as error:  # of the log, or of files that the receiver reads again
            return self._failed(str(error))
        except _LetGoError:
            pass
        except Exception as error:
            self._say(traceback.format_exc())
            return self._failed(f"internal error: {error!r}")
        finally:
            self._connected = False
            self._receiver.close()
        return None

    def _deliver(self) -> None:
        """Connect and tell of one result after another, until the program ends or something fails."""
        answered = self._receiver.open(self._state("online"))
        if answered:
            self._last_beat = time.monotonic()
        if answered or not self._failures:
            self._reached()
        while not self._over():
            if not self._deliver_some():
                if self._stop.is_set():
                    break
                self._receiver.wait(self._stop, self._patience.poll)
        self._keep()
        self._receiver.close(self._state("offline"))

    def _deliver_some(self) -> int:
        """Tell of the next results; returns how many there were."""
        with self._own_log() as log:
            entries = log.after(self._position, _AT_ONCE)
        self._beat()
        for entry in entries:
            changed = has_changed(entry)
            told = self._is_told(entry, changed)
            if told:
                self._beat()
                self._tell(entry)
            self._changed = self._changed - {entry.reference} | ({entry.reference} if changed else set())
            self._position = entry.id
            if told or entry.id - self._kept >= _SELDOM:
                self._keep()
            if self._over():
                break
        return len(entries)

    def _is_told(self, entry: Entry, changed: bool) -> bool:
        turned = changed != (entry.reference in self._changed)
        return self._told is None or turned or kind(entry) in self._told

    def _tell(self, entry: Entry) -> None:
        """Tell of a result; returns when it is acknowledged, or was refused often enough."""
        try:
            self._receiver.tell(entry)
        except RefusedError as error:
            self._refusals += 1
            which = f"result {entry.id} ({entry.event})"
            # In its last seconds the program leaves nothing out: the next one will have all of its tries.
            if self._refusals < self._patience.tries or self._stop.is_set():
                raise UnreachableError(f"{which} was refused: {error}") from error
            self._skipped += 1
            self._note(f"{which} was refused {counted(self._refusals, 'time')} and is left out: {error}")
        else:
            self._delivered += 1
            self._reached()
        self._refusals = 0

    def _beat(self) -> None:
        """Say that this program is alive, if it is time to."""
        if not self._heartbeat or time.monotonic() - self._last_beat < self._heartbeat:
            return
        self._last_beat = time.monotonic()
        try:
            self._receiver.beat(self._state("online"))
        except RefusedError as error:
            self._note(f"the heartbeat was refused: {error}")
        else:
            self._reached()

    def _reached(self) -> None:
        if self._failures:
            self._note(f"connected again, {self._state('online')['behind']} behind")
        self._connected, self._error, self._failures = True, "", 0

    def _failed(self, error: str, asked: float = 0.0) -> float:
        """Note what went wrong, once; returns how long to wait."""
        self._failures += 1
        if error != self._error:
            self._note(f"{error}; it will be tried again, and nothing is lost")
        self._error = error
        return self._patience.after(self._failures, asked)

    def _note(self, text: str) -> None:
        self._say(f"{self._receiver.destination} ({self._receiver.address}): {text}")

    def _over(self) -> bool:
        return time.monotonic() >= self._deadline

    def _keep(self) -> None:
        """Record the position in the log, if it has moved."""
        if self._position != self._kept:
            with self._own_log() as log:
                log.set_delivered(self._receiver.destination, self._position)
            self._kept = self._position

    def _state(self, state: str) -> dict[str, Any]:
        """What the receiver is told of this program."""
        with self._own_log() as log:
            results = len(log)
        return {
            "state": state,
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "results": results,
            "behind": results - self._position,
            "skipped": self._skipped,
            "changed": sorted(self._changed),
        }

    @contextmanager
    def _own_log(self) -> Iterator[ResultLog]:
        """The log, unless the block of the ``with`` has ended: it may be closed then."""
        with self._turn:
            if not self._log_is_ours:
                raise _LetGoError
            yield self._log


class _LetGoError(Exception):
    """The program has given up waiting for this thread."""


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
