"""How long a delivery waits for a receiver, and how it stands with it."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Patience:
    """How long a delivery waits, in seconds, and how often it tries.

    Attributes
    ----------
    first : float
        The wait after the first failure.  Each is twice the one before, less up to half of it at random, so
        that many programs do not come back to one receiver at once.
    most : float
        The longest of these waits.
    asked : float
        The longest wait that a receiver can ask for.
    poll : float
        Between looks into the log.
    drain : float
        How long what is left is delivered when the program ends.
    tries : int
        How often a result is sent that the receiver refuses.
    """

    first: float = 0.5
    most: float = 60.0
    asked: float = 3600.0
    poll: float = 0.25
    drain: float = 3.0
    tries: int = 3

    def after(self, failures: int, asked: float = 0.0) -> float:
        """Return how long to wait after so many failures in a row, 1 or more."""
        wait = min(self.most, self.first * 2.0 ** min(failures - 1, 30))
        return max(wait * random.uniform(0.5, 1.0), min(asked, self.asked))


@dataclass(frozen=True)
class DeliveryStatus:
    """How a delivery stands.

    Attributes
    ----------
    destination : str
        The receiver's name in the log.
    address : str
        What messages call it.
    connected : bool
        Whether it could be reached when it was last tried.
    behind : int
        Results recorded after the last one that was delivered or needed no telling.
    delivered : int
        Results that this program delivered.
    skipped : int
        Results that the receiver refused for good, since this program began.
    error : str
        What went wrong last; empty again once something is acknowledged.
    """

    destination: str
    address: str
    connected: bool
    behind: int
    delivered: int
    skipped: int
    error: str

    def __str__(self) -> str:
        state = "connected" if self.connected else "not connected"
        parts = [f"{self.destination}: {state} ({self.address})", f"{self.behind} behind"]
        parts += [f"{self.skipped} refused"] if self.skipped else []
        return ", ".join(parts) + (f": {self.error}" if self.error else "")

    def facts(self) -> dict[str, Any]:
        """Return the same, for JSON."""
        return asdict(self)
