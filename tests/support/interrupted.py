"""Work that is interrupted while a lot is scored."""

from __future__ import annotations

from musc_edge.runtime.types import Progress


class StopError(Exception):
    """Raised where a run is interrupted."""


def stops_behind(share: float) -> Progress:
    """Whom progress is told: raises StopError once more than a ``share`` of scoring is done."""

    def stop(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "score" and done > share * total:
            raise StopError

    return stop
